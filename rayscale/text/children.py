"""Children of the training rows, made once for each study, and the token folders that hold them beside their parents.

    <clean>/augment-<f>/                     train.arrow: key, parent (its key), copy, text, label; manifest.json
    <clean>/augment-<f>-parts/               blocks that are done, while the others are not
    <clean>/tokens-<tokens>-augment-<f>/     as tokens-<tokens>/, with the children after the real training rows;
                                             children.npy: those of real row i are numbered [i] to [i + 1], less one

They are made of training rows only, after the split: no child can cross it. One whose text is any held-out text, any
real training text or another child's is dropped and counted, and so is one that is nearly a held-out text.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayscale.errors import InputError
from rayscale.study_augment import Augmentation, read
from rayscale.text import apart, near, prepared, tokens
from rayscale.text.chain import CHILDREN, fingerprint
from rayscale.text.prepared import CHILDREN_INDEX, Prepared
from rayscale.text.publish import publish_file, publish_folder
from rayscale.text.split import TEST
from rayscale.text.tokenise import TokenizerSpec

if TYPE_CHECKING:
    from rayscale.study import Study
    from rayscale.text.prepare import Progress, Workers

#: Rows of one block of work. Fixed, so that rows which a model computes together are the same ones anywhere.
BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Found:
    """An augmentation whose files were found, and the fingerprint of all that decides about its children."""

    augmentation: Augmentation
    mark: str

    @property
    def name(self) -> str:
        """Its name in the study."""
        return self.augmentation.name


def find_augmentations(study: Study) -> list[Found]:
    """Those of the study, plain cells left out. Raises InputError naming what is missing, where it is in the study."""
    found = []
    for place, entry in enumerate(study.data.augment):
        try:
            augmentation = read(entry).located()
            if augmentation.steps:
                found.append(Found(augmentation, fingerprint(augmentation)))
        except InputError as error:
            text = str(error)
            raise type(error)(text, code=error.code, where=study.where("data", "augment", place)) from error
    return found


def name_of(tokenizer: str, augment: str) -> str:
    """The name of prepared data: of its tokenizer and, where there is one, of its augmentation."""
    return tokenizer if augment == "none" else f"{tokenizer}+{augment}"


def find_all(
    study: Study, specs: Sequence[TokenizerSpec], seeds: Sequence[int], cleaned: Path | None = None
) -> dict[str, Prepared | None]:
    """By `name_of`, the tokens of every tokenizer, plain and augmented: those that are whole, with all indices.

    `cleaned` is the folder of the clean rows where it is known, so that no source file is hashed again.
    """
    cleaned = cleaned or prepared.clean_folder(study)
    length, found = study.task.length, {}
    augmentations = find_augmentations(study)
    for spec in specs:
        found[spec.name] = prepared.find_tokens(cleaned, spec, length, seeds)
        for each in augmentations:
            found[name_of(spec.name, each.name)] = prepared.find_whole(
                _tokens_folder(cleaned, spec, length, each), seeds
            )
    return found


def prepare_augmented(
    study: Study, cleaned: Path, specs: Sequence[TokenizerSpec], seeds: Sequence[int], workers: Workers, say: Progress
) -> dict[str, Prepared]:
    """Prepared data by `name_of`; the plain tokens of every tokenizer must be there. Does only what is not done yet."""
    made = {}
    for found in find_augmentations(study):
        for spec in specs:
            path = _tokens_folder(cleaned, spec, study.task.length, found)
            if not prepared.is_whole(path):
                children = _make(cleaned, found, workers, say)
                say(f"tokenising {found.name} for {spec.name}")
                plain = Prepared.open(prepared.tokens_folder(cleaned, spec, study.task.length))
                _tokenise(plain, children, path, workers)
            prepared.add_indices(path, seeds)
            made[name_of(spec.name, found.name)] = Prepared.open(path)
    return made


def _tokens_folder(cleaned: Path, spec: TokenizerSpec, max_length: int, found: Found) -> Path:
    plain = prepared.tokens_folder(cleaned, spec, max_length)
    return plain.with_name(f"{plain.name}-augment-{found.mark}")


def _make(cleaned: Path, found: Found, workers: Workers, say: Progress) -> Path:
    """The folder of the children, made where it is not there yet; blocks that an earlier run finished are kept."""
    augmentation, folder = found.augmentation, cleaned / f"augment-{found.mark}"
    if prepared.is_whole(folder):
        return folder
    rows = prepared.read_table(cleaned / "train.arrow")
    parts = folder.with_name(f"{folder.name}-parts")
    blocks = {parts / f"{first:012d}.arrow": (first, min(BLOCK_ROWS, len(rows) - first))
              for first in range(0, len(rows), BLOCK_ROWS)}  # fmt: skip
    missing = {path: place for path, place in blocks.items() if not path.exists()}
    done = f" ({len(blocks) - len(missing)} of {len(blocks)} blocks were done)" if len(missing) < len(blocks) else ""
    say(f"augmenting {len(rows)} rows: {augmentation.name}{done}")
    tables = [_block(rows, *place) for place in missing.values()]
    for first, table in _whole_blocks(workers.augment(augmentation, tables), tables, augmentation.copies):
        publish_file(parts / f"{first:012d}.arrow", _as_file(table))
    made = pa.concat_tables([prepared.read_table(path) for path in blocks])
    children, dropped = _select(made, cleaned, rows)
    manifest = {
        "augmentation": augmentation.describe(),
        "rows": {"real": len(rows), "made": len(made), "kept": len(children), "dropped": dropped},
        "characters": pc.sum(pc.utf8_length(children["text"])).as_py() or 0,
    }
    publish_folder(folder, partial(prepared.write_folder, {"train": children}, manifest), prepared.is_whole)
    shutil.rmtree(parts)
    return folder


def _block(rows: pa.Table, first: int, count: int) -> pa.Table:
    part = rows.slice(first, count)
    return pa.table({"row": np.arange(first, first + count), "key": part["key"], "text": part["text"]})


def _whole_blocks(made: Iterable[pa.Table], blocks: Sequence[pa.Table], copies: int) -> Iterator[tuple[int, pa.Table]]:
    """The first row and the children of every block, as soon as all are there: tables come in any order and cut."""
    waiting: dict[int, list[pa.Table]] = {}
    wanted = {block["row"][0].as_py(): copies * len(block) for block in blocks}
    for table in made:
        firsts = pc.multiply(pc.divide(table["row"], BLOCK_ROWS), BLOCK_ROWS)
        for first in pc.unique(firsts).to_pylist():
            got = waiting.setdefault(first, [])
            got.append(table.filter(pc.equal(firsts, first)))
            if sum(map(len, got)) == wanted[first]:
                joined = pa.concat_tables(waiting.pop(first)).cast(CHILDREN)
                yield first, joined.sort_by([("row", "ascending"), ("copy", "ascending")])


def _as_file(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _select(made: pa.Table, cleaned: Path, rows: pa.Table) -> tuple[pa.Table, dict[str, int]]:
    """The children that stay, ascending by parent and copy, and how many went, by reason."""
    keys, reasons = made["key"].to_numpy(), np.zeros(len(made), dtype=np.int8)
    names = ["kept", "unchanged", "in_test", "in_validation", "in_training", "duplicate"]
    names += ["near_test", "near_validation"]
    reasons[pc.is_null(made["text"]).to_numpy(zero_copy_only=False)] = 1
    for number, split in ((2, "test"), (3, "validation"), (4, "train")):
        there = rows if split == "train" else prepared.read_table(cleaned / f"{split}.arrow")
        reasons[(reasons == 0) & np.isin(keys, there["key"].to_numpy())] = number
    held_out = apart.of_clean_folder(cleaned)
    if held_out is not None:
        left = np.flatnonzero(reasons == 0)
        found = near.nearest(apart.texts_of(made["text"], left), held_out).others
        close = found >= 0
        reasons[left[close]] = np.where(held_out.groups[found[close]] == TEST, 6, 7)
    left = np.flatnonzero(reasons == 0)
    again = np.ones(len(left), dtype=bool)
    again[np.unique(keys[left], return_index=True)[1]] = False
    reasons[left[again]] = 5
    kept = made.filter(pa.array(reasons == 0))
    columns = {name: kept[name] for name in ("key", "parent", "copy", "text")}
    if "label" in rows.column_names:
        columns["label"] = rows["label"].combine_chunks().take(kept["row"].combine_chunks())
    return pa.table({**columns, "row": kept["row"]}), {name: int(np.sum(reasons == number))
                                                       for number, name in enumerate(names) if number}  # fmt: skip


def _tokenise(plain: Prepared, children_folder: Path, path: Path, workers: Workers) -> None:
    children = prepared.read_table(children_folder / "train.arrow")
    recipe = tokens.Recipe((plain.tokenizer_folder / "tokenizer.json").read_text("utf-8"), plain.manifest["max_length"],
                           plain.task_type, tuple(plain.labels))  # fmt: skip
    blocks = list(workers.transform(partial(tokens.encode_block, recipe=recipe), list(_texts(children))))
    tables = {name: prepared.read_table(plain.path / f"{name}.arrow") for name in prepared.SPLITS}
    counts = dict(plain.manifest["splits"])
    real = plain.split("train")
    values, offsets, truncated = real.values, real.offsets, counts["train"]["truncated_rows"]
    if blocks:
        encoded = pa.concat_tables(blocks).sort_by("row")
        ids = encoded["input_ids"].combine_chunks()
        values = np.concatenate([values, ids.values.to_numpy().astype(np.int32, copy=False)])
        offsets = np.concatenate([offsets, offsets[-1] + ids.offsets.to_numpy().astype(np.int64)[1:]])
        truncated += pc.sum(encoded["truncated"]).as_py()
    labels = [table["label"].to_numpy() for table in (tables["train"], children)]
    tables["train"] = pa.table(
        {
            "input_ids": prepared.list_array(values, offsets),
            "label": np.concatenate(labels),
            "key": np.concatenate([real.keys, children["key"].to_numpy()]),
        }
    )
    rows = len(offsets) - 1
    counts["train"] = {
        "rows": rows,
        "real_rows": len(real),
        "tokens": len(values),
        "longest": int(np.diff(offsets).max()),
        "truncated_rows": truncated,
        "truncated_share": round(truncated / rows, 6),
    }
    index = np.searchsorted(children["row"].to_numpy(), np.arange(len(real) + 1)).astype(np.int64)
    made = prepared.read_clean_manifest(children_folder)
    manifest = {**{k: v for k, v in plain.manifest.items() if k not in ("layout", "files")}, "splits": counts}
    manifest["augmentation"] = {**made["augmentation"], "rows": made["rows"]}
    stored = io.BytesIO()
    np.save(stored, index)
    prepared.publish_tokens(path, tables, manifest, partial(shutil.copytree, plain.tokenizer_folder),
                            {CHILDREN_INDEX: stored.getvalue()})  # fmt: skip


def _texts(children: pa.Table) -> Iterator[pa.Table]:
    for first in range(0, len(children), tokens.BLOCK_ROWS):
        part = children.slice(first, tokens.BLOCK_ROWS)
        numbers = np.arange(first, first + len(part))
        yield pa.table({"split": pa.array(["train"] * len(part)), "row": numbers, "text": part["text"]})


def describe_children(found: Prepared) -> dict[str, Any] | None:
    """How many children were made and kept, and why others were not; None for data without augmentation."""
    described = found.manifest.get("augmentation")
    return described and dict(described["rows"])
