"""Reading CoNLL files: a token a line, its tag in the last column, a blank line after each sentence."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from rayscale.codec import UTF_8
from rayscale.errors import DataError
from rayscale.text.opening import lines_of, open_text
from rayscale.text.sources import BadRow, Row

#: Tokens of a file's only sentence from which on its blank lines are missing.
MOST_TOKENS = 1000


def read_conll(path: str, columns: Sequence[str], encoding: str = UTF_8) -> Iterator[Row | BadRow]:
    """The sentences: tokens (the first column) and tags (the last), as two lists, at the sentence's first line.

    Columns stand apart by tabs where a line has one, else by white space. Lines that begin with -DOCSTART- are left
    out. A sentence is bad as a whole if one of its lines has a token without a tag, or an empty one. Raises DataError
    where a whole file is one sentence that is longer than any.
    """
    with open_text(path, encoding) as lines:
        first, begun, tokens, tags, bad = 0, 1, list[str](), list[str](), None
        for line, text in enumerate(itertools.chain(lines_of(path, lines), [""]), start=1):
            if not text.strip() or text.startswith("-DOCSTART-"):
                if not text and begun == first and len(tokens) > MOST_TOKENS:
                    found = f"the whole file is one sentence of {len(tokens):,} tokens"
                    raise DataError(f"{found}; set a blank line after each", code="bad_data", where=f"{path}:{begun}")
                if bad:
                    yield bad._replace(lines=line - begun)
                elif tokens:
                    yield Row(begun, (tokens, tags))
                tokens, tags, bad = [], [], None
                continue
            begun = begun if tokens or bad else line
            first = first or begun
            fields = text.rstrip("\r\n").split("\t") if "\t" in text else text.split()
            if len(fields) < 2 or not fields[0].strip() or not fields[-1].strip():
                found = f"{text.strip()[:60]!r}, which is no token with a tag"
                bad = bad or BadRow(line, None, found, "give each line a token first and its tag last, "
                                    "with tabs or blanks between")  # fmt: skip
                continue
            tokens.append(fields[0])
            tags.append(fields[-1])
