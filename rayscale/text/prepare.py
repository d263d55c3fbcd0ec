"""The whole preparation of a study's text: what is done, in which order. Where it is done is the workers' affair.

`Here` does it in this process; `rayscale.on_ray.data` brings workers that are tasks of a Ray Data plan. The folders
are the same, byte for byte.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from rayscale.study_augment import Augmentation
from rayscale.text import clean, corpus, prepared, tokenise, tokens
from rayscale.text.chain import Chain
from rayscale.text.children import prepare_augmented
from rayscale.text.meter import Meter
from rayscale.text.prepared import Prepared
from rayscale.text.publish import alone, publish_folder
from rayscale.text.rows import prepare_rows
from rayscale.text.tokenise import TokenizerSpec

if TYPE_CHECKING:
    from pathlib import Path

    from rayscale.study import Study

Progress = Callable[[str], None]


class Workers(Protocol):
    """Where functions of items are worked out. Results may come in any order, tables cut or joined.

    Tables that are given may be `shards.Blocks`, which are read one by one, on this machine.
    """

    def read(self, function: Callable[[Any], Iterator[pa.Table]], items: Sequence[Any]) -> Iterable[pa.Table]:
        """All tables that `function` yields for the items, which stand for files of this machine."""

    def transform(self, function: Callable[[pa.Table], pa.Table], tables: Sequence[pa.Table]) -> Iterable[pa.Table]:
        """`function` of every table."""

    def augment(self, augmentation: Augmentation, tables: Sequence[pa.Table]) -> Iterable[pa.Table]:
        """The children of every table of training rows (see `Chain`)."""


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
    """Prepared data by name (see `name_of`), with an index for each seed; only what is not there yet is done.

    The text is read, cleaned and split once, whatever the number of tokenizers, in memory that does not grow with it.
    What a stopped call has finished is kept. Raises DataError: see `rows` and `vocabulary`.
    """
    say = progress or (lambda message: None)
    folder, seeds, found = prepared.clean_folder(study), list(seeds), {}
    with alone(
        folder.with_name(f"{folder.name}.lock"), partial(say, "waiting for another run that prepares this text")
    ):
        if not prepared.is_whole(folder):
            if study.data.train == clean.BUILT_IN:
                say("parsing the built-in corpus")
                corpus.ensure_corpus(partial(map_packages, workers))
            prepare_rows(study, folder, workers, say)
        for spec in specs:
            path = prepared.tokens_folder(folder, spec, study.task.length)
            if not prepared.is_whole(path):
                _tokenise(study, spec, folder, path, workers, say)
            prepared.add_indices(path, seeds)
            found[spec.name] = Prepared.open(path)
        return found | prepare_augmented(study, folder, specs, seeds, workers, say)


def _tokenise(study: Study, spec: TokenizerSpec, cleaned: Path, path: Path, workers: Workers, say: Progress) -> None:
    say(f"tokenising for {spec.name}")
    learned = tokens.learn(spec, cleaned, study.task.type, study.task.length)
    blocks, starts = tokens.blocks_of(cleaned)
    meter, folder = Meter(say, f"tokenising for {spec.name}", int(starts[-1])), path.with_name(f"{path.name}-parts")
    parts = tokens.encode_parts(blocks, starts, learned.recipe, workers, folder, meter)

    def write(temporary: Path) -> None:
        learned.vocabulary.write(temporary / "tokenizer")
        of_rows = {k: v for k, v in prepared.read_clean_manifest(cleaned).items() if k not in ("layout", "files")}
        manifest = {
            **of_rows,
            "clean_fingerprint": cleaned.name,
            "max_length": learned.length,
            "splits": tokens.write_splits(parts, cleaned, learned, temporary),
            "tokenizer": {
                **tokenise.describe(spec),
                "size": learned.vocabulary.size,
                "entries": learned.vocabulary.entries,
                "token_ids": learned.vocabulary.token_ids(),
            },
        }
        prepared.write_manifest(temporary, manifest)

    publish_folder(path, write, prepared.is_whole)
    shutil.rmtree(folder)


def map_packages(workers: Workers, function: Callable[[str], list[str]], packages: list[str]) -> list[list[str]]:
    """`map` for `ensure_corpus`, by the workers: packages in their order, though results come in any."""
    found: dict[str, list[str]] = {package: [] for package in packages}
    for table in workers.read(partial(_harvest_one, function), packages):
        found_rows = sorted(table.to_pylist(), key=lambda row: row["number"])
        for row in found_rows:
            found[row["package"]].append(row["text"])
    return list(found.values())


def _harvest_one(function: Callable[[str], list[str]], package: str) -> Iterator[pa.Table]:
    texts = function(package)
    yield pa.table({"package": [package] * len(texts), "number": range(len(texts)), "text": texts})
