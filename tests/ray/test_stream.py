"""Rows that reach a lane through the object store are those of the memory map: the same batches.

`test_study_run` shows that losses are the same, too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rayscale.nn.training.batches import pad_rows
from rayscale.on_ray.data import stream
from rayscale.on_ray.session.session import Session
from rayscale.study.study import load_study
from rayscale.text.preparation import Here, prepare
from rayscale.text.tokens.encode import TokenizerSpec
from tests.ray.conftest import write_study

SPEC = TokenizerSpec("trained", "bert", 400)


def test_batches_are_equal_whatever_is_foretold(
    tmp_path: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stream, "PIECE_TOKENS", 200)
    mapped = prepare(load_study(write_study(tmp_path)), [SPEC], [0], Here())[SPEC.name]
    streamed = stream.open_prepared(stream.offer(mapped, several_nodes=False))
    asked: list[int] = []
    for name in ("train", "test"):
        one, other = mapped.split(name), streamed.split(name)
        assert len(other) == len(one)
        assert not len(other.values)
        assert (one.lengths == other.lengths).all()
        assert (one.labels == other.labels).all()
        request = other.request
        object.__setattr__(other, "request", lambda rows, request=request: asked.append(len(rows)) or request(rows))
        batches = [np.random.default_rng(n).permutation(len(one))[:9] for n in range(20)]
        asked.clear()
        for batch in other.ahead(batches, lambda rows: rows):
            mapped_rows, streamed_rows = pad_rows(one, batch, 0, 8), pad_rows(other, batch, 0, 8)
            assert all((a == b).all() for a, b in zip(mapped_rows, streamed_rows, strict=True))
        assert 2 < len(asked) < len(batches)
        before = len(asked)
        assert (pad_rows(one, np.arange(5), 0)[0] == pad_rows(other, np.arange(5), 0)[0]).all()  # not foretold
        assert len(asked) == before + 1
    assert (mapped.subset("examples", 40, 0) == streamed.subset("examples", 40, 0)).all()
