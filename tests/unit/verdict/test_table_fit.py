"""`fit` on a file or a run folder, and `predict` from what it saved."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rayscale.errors import InputError, TableError
from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.result import without_draws
from rayscale.report.terminal.fit import fit_lines, prediction_lines
from rayscale.verdict.prediction import parse_by, predict, saved_fit
from rayscale.verdict.table_fit import PREDICTED, FitRequest, fit_and_save, fit_source
from tests.unit import made_study

LAW = {"A": 400.0, "B": 2000.0, "E": 1.8, "alpha": 0.34, "beta": 0.37}


def grid() -> pd.DataFrame:
    """Sixteen configurations of two seeds, in two groups with other asymptotes."""
    rng, rows = np.random.default_rng(0), []
    for group, more in (("x", 0.0), ("y", 0.5)):
        for N in (1e7, 1e8, 1e9, 1e10):
            for D in (1e9, 1e10, 1e11, 1e12):
                for _ in range(2):
                    loss = LAW["E"] + more + LAW["A"] * N ** -LAW["alpha"] + LAW["B"] * D ** -LAW["beta"]
                    rows.append({"N": N, "D": D, "set": group, "loss": loss * np.exp(rng.normal(0, 0.002))})
    return pd.DataFrame(rows)


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "runs.csv"
    grid().to_csv(path, index=False)
    return str(path)


def asked(**changes) -> FitRequest:
    given = {"law": "chinchilla", "columns": {"params": "N", "data": "D"}, "target": "loss", "bootstrap": 50}
    return FitRequest(**{**given, **changes})


def test_the_json_has_the_keys_of_the_contract_and_the_file_predicts_the_same(table: str, tmp_path: Path) -> None:
    done = fit_and_save(table, asked(where="set == 'x'"), None, tmp_path / "fit.json")
    saved = done.to_json()
    assert set(saved) >= {
        "law", "outcome", "params", "standard_errors", "intervals", "covariance", "objective", "starts",
        "starts_at_best", "rows_used", "rows_dropped", "held_out", "weights", "warnings", "seconds",
    }  # fmt: skip
    assert (saved["rows_used"], len(saved["rows_dropped"])) == (32, 32)
    assert saved["params"]["E"] == pytest.approx(LAW["E"], rel=0.02)
    told = predict(saved_fit(str(tmp_path / "fit.json")), params=1e9, data=1e11)
    assert told["predicted"] == done.fitted.predict(pd.DataFrame({"N": [1e9], "D": [1e11]}))["predicted"].iloc[0]
    assert told["low"] < told["mean_low"] < told["predicted"] < told["mean_high"] < told["high"]
    assert (told["extrapolation"], told["unused"]) == (1.0, [])
    assert predict(saved, params=1e9, data=1e14)["warnings"][-1]["code"] == "far_extrapolation"


def test_held_out_rows_keep_their_columns_and_order_and_need_no_target(table: str, tmp_path: Path) -> None:
    rows = grid()
    rows["note"] = [f"n{place}" for place in range(len(rows))]
    rows.loc[rows.index[-1], "loss"] = np.nan  # a run that is to be foretold has no loss yet
    rows.to_csv(table, index=False)
    out = tmp_path / "held.parquet"
    done = fit_and_save(table, asked(by="set", holdout="D >= 1e12", bootstrap=20), out, None)
    held = pd.read_parquet(out)
    assert held["note"].tolist() == [f"n{place}" for place in rows.index[rows["D"] >= 1e12]]
    assert list(held.columns) == [*rows.columns, *PREDICTED]
    assert held[list(PREDICTED)].notna().all(axis=None)
    saved = done.to_json()
    assert saved["held_out"]["n"] == 15
    assert [each["by"] for each in saved["groups"]] == [{"set": "x"}, {"set": "y"}]


def test_held_out_rows_of_a_group_without_a_fit_stay_with_empty_predictions(table: str, tmp_path: Path) -> None:
    rows = grid()
    rows = rows[(rows["set"] == "x") | (rows["N"] == 1e7)]
    rows.to_csv(table, index=False)
    done = fit_and_save(table, asked(by="set", holdout="D >= 1e12", bootstrap=20), tmp_path / "held.csv", None)
    held = pd.read_csv(tmp_path / "held.csv")
    assert held.groupby("set")["predicted"].count().to_dict() == {"x": 8, "y": 0}
    assert len(held) == 10
    assert not done.refused


def test_a_refusal_says_which_minimum_was_missed(table: str) -> None:
    grid().head(4).to_csv(table, index=False)
    done = fit_source(table, asked())
    error = done.to_json()["error"]
    assert done.refused
    assert done.refusal().exit_code == 2
    assert error["code"] == "not_identifiable"
    assert "needs 6" in error["message"]
    with pytest.raises(InputError, match="predicts nothing"):
        predict(done.to_json(), params=1e9, data=1e9)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"columns": {"params": "M", "data": "D"}}, "--params: no column 'M'"),
        ({"columns": {"data": "D"}}, "--params: say which column holds the params: --params COLUMN"),
        ({"target": "los"}, "--target: no column 'los'; did you mean 'loss'"),
        ({"target": None}, "say which column is fitted: --target"),
        ({"target": "set"}, r":2: --target column 'set' must hold numbers; found 'x'"),
        ({"where": "sett == 'x'"}, "--where: 'sett == 'x'': no column 'sett'; did you mean 'set'"),
        ({"holdout": "D = 3"}, "--holdout: .*write '=='"),
        ({"by": "set,sort"}, "--by: no column 'sort'"),
        ({"law": "chinchila"}, "did you mean 'chinchilla'"),
        ({"bootstrap": 1}, "--bootstrap: .*needs at least 2 resamples"),
        ({"law": "power"}, "--params: power takes data; leave params out, or make groups: --by 'N'"),
        ({"seed": -1}, "--seed: seed is -1"),
        ({"by": ""}, "--by: names no column"),
        ({"by": " , "}, "--by: names no column"),
    ],
)
def test_mistakes_are_named_by_option_and_column(table: str, changes: dict, said: str) -> None:
    with pytest.raises(InputError) as caught:
        fit_source(table, asked(**changes))

    assert re.search(said, str(caught.value)), str(caught.value)


def test_predictions_without_held_out_rows_and_wrong_suffixes_are_refused_before_the_fit(table: str) -> None:
    with pytest.raises(InputError, match="needs --holdout"):
        fit_and_save(table, asked(), Path("x.csv"), None)
    with pytest.raises(TableError, match=r"\.csv or \.parquet"):
        fit_and_save(table, asked(holdout="D > 1"), Path("x.xls"), None)
    grid().assign(predicted=1.0).to_csv(table, index=False)
    with pytest.raises(TableError, match="column 'predicted' where the predictions would go"):
        fit_and_save(table, asked(holdout="D > 5e11"), Path(table).with_name("x.csv"), None)


def test_a_run_folder_needs_no_columns_and_counts_a_seed_once(tmp_path: Path) -> None:
    trials = made_study.trials(models=("tiny", "base"))
    trials.loc[3, "status"] = "failed"
    run = str(made_study.write_run(tmp_path / "run", trials))
    saved = fit_source(run, FitRequest("chinchilla", {}, bootstrap=20)).to_json()
    assert (saved["target"], saved["columns"]) == ("eval_loss", {"params": "params", "data": "examples"})
    reasons = [each["reason"] for each in saved["rows_dropped"]]
    assert reasons.count("the same seed at more GPUs; counted once") == 10
    assert reasons.count("status failed") == 1
    assert saved["rows_used"] + len(reasons) == len(trials)
    own = fit_source(run, FitRequest("power", {}, by="model", bootstrap=20)).to_json()
    assert sum(each["rows_used"] + len(each["rows_dropped"]) for each in own["groups"]) == len(trials)


def test_a_formula_is_a_law_written_out_or_named_in_the_study(tmp_path: Path, table: str) -> None:
    formula = "E + A * params ** -alpha + B * data ** -beta"
    named = fit_source(table, asked(where="set == 'x'"))
    written = fit_source(table, asked(law=formula, where="set == 'x'"))
    rows = pd.DataFrame({"N": [1e11], "D": [1e12]})
    same = written.fitted.predict(rows)["predicted"].iloc[0]
    assert same == pytest.approx(named.fitted.predict(rows)["predicted"].iloc[0], rel=1e-4)
    run = made_study.write_run(tmp_path / "run", made_study.trials(models=("tiny", "base")))
    (run / "study.yaml").write_text(f"name: made\nlaws: {{mine: {{formula: {formula}}}}}\n")
    saved = fit_source(str(run), FitRequest("mine", {}, bootstrap=20)).to_json()
    assert (saved["law"], saved["columns"]) == ("mine", {"params": "params", "data": "examples"})


def test_a_law_of_one_input_is_predicted_by_the_name_it_was_fitted_by(table: str) -> None:
    saved = fit_source(table, asked(law="power", columns={"params": "N"}, where="D == 1e12")).to_json()
    by_size = predict(saved, params=3e8)
    assert predict(saved, params=3e8, data=1e3) == {**by_size, "data": 1e3, "unused": ["data"]}
    with pytest.raises(InputError, match="--params: needs a number"):
        predict(saved, data=1e11)


def test_no_size_stands_in_for_another(table: str) -> None:
    saved = fit_source(table, asked(law="power", columns={"data": "D"}, where="N == 1e10")).to_json()
    with pytest.raises(InputError, match="--data: needs a number"):
        predict(saved, params=1e9)
    rows = grid()[lambda each: each["N"] == 1e10].rename(columns={"D": "tokens"})
    own = fit_law(rows, "power", target="loss", bootstrap=20).to_json()  # no options are saved, but the name says it
    with pytest.raises(InputError, match="--data: needs a number"):
        predict(own, params=1e9)


def test_the_compute_optimal_sizes_are_predicted_from_compute_alone(tmp_path: Path) -> None:
    rows = [{"C": C, "N": N, "D": C / 6 / N} for C in (1e18, 1e19, 1e20, 1e21) for N in np.geomspace(3e7, 3e10, 13)]
    frame = pd.DataFrame(rows)
    frame["loss"] = LAW["E"] + LAW["A"] * frame["N"] ** -LAW["alpha"] + LAW["B"] * frame["D"] ** -LAW["beta"]
    frame.to_csv(tmp_path / "runs.csv", index=False)
    given = {"params": "N", "data": "D", "compute": "C"}
    saved = fit_source(str(tmp_path / "runs.csv"), asked(law="isoflop", columns=given)).to_json()
    told = predict(saved, compute=1e20)
    assert told["predicted"] * told["data"] * 6 == pytest.approx(1e20, rel=0.1)
    assert "compute-optimal" in prediction_lines(told)[0]
    with pytest.raises(InputError, match="--compute: needs a number"):
        predict(saved, params=1e9)


def test_the_sizes_and_groups_that_a_prediction_needs_are_named(table: str) -> None:
    saved = fit_source(table, asked(by="set", bootstrap=20)).to_json()
    assert predict(saved, params=1e9, data=1e11, by={"set": "y"})["by"] == {"set": "y"}
    for given, said in (
        ({"params": 1e9}, "name one of: set=x; set=y"),
        ({"params": 1e9, "by": {"sett": "x"}}, "did you mean 'set'"),
        ({"params": 1e9, "by": {"set": "z"}}, "no group has that; name one of: set=x"),
        ({"params": 1e9, "by": {"set": "x"}}, "--data: needs a number: the chinchilla law takes it .column 'D'"),
        ({"params": -1, "data": 1e9, "by": {"set": "x"}}, "--params: found -1; it must be positive"),
        ({"params": 1e9, "data": float("nan"), "by": {"set": "x"}}, "--data: found nan"),
    ):
        with pytest.raises(InputError) as caught:
            predict(saved, **given)
        assert re.search(said, str(caught.value)), str(caught.value)


def test_sizes_in_text_weights_and_a_fit_printed_without_its_draws(table: str, tmp_path: Path) -> None:
    rows = grid()
    plain = fit_source(table, asked(by="set", holdout="D >= 1e12")).to_json()
    rows["N"] = rows["N"].map({1e7: "10M", 1e8: "0.1b", 1e9: " 1 B", 1e10: "1e10"})
    rows["D"] = rows["D"].map({1e9: "1B", 1e10: "10G", 1e11: "100,000,000,000", 1e12: "1t"})
    rows.to_csv(table, index=False)
    out, held = tmp_path / "fit.json", tmp_path / "held.csv"
    done = fit_and_save(table, asked(by="set", where="N > 1", holdout="D >= 1e12"), held, out)
    saved = done.to_json()
    assert [fit["params"] for fit in saved["groups"]] == [fit["params"] for fit in plain["groups"]]
    assert pd.read_csv(held)["D"].unique().tolist() == [1e12]
    printed = json.loads(json.dumps(without_draws(saved)))
    assert "draws" in saved["groups"][0]["estimate"]
    assert "draws" not in printed["groups"][0]["estimate"]
    assert printed["groups"][0]["covariance"] == json.loads(json.dumps(saved["groups"][0]["covariance"]))
    sizes = {"params": 1e9, "data": 1e11, "by": {"set": "x"}}
    assert predict(saved_fit(str(out)), **sizes)["predicted"] == predict(plain, **sizes)["predicted"]
    for each in (printed, without_draws(fit_source(table, asked(law="auto")).to_json())):
        with pytest.raises(InputError, match="save it with --out FILE, or print it with --draws") as caught:
            predict(each, **{**sizes, "by": sizes["by"] if each is printed else None})
        assert caught.value.code == "no_draws"
    rows.assign(N=rows["N"].replace("10M", "10X")).to_csv(table, index=False)
    with pytest.raises(TableError, match=r"runs.csv:2: --params column 'N' must hold numbers; found '10X'; .*7B"):
        fit_source(table, asked())


@pytest.mark.parametrize(("worth", "said"), [("-1", "found -1"), ("", "found nothing"), ("x", "found 'x'")])
def test_a_wrong_weight_is_named_by_its_line(table: str, worth: str, said: str) -> None:
    rows = grid().assign(runs=["2"] * 63 + [worth])
    rows.to_csv(table, index=False)
    with pytest.raises(TableError, match=f"runs.csv:65: --weights column 'runs' .*{said}; write how many runs"):
        fit_source(table, asked(weights="runs"))
    rows.iloc[:63].to_csv(table, index=False)
    assert fit_source(table, asked(weights="runs")).to_json()["weighted_by"] == "runs"
    with pytest.raises(TableError, match="--weights: no column 'run'"):
        fit_source(table, asked(weights="run"))


def test_groups_on_the_command_line() -> None:
    assert parse_by(["model=a,b,set=x", "n=3"]) == {"model": "a,b", "set": "x", "n": "3"}
    with pytest.raises(InputError, match="COLUMN=VALUE"):
        parse_by(["model"])


@pytest.mark.parametrize(("content", "said"), [("[1]", "not a saved"), ("{", "not a saved"), ("{}", "not a fit")])
def test_files_that_hold_no_fit_are_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "fit.json").write_text(content)
    with pytest.raises(InputError, match=said):
        predict(saved_fit(str(tmp_path / "fit.json")), params=1, data=1)
    with pytest.raises(InputError, match="no such file"):
        saved_fit(str(tmp_path / "none.json"))


@pytest.mark.parametrize("width", [40, 60, 120])
def test_the_text_names_units_reasons_and_advice_in_any_width(table: str, width: int) -> None:
    rows = grid()
    rows.loc[0, "loss"] = 0.0
    rows.to_csv(table, index=False)
    saved = fit_source(table, asked(where="set == 'x'", holdout="D >= 1e12", bootstrap=20)).to_json()
    lines = fit_lines([saved], saved["held_out"], width)
    text = " ".join(" ".join(lines).split())
    assert max(map(len, lines)) <= max(width, 40)
    for said in (
        "loss x N^alpha",
        "32: outside where",
        "1: loss is zero (row 1 below the header)",
        "Held out: 8 rows",
        "95% interval",
    ):
        assert said in text, said
    groups = fit_source(table, asked(by="set", bootstrap=20)).to_json()
    lines = fit_lines(groups["groups"], groups["held_out"], width)
    assert max(map(len, lines)) <= max(width, 40)
    assert "2 groups" in lines[0]
    told = prediction_lines(predict(saved, params=1e11, data=1e12), width)
    assert "Extrapolated to 10× the largest size measured." in " ".join(told)
    json.dumps(saved, allow_nan=False)


def metric_table(path: str) -> None:
    rows = grid().query("set == 'x'")
    odds = 3.0 * (2.4 - rows["loss"]) + np.random.default_rng(1).normal(0, 0.03, len(rows))
    rows.assign(accuracy=0.25 + 0.7 / (1 + np.exp(-odds))).to_csv(path, index=False)


def test_a_metric_by_way_of_the_loss_is_fitted_saved_shown_and_predicted(table: str, tmp_path: Path) -> None:
    metric_table(table)
    out = tmp_path / "two.json"
    done = fit_and_save(table, asked(target="accuracy", through="loss", holdout="D >= 1e12"), None, out)
    saved = saved_fit(str(out))
    assert (saved["law"], saved["target"]) == ("two_stage", "accuracy")
    assert [stage["target"] for stage in saved["stages"]] == ["loss", "accuracy"]
    told = predict(saved, params=1e10, data=1e13)
    assert told["predicted"] == done.fitted.predict(pd.DataFrame({"N": [1e10], "D": [1e13]}))["predicted"].iloc[0]
    assert 0.6 < told["low"] < told["mean_low"] < told["predicted"] < told["mean_high"] < told["high"] < 1
    text = "\n".join(fit_lines([saved], saved["held_out"], 200))
    assert "accuracy = floor + (top - floor) / (1 + exp(k * (loss - L0))); loss = E + A * params ** -alpha" in text
    assert "two_stage law" in "\n".join(prediction_lines(told))


@pytest.mark.parametrize(
    ("changes", "where", "says"),
    [
        ({"target": None, "through": "loss"}, "", "--target"),
        ({"target": "accuracy", "through": "lost"}, "--through", "no column 'lost'"),
        ({"target": "loss", "through": "loss"}, "--through", "both the target and the loss"),
        ({"target": "accuracy", "through": "loss", "law": "metric_sigmoid"}, "--through", "takes a loss"),
    ],
)
def test_what_cannot_go_through_a_loss_names_the_option(table: str, changes, where: str, says: str) -> None:
    metric_table(table)
    with pytest.raises(InputError) as error:
        fit_source(table, asked(**changes))
    assert says in str(error.value)
    assert where in str(error.value)
