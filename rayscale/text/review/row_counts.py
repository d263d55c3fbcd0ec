"""What became of every row: read = train + validation + test + dropped, each reason with its number."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayscale.study.study import Data
from rayscale.text.folders import LISTS
from rayscale.text.prepared import Prepared
from rayscale.text.rows.clean import place_names
from rayscale.text.split import SPLITS

_OF_TOKENS = ("rows", "tokens", "truncated_rows", "truncated_share", "unread", "dropped_tokens")


def row_counts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The rows of a manifest, of clean rows or of tokens: read, those of each split, dropped by reason.

    `bad_row_lines`: lines of rows that cannot be used. `label_spellings`: (label, as it was written, rows).
    `conflicting_labels`: dropped duplicates with another label than the row that stayed. `labels_not_in_training`:
    classes that only validation or test have, and `first_rows_of_these` the `order` of the first row of each.
    """
    rows = manifest["rows"]
    return {
        "read": rows["read"],
        **{name: rows[name] for name in SPLITS},
        "dropped": dict(rows["dropped"]),
        "bad_row_lines": rows.get("bad_row_lines", rows["dropped"].get("bad_row", 0)),
        "conflicting_labels": rows["conflicting_labels"],
        "label_spellings": list(manifest.get("label_spellings", ())),
        "labels_not_in_training": list(manifest["labels_not_in_training"]),
        "first_rows_of_these": list(manifest.get("first_rows_of_these", ())),  # none in folders of earlier versions
    }


def place_labels(counts: Mapping[str, Any], data: Data) -> dict[str, Any]:
    """The counts with `places_of_these`, a `file:line` each, instead of the first rows of labels not in training."""
    orders = counts["first_rows_of_these"]
    places = list(map(place_names(data), orders)) if orders else []
    return {**{k: v for k, v in counts.items() if k != "first_rows_of_these"}, "places_of_these": places}


def token_counts(tokens: Mapping[str, Prepared]) -> dict[str, dict[str, dict[str, Any]]]:
    """By tokenizer and split: rows (windows, for causal-lm), tokens, and what was cut (see `TokenCounts`)."""
    return {
        name: {
            split: {
                **{key: counts[key] for key in _OF_TOKENS if key in counts},
                "max_length": prepared.manifest["max_length"],
            }
            for split, counts in prepared.manifest["splits"].items()
        }
        for name, prepared in tokens.items()
    }


def listed(prepared: Prepared) -> dict[str, bytes]:
    """The lists of rows that were passed over, by the name of their file; empty ones are left out."""
    paths = [Path(prepared.path).parent / f"{name}.txt" for name in LISTS]
    return {path.name: path.read_bytes() for path in paths if path.exists() and path.stat().st_size}
