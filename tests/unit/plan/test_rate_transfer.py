"""Best rates of small cells carried over to larger ones."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rayscale.errors import StudyError
from rayscale.plan import rate_transfer
from rayscale.plan.draft import _transferred
from rayscale.plan.estimate import Supply, steps_of
from rayscale.plan.learning_rates import resolve_rate
from rayscale.plan.plan import make_plan
from rayscale.plan.rate_transfer import (
    LOSS_NOISE,
    NOISE,
    POWER_DEVIATION,
    PRIOR,
    Best,
    best_rate,
    fit_optimum,
    read_optimum,
)
from rayscale.runs.ledger import Ledger, make_record
from rayscale.study.study import load_study
from rayscale.system.machine import Machine
from rayscale.system.storage import Store

CPU, SUPPLY = Machine("cpu", 2, "x", "this machine"), Supply("f", 160, 12.0, 2)


def true_rate(width: int, steps: int) -> float:
    return 2.0 * width**-1.3 * steps**-0.6


def test_the_prior_is_the_rule_of_auto() -> None:
    for kind in PRIOR:

        def auto(width: int, layers: int, steps: int, kind: str = kind) -> float:
            return math.log(resolve_rate(
                "auto", task_type="sequence-classification", pretrained=kind == "pretrained", width=width,
                layers=layers, global_batch=32, batch_tokens=999, steps=steps,
            ))  # fmt: skip

        base = auto(1024, 6, 100)
        moved = (auto(2048, 6, 100), auto(1024, 12, 100), auto(1024, 6, 200))
        assert [(each - base) / math.log(2) for each in moved] == pytest.approx(PRIOR[kind])


def test_one_cell_moves_the_constant_and_many_the_powers() -> None:
    one = fit_optimum([Best(64, 2, 100, 0.01)], "family")
    assert one.powers == pytest.approx(PRIOR["family"])
    assert one.rate(128, 4, 100) == pytest.approx(0.005)
    widths, steps = (16, 32, 64, 128), (50, 200, 800)
    many = fit_optimum([Best(w, 2, s, true_rate(w, s)) for w in widths for s in steps for _ in range(9)], "family")
    assert many.powers == pytest.approx((-1.3, 0, -0.6), abs=0.02)
    assert many.rate(512, 2, 3200) == pytest.approx(true_rate(512, 3200), rel=0.1)


def test_the_best_rate_lies_inside_of_the_sweep() -> None:
    def found(curved: float) -> tuple[float, float] | None:
        return best_rate({rate: 1 + curved * math.log(rate / 3e-3) ** 2 for rate in (1e-3, 2e-3, 4e-3, 8e-3)})

    sharp, flat = found(1.0), found(0.001)
    assert sharp is not None
    assert flat is not None
    assert sharp[0] == pytest.approx(3e-3)
    assert flat[0] == pytest.approx(3e-3)
    assert flat[1] > 10 * sharp[1]
    assert best_rate({1e-3: 1.0, 2e-3: 0.5, 4e-3: math.inf}) == (2e-3, NOISE)
    assert best_rate({1e-3: 1.0, 2e-3: 0.5, 4e-3: 0.4}) is None
    assert best_rate({1e-3: 1.0, 2e-3: 1.0, 4e-3: 1.0}) is None
    mixed = fit_optimum([Best(64, 1, 100, 0.01, sharp[1]), Best(64, 1, 100, 0.1, flat[1])], "family")
    assert mixed.rate(64, 1, 100) == pytest.approx(0.01, rel=0.05), "a flat sweep says little"


def test_leaning_on_the_rule_loses_less_than_what_noisy_sweeps_say_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Studies of four cells, two widths and two step counts, carried to four times the width and the steps.

    What is best for a cell scatters about the law, and losses by their seed; the law's powers about those of the rule.
    """
    draw, curved = np.random.default_rng(0), 0.03

    def sweep(middle: float) -> dict[float, float]:
        best = middle + draw.normal(0, NOISE)
        rates = [2.0**step for step in range(-14, 0)]
        return {rate: 1 + curved * (math.log(rate) - best) ** 2 + draw.normal(0, LOSS_NOISE / 2) for rate in rates}

    studies = []
    for _ in range(150):
        powers = np.array(PRIOR["family"]) + draw.normal(0, POWER_DEVIATION / 2, 3)

        def middle(width: int, steps: int, powers: np.ndarray = powers) -> float:
            return -4.5 + float(powers @ np.log([width / 32, 1, steps / 60]))

        swept = [(width, steps, best_rate(sweep(middle(width, steps)))) for width in (32, 64) for steps in (60, 120)]
        studies.append(([(w, s, found) for w, s, found in swept if found], middle(256, 480)))

    def lost(deviation: float, doubt: float = 1.0) -> float:
        """The mean excess of the loss, relative, where powers may deviate so from the rule, and cells from the law."""
        monkeypatch.setattr(rate_transfer, "POWER_DEVIATION", deviation)
        excess = []
        for cells, aim in studies:
            given = [Best(width, 1, steps, rate, doubt * told) for width, steps, (rate, told) in cells]
            excess.append(curved * (math.log(fit_optimum(given, "family").rate(256, 1, 480)) - aim) ** 2)
        return float(np.mean(excess))

    alone, believed, leaning = lost(10.0), lost(POWER_DEVIATION, doubt=0.17 / NOISE), lost(POWER_DEVIATION)
    assert leaning < 0.1 * alone
    assert leaning < 0.5 * believed


