"""A chain of steps at work: every row's copies, each with chance of its own from the row's key.

Nothing else decides: how rows are cut into blocks, in which order they come and on how many machines changes no child.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from rayscale.study import augmenters
from rayscale.study.augment_key import Augmentation
from rayscale.study.augmenters import Example
from rayscale.text.augment import segments
from rayscale.text.normalise import NORMALISE_VERSION, keys_of, mix, normalise

#: Rises when the same rows and steps would give other children.
CHAIN_VERSION = 1

#: Children as they leave the steps: `row` is the parent's number in the training split, `text` is null where a step
#: left the text as it was or took all of it away.
CHILDREN = pa.schema(
    {"row": pa.int64(), "copy": pa.int32(), "key": pa.uint64(), "parent": pa.uint64(), "text": pa.large_string()}
)

_SALT = 0xA06


def fingerprint(augmentation: Augmentation) -> str:
    """16 hex digits: steps, settings and the contents of all files that the steps need (their paths located)."""
    contents = [step.augmenter.contents(step.settings) for step in augmentation.steps]
    named = [CHAIN_VERSION, NORMALISE_VERSION, augmentation.describe(), contents]
    named += [segments.versions(augmentation.by)] if augmentation.by else []
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]


class Chain:
    """The opened steps of an augmentation: what is costly was done, rows can come."""

    def __init__(self, augmentation: Augmentation) -> None:
        self._augmentation = augmentation
        segments.check(augmentation.segmenter)
        self._steps = [step.augmenter.make(step.settings) for step in augmentation.steps]

    def rows(self, texts: Sequence[str], keys: np.ndarray, copy: int) -> list[Example]:
        """The children of one copy, one for each text. Raises InputError where a step returns anything else."""
        children = [Example(text, 0) for text in texts]
        for number, (step, apply) in enumerate(zip(self._augmentation.steps, self._steps, strict=True)):
            seeds = mix(mix(mix(keys, self._augmentation.seed + _SALT), copy + 1), number + 1).tolist()
            by = self._augmentation.by
            given = [replace(row, seed=seed, segmenter=by) for row, seed in zip(children, seeds, strict=True)]
            children = augmenters.check_rows(step.name, given, apply(given))
        return children

    def __call__(self, block: pa.Table) -> pa.Table:
        """The children (schema CHILDREN) of a block of training rows with columns row, key, text."""
        texts, keys = block["text"].to_pylist(), block["key"].to_numpy()
        tables = [self._copy(block, texts, keys, copy) for copy in range(self._augmentation.copies)]
        return pa.concat_tables(tables).combine_chunks()

    def _copy(self, block: pa.Table, texts: Sequence[str], keys: np.ndarray, copy: int) -> pa.Table:
        made = [normalise(row.text) for row in self.rows(texts, keys, copy)]
        kept = [child if child and child != text else None for child, text in zip(made, texts, strict=True)]
        columns = {
            "row": block["row"],
            "copy": np.full(len(texts), copy, dtype=np.int32),
            "key": keys_of(child or "" for child in kept),
            "parent": keys,
            "text": pa.array(kept, pa.large_string()),
        }
        return pa.table(columns, schema=CHILDREN)
