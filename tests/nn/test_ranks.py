"""The same trial on one and on two ranks: the same losses, weights and metrics, within floating-point order."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import rank_worker
import torch
from rank_processes import run_ranks
from safetensors.torch import load_file
from torch.testing import assert_close

from rayscale.errors import TrialError
from rayscale.nn.ranks import Group

CASES = ["classify-49", "classify-53", "drop", "tag", "topics", "adapt", "continue"]
SIZES = (2, 4)
CLOCKED = {"train_seconds", "eval_seconds", "examples_per_second", "tokens_per_second", "peak_memory_bytes"}


Results = dict[str, Any]


@pytest.fixture(scope="module")
def ranks(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, list[Results]]]:
    """(folder, by number of ranks the results of each of them)."""
    folder = tmp_path_factory.mktemp("ranks")
    shutil.copytree(tiny_bert, folder / "bert")
    results = {1: [rank_worker.run(0, 1, folder)]}
    for size in SIZES:
        run_ranks(rank_worker.write, size, folder)
        files = [folder / f"rank-{rank}-of-{size}.json" for rank in range(size)]
        results[size] = [json.loads(file.read_text()) for file in files]
    return folder, results


def _without_key_bias(name: str, value: torch.Tensor) -> torch.Tensor:
    """The softmax of attention does not feel the bias of keys: its gradient is rounding, which Adam scales up."""
    if name.endswith("attention.self.key.bias"):
        return value[:0]
    if name.endswith("c_attn.bias"):
        query, _, values = value.chunk(3)
        return torch.cat([query, values])
    return value


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", CASES)
def test_several_ranks_learn_what_one_learns(ranks: tuple, case: str, size: int) -> None:
    folder, results = ranks
    (alone,), several = ([cases[case] for cases in results[number]] for number in (1, size))
    assert all(result == several[0] for result in several), "all ranks report the same"
    for key in alone.keys() - CLOCKED - {"micro_batch"} - {"curve"}:
        if key == "classes":
            assert several[0][key] == [pytest.approx(row) for row in alone[key]]
            continue
        wanted = pytest.approx(alone[key], rel=2e-5) if isinstance(alone[key], float) else alone[key]
        assert several[0][key] == wanted, key
    for here, there in zip(alone["curve"], several[0]["curve"], strict=True):
        assert there == {k: pytest.approx(v, rel=2e-5) if v is not None else None for k, v in here.items()}
    weights, shared = (load_file(folder / f"{case}-{number}" / "model.safetensors") for number in (1, size))
    for name, value in weights.items():
        compared = _without_key_bias(name, value), _without_key_bias(name, shared[name])
        assert_close(*compared, rtol=1e-3, atol=2e-5, msg=name)


def test_all_ranks_agree_that_it_diverged(ranks: tuple) -> None:
    results = [cases["diverge"] for of_size in ranks[1].values() for cases in of_size]
    assert {result["status"] for result in results} == {"diverged"}
    for size in SIZES:
        assert len({cases["diverge"]["error"] for cases in ranks[1][size]}) == 1


def test_missing_process_group() -> None:
    with pytest.raises(TrialError, match="2 workers"):
        Group.join(0, 2, "cpu")
