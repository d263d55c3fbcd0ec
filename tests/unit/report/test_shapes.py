"""Every shape of study comes to a verdict, a page and the terminal's text, and none of them says what was not run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rayscale.errors import InputError
from rayscale.report.page.page import render
from rayscale.report.rebuild import with_sentences
from rayscale.report.terminal.run import verdict_lines
from rayscale.report.wording import sentences
from rayscale.runs.ledger import COLUMNS, SCHEMA
from rayscale.study.tasks import KINDS
from rayscale.verdict.prediction import predict
from rayscale.verdict.verdict import conclude, law_line

SIZES = (40, 160, 640, 2560, 10240)
PARAMS = (31_874, 90_370, 140_354, 684_000, 1_200_000, 2_400_000)


@st.composite
def designs(draw: st.DrawFn) -> dict[str, Any]:
    """A study's axes and what became of its cells; small ones and single ones are the commonest."""
    return {
        "task": draw(st.sampled_from(list(KINDS))),
        "models": draw(st.integers(1, 4)),
        "alike": draw(st.booleans()),  # two models of one size: a checkpoint and its like, or one whole and by LoRA
        "sizes": draw(st.integers(1, 5)),
        "gpus": draw(st.sampled_from([(1,), (1, 2), (2,), (1, 2, 4)])),
        "seeds": draw(st.integers(1, 3)),
        "augment": draw(st.sampled_from([("none",), ("none", "swap"), ("swap",)])),
        "ok": draw(st.sampled_from([1.0, 1.0, 0.7, 0.2, 0.0])),
        "gone": draw(st.sampled_from([0.0, 0.0, 0.3])),  # cells without a record
        "rising": draw(st.booleans()),
        "constant": draw(st.sampled_from([False, False, False, True])),
        "share": draw(st.sampled_from([1.0, 0.5])),
        "aim": draw(st.integers(0, 9)),
        "reach": draw(st.sampled_from([None, "had", "beyond"])),
        "seed": draw(st.integers(0, 9)),
    }


def trials_of(design: Mapping[str, Any]) -> pd.DataFrame:
    """The trial table of such a study."""
    kind, chance = KINDS[design["task"]], np.random.default_rng(design["seed"])
    rows = []
    for place in range(design["models"]):
        params = PARAMS[0 if design["alike"] and place == 1 else place]
        for size in SIZES[: design["sizes"]]:
            for gpus in design["gpus"]:
                for seed in range(design["seeds"]):
                    for augment in design["augment"]:
                        rows.append(_row(design, kind, chance, f"模型-{place}", params, size, gpus, seed, augment))
    kept = [row for row in rows if chance.random() >= design["gone"]]
    table = pa.Table.from_pylist([dict.fromkeys(COLUMNS) | row for row in kept], schema=SCHEMA)
    return table.to_pandas()  # types as trials.parquet has them


def _row(
    design: Mapping[str, Any], kind: Any, chance: np.random.Generator, model: str, params: int, size: int, gpus: int,
    seed: int, augment: str,
) -> dict[str, Any]:  # fmt: skip
    loss = 0.3 + 20 * params**-0.4 + 8 * size ** (0.1 if design["rising"] else -0.4)
    loss = 1.5 if design["constant"] else float(loss * np.exp(0.01 * chance.standard_normal()))
    fraction = float(np.clip(1 - loss / 4, 0, 1))
    values = {"eval_loss": loss, "perplexity": float(np.exp(loss)), "bits_per_token": loss / np.log(2)}
    fraction = max(fraction, 0.01)  # bits of a character are never none
    scaled = {name: 100 * fraction if name in ("bleu", "chrf") else fraction for name in kind.metrics}
    status = "ok" if chance.random() < design["ok"] else str(chance.choice(["failed", "diverged", "stopped"]))
    row = {
        "trial_id": f"{chance.integers(2**60):016x}", "status": status, "task": kind.name, "model": model,
        "params": params, "params_non_embedding": params // 2, "data_requested": size, "gpus": gpus, "seed": seed,
        "augment": augment, "executor": "inline", "attempts": 1, "global_batch": 16, "share": design["share"],
    }  # fmt: skip
    if status != "ok":
        return row | {"error": "RuntimeError: out of memory"}
    return row | {
        "examples": size, "tokens": size * (1 if kind.axis == "tokens" else 30), "steps": 9, "epochs": 1.0,
        "flops": 6.0 * params * size, "train_loss": loss, "validation_loss": loss, "train_seconds": size / 100,
        "device_seconds": gpus * size / 100, "examples_per_second": 100.0 * gpus**0.8, "exclusive": seed == 0,
        **{name: values.get(name, scaled[name]) for name in kind.metrics},
    }  # fmt: skip


