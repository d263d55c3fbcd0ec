"""Entities in tags, scheme by scheme: what marks them in a study's tags, and where they begin and end.

IOB2 and its like (IOB1, IOE1, IOE2 cannot be told from it by their tags alone) are read by the rules of the CoNLL
evaluation, as seqeval 1.2.2 reads them in its default mode. Schemes that mark single tokens (BMES, BILOU, IOBES, BMEWO)
say where an entity ends, so they are read strictly, as seqeval does with mode="strict": an entity is B I* E or S.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rayscale.study.tasks import ENTITIES


@dataclass(frozen=True)
class Scheme:
    """How tags mark entities. `marks`: each prefix in terms of B, I, E, S."""

    name: str
    marks: dict[str, str]
    strict: bool = True


#: In the order in which they are tried: the first that knows every mark is meant.
SCHEMES = (
    Scheme("IOB2", {"B": "B", "I": "I"}, strict=False),
    Scheme("IOE2", {"I": "I", "E": "E"}, strict=False),
    Scheme("IOBES", {"B": "B", "I": "I", "E": "E", "S": "S"}),
    Scheme("BILOU", {"B": "B", "I": "I", "L": "E", "U": "S"}),
    Scheme("BMES", {"B": "B", "M": "I", "E": "E", "S": "S"}),
    Scheme("BMEWO", {"B": "B", "M": "I", "E": "E", "W": "S"}),
)


def scheme_of(labels: Sequence[str]) -> Scheme | None:
    """The scheme of these tags; None where they are no entities, or marked in a way that no scheme knows."""
    marks = {label[0] for label in labels if label != "O"}
    if not marks or any(label != "O" and (len(label) < 3 or label[1] != "-") for label in labels):
        return None
    return next((scheme for scheme in SCHEMES if marks <= scheme.marks.keys()), None)


def scheme_text(labels: Sequence[str]) -> str:
    """How tags are scored, for people."""
    scheme = scheme_of(labels)
    if scheme is None:
        return "the tags follow no known scheme (IOB, IOE, IOBES, BILOU, BMES, BMEWO): single tags are scored"
    how = "only whole entities count" if scheme.strict else "by the rules of CoNLL"
    return f"the tags follow {scheme.name} ({how}); F1 is that of entities"


def signature(scheme: Scheme | None) -> str:
    """How tags are scored, as the record has it; `ENTITIES` begins it where entities are counted."""
    return "single tags" if scheme is None else f"{ENTITIES}{scheme.name}|{'strict' if scheme.strict else 'conll'}"


def kind_of(label: str) -> str:
    """The kind of entity that a tag with a prefix speaks of."""
    return label[2:]


def entities(tags: Sequence[str], scheme: Scheme) -> set[tuple[str, int, int]]:
    """(kind, first, last) of the entities of one sentence."""
    read = ["O" if tag == "O" else scheme.marks[tag[0]] + tag[1:] for tag in tags]
    return _strict(read) if scheme.strict else _lenient(read)


def _strict(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Those that are whole: S, or B, any I and E of one kind."""
    spans, begun = set(), None
    for place, tag in enumerate(tags):
        mark, kind = tag[0], tag[2:]
        if mark == "S":
            spans.add((kind, place, place))
        if mark in "OSB" or (begun is not None and kind != kind_of(tags[begun])):
            begun = None
        if mark == "B":
            begun = place
        elif mark == "E" and begun is not None:
            spans.add((kind, begun, place))
            begun = None
    return spans


def _lenient(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """An I without a B before it begins one, too; an E ends one."""
    spans = set()
    begun, before, kind_before = 0, "O", ""
    for place, tag in enumerate([*tags, "O"]):
        mark, kind = tag[0], tag[2:]
        if before != "O" and (before in "ES" or mark in "BSO" or kind != kind_before):
            spans.add((kind_before, begun, place - 1))
        if mark != "O" and (mark in "BS" or before in "ESO" or kind != kind_before):
            begun = place
        before, kind_before = mark, kind
    return spans
