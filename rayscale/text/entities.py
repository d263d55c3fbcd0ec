"""Entities in tags, by the rules of the CoNLL evaluation as seqeval 1.2.2 keeps them (its default mode)."""

from __future__ import annotations

from collections.abc import Sequence

#: Prefixes of the tags of entities; tags without them (parts of speech) are scored one by one.
PREFIXES = ("B-", "I-", "E-", "S-")


def are_entities(labels: Sequence[str]) -> bool:
    """Whether these tags mark entities: O, and at least one with a prefix."""
    marked = [label for label in labels if label != "O"]
    return bool(marked) and all(label.startswith(PREFIXES) for label in marked)


def kind_of(label: str) -> str:
    """The kind of entity that a tag with a prefix speaks of."""
    return label[2:]


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """(kind, first, last) of the entities of one sentence. An I- without a B- before it begins one, too."""
    found = set()
    begun, before, kind_before = 0, "O", ""
    for place, tag in enumerate([*tags, "O"]):
        mark, kind = tag[0], tag[2:]
        if before != "O" and (before in "ES" or mark in "BSO" or kind != kind_before):
            found.add((kind_before, begun, place - 1))
        if mark != "O" and (mark in "BS" or before in "ESO" or kind != kind_before):
            begun = place
        before, kind_before = mark, kind
    return found
