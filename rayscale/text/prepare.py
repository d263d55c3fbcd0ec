"""The whole preparation of a study's text: what is done, in which order. Where it is done is the workers' affair.

`Here` does it in this process; `rayscale.on_ray.data` brings workers that are tasks of a Ray Data plan. The folders
are the same, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from rayscale.errors import DataError
from rayscale.study_augment import Augmentation
from rayscale.text import clean, corpus, prepared, tokenise, tokens
from rayscale.text.chain import Chain
from rayscale.text.children import prepare_augmented
from rayscale.text.prepared import Prepared
from rayscale.text.tokenise import TokenizerSpec

if TYPE_CHECKING:
    from pathlib import Path

    from rayscale.study import Study

Progress = Callable[[str], None]


class Workers(Protocol):
    """Where functions of items are worked out. Results may come in any order, tables cut or joined."""

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

    The text is read, cleaned and split once, whatever the number of tokenizers. Raises DataError: see `clean` and
    `vocabulary`.
    """
    say = progress or (lambda message: None)
    folder = prepared.clean_folder(study)
    if not prepared.is_whole(folder):
        sources = clean.list_sources(study.data)
        if any(source.path == clean.BUILT_IN for source in sources):
            say("parsing the built-in corpus")
            corpus.ensure_corpus(partial(map_packages, workers))
        say(f"reading {len(sources)} source{'s' * (len(sources) > 1)}")
        most = clean.most_bytes(study.data)
        read = partial(_read, task=study.task, on_bad_row=study.data.on_bad_row, most=most)
        cleaned = clean.assemble(clean.gather(workers.read(read, sources), most), study)
        if prepared.clean_folder(study) != folder:
            raise DataError("a source file changed while it was read; run again when it is written", code="changed")
        prepared.publish_clean(folder, cleaned)
    found, seeds = {}, list(seeds)
    for spec in specs:
        path = prepared.tokens_folder(folder, spec, study.task.length)
        if not prepared.is_whole(path):
            say(f"tokenising for {spec.name}")
            _tokenise(study, spec, folder, path, workers)
        prepared.add_indices(path, seeds)
        found[spec.name] = Prepared.open(path)
    return found | prepare_augmented(study, folder, specs, seeds, workers, say)


def _tokenise(study: Study, spec: TokenizerSpec, cleaned: Path, path: Path, workers: Workers) -> None:
    learned = tokens.learn(spec, cleaned, study.task.type, study.task.length)
    encode = partial(tokens.encode_block, recipe=learned.recipe)
    blocks = list(workers.transform(encode, list(tokens.blocks_of(cleaned))))
    tables, counts = tokens.assemble(blocks, cleaned, learned)
    of_rows = {k: v for k, v in prepared.read_clean_manifest(cleaned).items() if k not in ("layout", "files")}
    manifest = {
        **of_rows,
        "clean_fingerprint": cleaned.name,
        "max_length": learned.length,
        "splits": counts,
        "tokenizer": {
            **tokenise.describe(spec),
            "size": learned.vocabulary.size,
            "entries": learned.vocabulary.entries,
            "token_ids": learned.vocabulary.token_ids(),
        },
    }
    prepared.publish_tokens(path, tables, manifest, learned.vocabulary.write)


def _read(source: clean.SourceFile, *, task: Any, on_bad_row: str, most: int) -> Iterator[pa.Table]:
    return clean.read_clean(source, task, on_bad_row, most)


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