def swept(study_file: Path, best: float) -> Store:
    """A finished sweep beside the study file: every cell is best at `best` times 32 over the width."""
    text = study_file.read_text()
    study_file.write_text(text.replace("learning_rate: 1e-3", "learning_rate: [1e-3, 4e-3, 16e-3, 64e-3]"))
    plan = make_plan(load_study(study_file), CPU, SUPPLY)
    store = Store.open(study_file.parent / "small")
    for planned in plan.trials:
        trial, rate = planned.trial, planned.trial.training["learning_rate"]
        loss = 0.5 + math.log(rate / (best * 32 / trial.model.width)) ** 2
        Ledger(store).write(make_record(trial, status="ok", validation_loss=loss, eval_loss=9.0, learning_rate=rate))
    study_file.write_text(text.replace("learning_rate: 1e-3", "learning_rate: {transfer: small}"))
    return store


def test_a_study_takes_its_rates_from_a_run_and_says_so(study_file: Path) -> None:
    swept(study_file, 8e-3)
    study_file.write_text(study_file.read_text().replace("1x32", "1x128"))
    study = load_study(study_file)
    optimum = read_optimum(study)
    plan = make_plan(study, CPU, SUPPLY, rate_of=optimum.rate_of)
    assert {type(p.trial.training["learning_rate"]) for p in plan.trials} == {float}
    wide = [p.trial for p in plan.trials if p.trial.model.width == 128]
    typical = [math.log(t.training["learning_rate"] / 2e-3) for t in wide]
    assert abs(sum(typical) / len(typical)) < 0.2
    (code, text), = _transferred(optimum, plan)  # fmt: skip
    assert code == "transfer"
    assert "2 times their width and 1 times their steps" in text
    again = make_plan(study, CPU, SUPPLY, rate_of=read_optimum(study).rate_of)
    assert [p.trial.trial_id for p in again.trials] == [p.trial.trial_id for p in plan.trials]
    longer = replace(wide[0], training={**wide[0].training, "epochs": 8})
    assert steps_of(longer) > steps_of(wide[0])
    assert optimum.rate_of(longer) < optimum.rate_of(wide[0])


def test_a_run_without_a_fitting_sweep_is_refused(study_file: Path) -> None:
    swept(study_file, 1.0)
    with pytest.raises(StudyError, match=r"study.yaml:\d+: training.learning_rate: .*ends of its sweep: widen that"):
        read_optimum(load_study(study_file))
    study_file.write_text(study_file.read_text().replace("{transfer: small}", "{transfer: small}, global_batch: 16"))
    with pytest.raises(StudyError, match=r"no finished sweep .* global_batch 16; \d+ records"):
        read_optimum(load_study(study_file))
    study_file.write_text(study_file.read_text().replace("{transfer: small}", "{transfr: small}"))
    with pytest.raises(StudyError, match="did you mean 'transfer'"):
        load_study(study_file)