def told(design: Mapping[str, Any]) -> tuple[dict[str, Any], str, str]:
    """The object of fit.json, the page and the terminal's text of such a study."""
    kind, trials = KINDS[design["task"]], trials_of(design)
    metric = kind.metrics[design["aim"] % len(kind.metrics)]
    ok = trials.loc[trials["status"] == "ok", metric].dropna().astype(float)
    best = float(ok.median()) if len(ok) else 0.5
    reach = {None: None, "had": best, "beyond": best * (0.5 if metric in ("eval_loss", "perplexity") else 1.01)}
    aim = {"metric": metric, "reach": reach[design["reach"]]}
    fit = conclude(trials, data_axis=kind.axis, target=metric, reach=aim["reach"], bootstrap=20)
    fit = with_sentences(fit, kind.name, kind.axis)
    fit = json.loads(json.dumps(fit, allow_nan=False))
    planned = trials[["trial_id", "model", "params", "gpus", "data_requested", "seed"]].to_dict("records")
    plan = {"study": "研究", "task": kind.name, "data_axis": kind.axis, "trials": planned, "total": {}}
    study = {"name": "研究", "task": {"type": kind.name}, "data": {"train": "训练.csv"}, "target": aim}
    page = render(study, plan, trials, fit, {"commands": []})
    law_line(trials, kind.axis)
    return fit, page, "\n".join(verdict_lines(fit))


@settings(
    max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate]
)
@given(designs())
def test_every_study_comes_to_a_verdict_a_page_and_a_text(design: dict[str, Any]) -> None:
    fit, page, text = told(design)
    for written in (re.sub(r"<style.*?</style>|base64,[^\"]*", "", page, flags=re.DOTALL), text):
        assert not re.search(r"\b[Nn]a[Nn]\b|\binf\b|\bNone\b|Traceback", written)
    assert sentences(fit)
    gain, ok = fit["verdict"]["doubling"], trials_of(design)
    ok = ok[ok["status"] == "ok"]
    if ok["data_requested"].nunique() < 2:
        assert gain["data"]["value"] is None  # nothing was seen of more data
        assert not fit["verdict"]["held_out"]["n"]
    if ok["params"].nunique() < 2:
        assert gain["params"]["value"] is None
    if ok["gpus"].nunique() < 2:
        assert gain["gpus"]["value"] is None


def test_a_comparison_of_models_at_one_data_size_tells_models_apart_and_nothing_of_data() -> None:
    design = {
        "task": "sequence-classification", "models": 6, "alike": False, "sizes": 1, "gpus": (1,), "seeds": 2,
        "augment": ("none",), "ok": 1.0, "gone": 0.0, "rising": False, "constant": False, "share": 1.0, "aim": 0,
        "reach": None, "seed": 1,
    }  # fmt: skip
    fit, page, text = told(design)
    gain = fit["verdict"]["doubling"]
    assert gain["data"]["value"] is None
    assert "only one value of examples" in gain["data"]["note"]
    # The planted law: 20 N^-0.4 falls by 1 - 2^-0.4 of its part in the loss.
    base, part = 0.3 + 8 * 40**-0.4, 20 * PARAMS[5] ** -0.4
    assert gain["params"]["value"] == pytest.approx(100 * part * (2**-0.4 - 1) / (base + part), abs=1.0)
    assert (gain["params"]["from"], gain["params"]["to"]) == (PARAMS[5], 2 * PARAMS[5])
    assert "Loss against model size" in page
    assert "Only one data size was run" in page
    assert "Doubling the model size (2.4 million to 4.8 million parameters) lowers" in text
    found = predict(fit, params=4e6, data=40)
    assert found["predicted"] < 2.2
    assert found["unused"] == ["data"]
    with pytest.raises(InputError):
        predict(fit, data=40)
