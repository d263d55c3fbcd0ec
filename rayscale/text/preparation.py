"""The whole preparation of a study's text: what is done, in which order; where it is done is the workers' affair.

`rayscale.on_ray.data.prepare` brings workers that are tasks of a Ray Data plan; the folders are the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from rayscale.study.augment_key import Augmentation
from rayscale.study.study import Study
from rayscale.system.disk import PRIVATE, lock, write_folder
from rayscale.text import folders, prepared
from rayscale.text.augment.chain import Chain
from rayscale.text.augment.children import prepare_augmented
from rayscale.text.prepare_rows import prepare_rows
from rayscale.text.prepared import Prepared
from rayscale.text.rows import clean
from rayscale.text.sources import corpus
from rayscale.text.tokens import encode, token_files
from rayscale.text.tokens.encode import TokenizerSpec
from rayscale.text.workers import Meter, Progress, Workers


class Here:
    """Workers that are this process, one after the other."""

    def read(self, function: Callable[[Any], Iterator[pa.Table]], items: Sequence[Any]) -> Iterable[pa.Table]:
        """All tables of the first item, then of the next."""
        for item in items:
            yield from function(item)

    def transform(self, function: Callable[[pa.Table], pa.Table], tables: Sequence[pa.Table]) -> Iterable[pa.Table]:
        """One table after the other."""
        return map(function, tables)

    def augment(self, augmentation: Augmentation, tables: Sequence[pa.Table]) -> Iterable[pa.Table]:
        """One table after the other."""
        return map(Chain(augmentation), tables) if tables else ()


def prepare(
    study: Study,
    specs: Sequence[TokenizerSpec],
    seeds: Iterable[int],
    workers: Workers,
    progress: Progress | None = None,
) -> dict[str, Prepared]:
    """Prepared data by name (see `name_of`), with an index for each seed; what is there already is kept.

    The text is read, cleaned and split once, whatever the number of tokenizers. Raises DataError as `prepare_rows` and
    `make_vocabulary` do.
    """
    say = progress or (lambda message: None)
    seeds = list(seeds)
    folder = folders.clean_folder(study)
    tokens: dict[str, Prepared] = {}
    with lock(folder.with_name(f"{folder.name}.lock"), partial(say, "waiting for another run that prepares this text")):
        if not folders.is_whole(folder):
            if study.data.train == clean.BUILT_IN:
                say("parsing the built-in corpus")
                corpus.ensure_corpus(partial(map_packages, workers))
            prepare_rows(study, folder, workers, say)
        for spec in specs:
            path = folders.tokens_folder(folder, spec, study.task.length)
            if not folders.is_whole(path):
                _tokenise(study, spec, folder, path, workers, say)
            prepared.add_indices(path, seeds)
            tokens[spec.name] = Prepared.open(path)
        return tokens | prepare_augmented(study, folder, specs, seeds, workers, say)


def _tokenise(study: Study, spec: TokenizerSpec, cleaned: Path, path: Path, workers: Workers, say: Progress) -> None:
    say(f"tokenising for {spec.name}")
    labels = folders.read_manifest(cleaned)["labels"]
    learned = token_files.learn(spec, cleaned, study.task.type, study.task.length, labels)
    blocks, starts = token_files.blocks_of(cleaned)
    meter, folder = Meter(say, f"tokenising for {spec.name}", int(starts[-1])), path.with_name(f"{path.name}-parts")
    parts = token_files.encode_parts(blocks, starts, learned.recipe, workers, folder, meter)

    def write(temporary: Path) -> None:
        learned.vocabulary.write(temporary / "tokenizer")
        of_rows = {k: v for k, v in folders.read_manifest(cleaned).items() if k not in ("layout", "files")}
        manifest = {
            **of_rows,
            "clean_fingerprint": cleaned.name,
            "max_length": learned.recipe.max_length,
            "splits": token_files.write_splits(parts, cleaned, learned, temporary),
            "tokenizer": {
                **encode.describe(spec),
                "size": learned.vocabulary.size,
                "entries": learned.vocabulary.entries,
                "token_ids": learned.vocabulary.token_ids(),
            },
        }
        folders.write_manifest(temporary, manifest)

    write_folder(path, write, folders.is_whole, PRIVATE)
    shutil.rmtree(folder)


def map_packages(workers: Workers, function: Callable[[str], list[str]], packages: list[str]) -> list[list[str]]:
    """`map` for `ensure_corpus`, by the workers: packages in their order, though results come in any."""
    texts: dict[str, list[str]] = {package: [] for package in packages}
    for table in workers.read(partial(_harvest_one, function), packages):
        rows = sorted(table.to_pylist(), key=lambda row: row["number"])
        for row in rows:
            texts[row["package"]].append(row["text"])
    return list(texts.values())


def _harvest_one(function: Callable[[str], list[str]], package: str) -> Iterator[pa.Table]:
    texts = function(package)
    yield pa.table({"package": [package] * len(texts), "number": range(len(texts)), "text": texts})
