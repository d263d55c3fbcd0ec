import json
import sys
import textwrap
from collections import Counter

import pytest

from rayscale.errors import DataError
from rayscale.text.sources import corpus
from rayscale.text.sources.readers import read_builtin

MODULE = '''
"""A module that explains itself in one whole sentence of English."""

def f(x, y):
    """
    Compute the sum of two numbers, and return it to the caller.

    Parameters
    ----------
    x : int
        The first of the two numbers that are to be added here.
    y : int, optional

    Notes
    -----
    This is not the fastest way of adding, but it is a simple one.

    Args:
        tensor (Tensor): The values of the tensor to work with,
            which may have any shape that the layer supports.
        flag: A short one.

    - An item of a list that is long enough to stay in the corpus.

    >>> f(1, 2) is the doctest line that should never be here at all
    3

    ======  ======
    A table with words in it that is not the prose we want
    ======  ======

    E = m * c ** 2 + sum(x[i] * y[i] for i in range(10)) / (a - b).
    """
'''


def test_paragraphs_are_english_sentences_without_markup():
    assert sorted(corpus.paragraphs_of(MODULE.encode())) == sorted(
        textwrap.dedent("""\
            A module that explains itself in one whole sentence of English.
            Compute the sum of two numbers, and return it to the caller.
            The first of the two numbers that are to be added here.
            This is not the fastest way of adding, but it is a simple one.
            The values of the tensor to work with, which may have any shape that the layer supports.
            An item of a list that is long enough to stay in the corpus.
            """).splitlines()
    )


@pytest.mark.parametrize("source", [b"print 'python 2'", b"\x00", b"{{ template }} x"])
def test_files_that_do_not_parse_have_no_paragraphs(source):
    assert list(corpus.paragraphs_of(source)) == []


def test_the_corpus_is_large_balanced_and_imports_none_of_the_packages():
    before = set(sys.modules)
    path = corpus.ensure_corpus()
    assert not {"torch", "transformers", "ray", "sympy", "scipy"} & (set(sys.modules) - before)
    rows = [json.loads(line) for line in path.read_text().split("\n") if line]
    counts = Counter(label for _, label in rows)
    assert len(rows) > 10_000
    assert sum(len(text) for text, _ in rows) > 1_200_000
    assert len({text for text, _ in rows}) == len(rows)
    assert set(counts) <= set(corpus.PACKAGES)
    assert max(counts.values()) <= corpus.PARAGRAPHS_PER_PACKAGE
    assert all(40 <= len(text) <= 600 and text == " ".join(text.split()) for text, _ in rows)
    stamp = path.stat().st_mtime_ns
    assert corpus.ensure_corpus().stat().st_mtime_ns == stamp
    assert sum(1 for _ in read_builtin("builtin", ("text", "label"))) == len(rows)


def test_other_columns_and_too_few_packages_are_refused(monkeypatch, tmp_path):
    with pytest.raises(DataError, match="'text', 'label'"):
        list(read_builtin("builtin", ("text", "category")))
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path))
    monkeypatch.setattr(corpus, "_root", lambda package: None)
    with pytest.raises(DataError, match="two of"):
        corpus.ensure_corpus()


def test_the_fingerprint_follows_versions(monkeypatch):
    before = corpus.fingerprint()
    monkeypatch.setattr(corpus, "installed", lambda names: dict.fromkeys(names, "0.0.1"))
    assert corpus.fingerprint() != before
