"""Children of the training rows, made once for each study, and the token folders that hold them beside their parents.

    <clean>/augment-<f>/                     train.arrow: key, parent (its key), copy, text, label; manifest.json
    <clean>/augment-<f>-parts/               blocks that are done, while the others are not
    <clean>/tokens-<tokens>-augment-<f>/     as tokens-<tokens>/, with the children after the real training rows;
                                             children.npy: those of real row i are numbered [i] to [i + 1], less one

They are made of training rows only, after the split: no child can cross it. One whose text is any held-out text, any
real training text or another child's is dropped and counted, and so is one that is nearly a held-out text.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayscale.errors import InputError
from rayscale.study.augment_key import NONE, Augmentation, read
from rayscale.study.study import Study
from rayscale.system.disk import PRIVATE, write_file, write_folder
from rayscale.text import folders, prepared
from rayscale.text.augment import segments
from rayscale.text.augment.chain import CHILDREN, fingerprint
from rayscale.text.form import find_form
from rayscale.text.prepared import CHILDREN_INDEX, Prepared
from rayscale.text.rows import clean, leaks, near_duplicates
from rayscale.text.rows.leaks import texts_of
from rayscale.text.shards import Blocks, ShardWriter, as_file, batch_starts, read_batch, read_table, whole_blocks
from rayscale.text.split import TEST, VALIDATION
from rayscale.text.tokens import token_files
from rayscale.text.tokens.encode import TokenizerSpec
from rayscale.text.workers import Meter, Progress, Workers

#: Rows of one block of work. Fixed, so that rows which a model computes together are the same ones anywhere.
BLOCK_ROWS = 1024
#: Rows of each file, and files, that tell the scripts of a text. Ids depend on what is found: rows that are the same
#: before and after the text is prepared.
FIRST_ROWS, MOST_FILES = 1024, 16


@dataclass(frozen=True)
class FoundAugmentation:
    """An augmentation whose files were found, and the fingerprint of all that decides about its children."""

    augmentation: Augmentation
    mark: str

    @property
    def name(self) -> str:
        """Its name in the study."""
        return self.augmentation.name


def find_augmentations(study: Study) -> list[FoundAugmentation]:
    """Those with steps, each with the segmenter its text asks for. Raises InputError with the place in the study."""
    augmentations = []
    texts = _first_texts(study) if any(entry != NONE for entry in study.data.augment) else []
    for place, entry in enumerate(study.data.augment):
        try:
            augmentation = read(entry).located()
            if augmentation.steps:
                segmenter = segments.settle(augmentation.segmenter, texts)
                segments.check(segmenter)
                augmentation = replace(augmentation, segmenter=segmenter)
                augmentations.append(FoundAugmentation(augmentation, fingerprint(augmentation)))
        except InputError as error:
            where = study.where("data", "augment", place)
            raise type(error)(str(error), code=error.code, where=where) from error
    return augmentations


def _first_texts(study: Study) -> list[str]:
    """Texts that tell the scripts of a study: the first of its training files, whether or not they were prepared."""
    files = [file for file in clean.list_sources(study.data) if file.role == "train" and file.path != clean.BUILT_IN]
    texts: list[str] = []
    for file in files[:: -(-len(files) // MOST_FILES) or 1]:
        rows = next(clean.read_clean(file, study.task, study.data.on_bad_row))
        texts += rows["text"].slice(0, FIRST_ROWS).to_pylist()
    return texts


def name_of(tokenizer: str, augment: str) -> str:
    """The name of prepared data: of its tokenizer and, where there is one, of its augmentation."""
    return tokenizer if augment == NONE else f"{tokenizer}+{augment}"


def find_all(
    study: Study, specs: Sequence[TokenizerSpec], seeds: Sequence[int], cleaned: Path | None = None
) -> dict[str, Prepared | None]:
    """By `name_of`, all tokens, plain and augmented: None for those that are not whole. `cleaned`: the clean folder."""
    cleaned = cleaned or folders.clean_folder(study)
    length = study.task.length
    tokens: dict[str, Prepared | None] = {}
    augmentations = find_augmentations(study)
    for spec in specs:
        tokens[spec.name] = prepared.find_tokens(cleaned, spec, length, seeds)
        for augmentation in augmentations:
            folder = _tokens_folder(cleaned, spec, length, augmentation)
            tokens[name_of(spec.name, augmentation.name)] = prepared.find_whole(folder, seeds)
    return tokens


def prepare_augmented(
    study: Study, cleaned: Path, specs: Sequence[TokenizerSpec], seeds: Sequence[int], workers: Workers, say: Progress
) -> dict[str, Prepared]:
    """Prepared data by `name_of`; the plain tokens of every tokenizer must be there. Does only what is not done yet."""
    tokens = {}
    for augmentation in find_augmentations(study):
        for spec in specs:
            path = _tokens_folder(cleaned, spec, study.task.length, augmentation)
            if not folders.is_whole(path):
                children = _make(cleaned, augmentation, workers, say)
                what = f"tokenising {augmentation.name} for {spec.name}"
                say(what)
                plain = Prepared.open(folders.tokens_folder(cleaned, spec, study.task.length))
                meter = Meter(say, what, folders.read_manifest(children)["rows"]["kept"])
                _tokenise(plain, children, path, workers, meter)
            prepared.add_indices(path, seeds)
            tokens[name_of(spec.name, augmentation.name)] = Prepared.open(path)
    return tokens


def _tokens_folder(cleaned: Path, spec: TokenizerSpec, max_length: int, augmentation: FoundAugmentation) -> Path:
    plain = folders.tokens_folder(cleaned, spec, max_length)
    return plain.with_name(f"{plain.name}-augment-{augmentation.mark}")


def _make(cleaned: Path, settled: FoundAugmentation, workers: Workers, say: Progress) -> Path:
    """The folder of the children, made where it is not there yet; blocks that an earlier run finished are kept."""
    augmentation, folder = settled.augmentation, cleaned / f"augment-{settled.mark}"
    if folders.is_whole(folder):
        return folder
    path, parts = cleaned / "train.arrow", folder.with_name(f"{folder.name}-parts")
    rows, firsts = read_table(path), range(0, folders.read_manifest(cleaned)["rows"]["train"], BLOCK_ROWS)
    files = [parts / f"{first:012d}.arrow" for first in firsts]
    missing = [number for number, file in enumerate(files) if not file.exists()]
    done = f" ({len(files) - len(missing)} of {len(files)} blocks were done)" if len(missing) < len(files) else ""
    what = f"augmenting {len(rows)} rows: {augmentation.name}"
    say(what + done)
    meter = Meter(say, what, len(rows))
    blocks = Blocks(_block, tuple((str(path), firsts[number], BLOCK_ROWS) for number in missing))
    starts = np.array([*firsts, len(rows)], dtype=np.int64)
    meter.skip(len(rows) - sum(int(starts[number + 1] - starts[number]) for number in missing))
    for number, table in whole_blocks(workers.augment(augmentation, blocks), starts, augmentation.copies):
        ordered = table.cast(CHILDREN).sort_by([("row", "ascending"), ("copy", "ascending")])
        write_file(files[number], as_file(ordered), PRIVATE)
        meter.add(len(ordered) // augmentation.copies)
    kept, dropped = _select(files, cleaned, rows)

    def write(temporary: Path) -> None:
        labels = rows["label"].combine_chunks() if "label" in rows.column_names else None
        schema, characters = pa.schema([*_KEPT, *([("label", labels.type)] if labels is not None else [])]), 0
        with ShardWriter(temporary / "train.arrow", schema) as writer:
            for file, stays in zip(files, kept, strict=True):
                table = read_table(file).filter(pa.array(stays))
                characters += pc.sum(pc.utf8_length(table["text"])).as_py() or 0
                if labels is not None:
                    table = table.append_column("label", labels.take(table["row"].combine_chunks()))
                writer.add(table)
        counts = {"real": len(rows), "made": sum(map(len, kept)), "kept": writer.rows, "dropped": dropped}
        manifest = {"augmentation": augmentation.describe(), "rows": counts, "characters": characters}
        folders.write_manifest(temporary, manifest)

    write_folder(folder, write, folders.is_whole, PRIVATE)
    shutil.rmtree(parts)
    return folder


#: What becomes of children, by number.
_REASONS = ("kept", "unchanged", "in_test", "in_validation", "in_training", "duplicate", "near_test", "near_validation")
#: Columns of the children that stay, beside the label.
_KEPT = [(name, CHILDREN.field(name).type) for name in ("key", "parent", "copy", "text", "row")]


def _block(place: tuple[str, int, int]) -> pa.Table:
    path, first, count = place
    part = read_table(Path(path)).slice(first, count)
    return pa.table({"row": np.arange(first, first + len(part)), "key": part["key"], "text": part["text"]})


def _select(files: Sequence[Path], cleaned: Path, rows: pa.Table) -> tuple[list[np.ndarray], dict[str, int]]:
    """Which children of each file stay (bool), and how many went, by reason."""
    tables = [read_table(file) for file in files]
    keys = np.concatenate([table["key"].to_numpy() for table in tables])
    gone = np.concatenate([pc.is_null(table["text"]).to_numpy() for table in tables])
    reasons = gone.astype(np.int8)
    for number, split in ((2, "test"), (3, "validation"), (4, "train")):
        there = rows if split == "train" else read_table(cleaned / f"{split}.arrow")
        reasons[(reasons == 0) & np.isin(keys, there["key"].to_numpy())] = number
    held_out = of_clean_folder(cleaned)
    if held_out is not None:
        left = np.flatnonzero(reasons == 0)
        texts = pa.chunked_array([chunk for table in tables for chunk in table["text"].chunks], pa.large_string())
        others = near_duplicates.nearest(leaks.texts_of(texts, left), held_out).others
        close = others >= 0
        reasons[left[close]] = np.where(held_out.groups[others[close]] == TEST, 6, 7)
    left = np.flatnonzero(reasons == 0)
    again = np.ones(len(left), dtype=bool)
    again[np.unique(keys[left], return_index=True)[1]] = False
    reasons[left[again]] = 5
    kept = np.split(reasons == 0, np.cumsum([len(table) for table in tables])[:-1])
    return kept, {name: int(np.sum(reasons == number)) for number, name in enumerate(_REASONS) if number}


def _tokenise(plain: Prepared, children_folder: Path, path: Path, workers: Workers, meter: Meter) -> None:
    children = children_folder / "train.arrow"
    tokenizer = (plain.tokenizer_folder / "tokenizer.json").read_text("utf-8")
    recipe = token_files.EncodingRecipe(tokenizer, plain.manifest["max_length"], plain.task_type, tuple(plain.labels))
    starts, folder = batch_starts(children), path.with_name(f"{path.name}-parts")
    blocks = Blocks(token_files.read_texts, tuple(token_files.places_in(children, starts)))
    parts = token_files.encode_parts(blocks, starts, recipe, workers, folder, meter)
    real = len(plain.split("train"))
    made = folders.read_manifest(children_folder)

    def write(temporary: Path) -> None:
        shutil.copytree(plain.tokenizer_folder, temporary / "tokenizer")
        for name in ("validation", "test"):
            shutil.copyfile(plain.path / f"{name}.arrow", temporary / f"{name}.arrow")
        of_plain = plain.manifest["splits"]["train"]
        counts = token_files.TokenCounts(*(of_plain[name] for name in ("rows", "tokens", "longest", "truncated_rows")))
        form = find_form(plain.task_type)
        with ShardWriter(temporary / "train.arrow") as writer:
            for number in range(len(batch_starts(plain.path / "train.arrow")) - 1):
                writer.put(read_batch(plain.path / "train.arrow", number))
            for number, part in enumerate(map(read_table, parts)):
                counts.add(part)
                writer.put(token_files.token_rows(part, read_batch(children, number), form))
        # Where the children of each real row begin, and where those of the last end (int64).
        begins = np.searchsorted(read_table(children)["row"].to_numpy(), np.arange(real + 1))
        np.save(temporary / CHILDREN_INDEX, begins.astype(np.int64))
        manifest = {k: v for k, v in plain.manifest.items() if k not in ("layout", "files")}
        manifest["splits"] = {**plain.manifest["splits"], "train": {**counts.to_json(), "real_rows": real}}
        manifest["augmentation"] = {**made["augmentation"], "rows": made["rows"]}
        folders.write_manifest(temporary, manifest)

    write_folder(path, write, folders.is_whole, PRIVATE)
    shutil.rmtree(folder, ignore_errors=True)  # not there if no child stays


def describe_children(tokens: Prepared) -> dict[str, Any] | None:
    """How many children were made and kept, and why others were not; None for data without augmentation."""
    augmentation = tokens.manifest.get("augmentation")
    return augmentation and dict(augmentation["rows"])


def of_clean_folder(folder: Path) -> near_duplicates.HeldOut | None:
    """Sketches of the held-out texts of prepared data; None where near-duplicates may stay."""
    threshold = folders.read_manifest(folder)["near_duplicates"]
    if threshold is None:
        return None
    tables = [read_table(folder / f"{name}.arrow")["text"] for name in ("test", "validation")]
    groups = np.repeat(np.array([TEST, VALIDATION], dtype=np.int8), list(map(len, tables)))
    return near_duplicates.sketch((text for table in tables for text in texts_of(table)), groups, threshold)
