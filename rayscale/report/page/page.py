"""report.html: one self-contained page, the verdict first, everything it rests on below."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from rayscale.laws.fitting.observations import usual_role
from rayscale.laws.fitting.result import Fit
from rayscale.report.figures.chart import Drawn
from rayscale.report.figures.evidence import Evidence, Predict, gather
from rayscale.report.figures.loss import loss_against_data, loss_against_size, metrics_against_data
from rayscale.report.figures.residuals import held_out, residual_rows, residuals
from rayscale.report.figures.speed import speed_against_gpus
from rayscale.report.notes import doctor_notes, row_notes
from rayscale.report.numbers import capitalised, count, duration, number, plain, significant, trimmed
from rayscale.report.page.tables import (
    ClassScores,
    constant_settings,
    fit_view,
    held_out_rows,
    nested_facts,
    plan_rows,
    provenance_facts,
    residual_table,
    trial_columns,
    trial_views,
)  # fmt: skip
from rayscale.report.sentences import claim_quality, claim_rows, claim_sentences
from rayscale.report.wording import cheapest_facts, fits_of, gains, notices, sentences, target_facts, verdict_of
from rayscale.runs.ledger import COLUMNS
from rayscale.runs.sweeps import OUTDONE
from rayscale.system.storage import Store


def write_report(
    *,
    study: dict,
    plan: dict,
    trials: pd.DataFrame,
    fit: dict | None,
    provenance: dict,
    path: Path,
    written_at: datetime | None = None,
) -> Path:
    """Write the page to `path`, whole or not at all, and return it.

    `study` is the study file as given or validated, `plan` the object of plan.json, `trials` the trial table (missing
    columns count as empty), `fit` the object of fit.json or None, `provenance` any nested JSON, shown beside what the
    trial table itself knows (its list `commands` as the way to do it again). Equal inputs give equal bytes.
    Raises InputError for a fit that rayscale did not save.
    """
    path = Path(path)
    page = render(study, plan, trials, fit, provenance, written_at)
    Store.open(path.absolute().parent).write(path.name, page.encode("utf-8"))
    return path


def render(
    study: dict,
    plan: dict,
    trials: pd.DataFrame,
    fit: dict | None,
    provenance: dict,
    written_at: datetime | None = None,
    classes: ClassScores | None = None,
) -> str:
    """The page as text; arguments as in `write_report`, and the scores by class of the best trial."""
    trials = trials.reset_index(drop=True).reindex(columns=list(COLUMNS))
    evidence = gather(study, trials, fit)
    verdict = verdict_of(fit)
    predict = _predictor()
    drawn, absent = _figures(evidence, trials, verdict, predict)
    remarks = notices(fit)
    first, *others = sentences(fit)
    headline, _, rest = first.partition(". ")
    context = {
        "name": plain(study.get("name") or "study"),
        "lede": _lede(study, evidence),
        "headline": headline,
        "sentences": [rest, *others] if rest else others,
        "gains": gains(fit),
        "target": target_facts(fit),
        "cheapest": cheapest_facts(fit),
        "refusals": [notice for notice in remarks if notice.kind == "Refused"],
        "warnings": [notice for notice in remarks if notice.kind != "Refused"],
        "claim": _claim_view(verdict.get("claim")),
        "tiles": _tiles(evidence, trials),
        "figures": drawn,
        "absent": absent,
        "fits": [fit_view(item, trials, _law_facts(item), predict) for item in fits_of(fit)],
        "held_out_rows": held_out_rows(verdict.get("held_out") or {}),
        "residual_rows": residual_table(residual_rows(evidence, predict)),
        "trials": trial_views(evidence, trials),
        "trial_headers": [header for _, header in trial_columns(evidence, trials)],
        "classes": classes,
        "trials_sentence": _trials_sentence(trials),
        "constants": constant_settings(trials),
        "snippet": _snippet(evidence),
        "plan_rows": plan_rows(plan, trials),
        "cut": [(item.get("cell", ""), item.get("reason", "")) for item in plan.get("cut") or []],
        "lint": [(item.get("code", ""), item.get("message", "")) for item in plan.get("lint") or []],
        "rows": row_notes(plan.get("data") or {}),
        "doctor": doctor_notes(plan.get("doctor") or {}),
        "study_facts": nested_facts(study),
        "commands": [str(line) for line in provenance.get("commands") or []],
        "provenance": provenance_facts(provenance, trials),
        "params_meaning": _meaning(evidence.params),
        "data_meaning": _meaning(evidence.data),
        "written_at": f" on {written_at:%Y-%m-%d at %H:%M %Z}".rstrip() if written_at else "",
    }
    return _environment().get_template("page.j2").render(context)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    # Everything is escaped, whatever the file is called; a name that the context lacks is a mistake, not a blank.
    return Environment(
        loader=PackageLoader("rayscale.report", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


def _predictor() -> Predict:
    """Predictions of saved fits, each read back once."""
    fits: dict[int, Fit] = {}

    def predict(saved: dict, rows: pd.DataFrame) -> pd.DataFrame:
        if id(saved) not in fits:
            fits[id(saved)] = Fit.from_json(saved)
        return fits[id(saved)].predict(rows)

    return predict


def _figures(
    evidence: Evidence, trials: pd.DataFrame, verdict: dict, predict: Predict
) -> tuple[list[Drawn], list[tuple[str, str]]]:
    """The figures that can be drawn, and for each of the others its title and the reason."""
    speed_gain = (verdict.get("doubling") or {}).get("gpus") or {}
    check = verdict.get("held_out") or {}
    no_rows = "no trial is ok yet"
    wanted: list[tuple[str, Drawn | None, str]] = [
        (capitalised(f"{evidence.quantity} against data"), loss_against_data(evidence, predict), no_rows),
        (capitalised(f"{evidence.quantity} against model size"), loss_against_size(evidence, predict),
         no_rows if evidence.ok.empty else "only one model size has ok trials"),
        ("Metrics", metrics_against_data(evidence), ""),
        ("Speed against GPUs", speed_against_gpus(evidence, trials, speed_gain),
         "fewer than two GPU counts have trials that ran alone on the machine"),
        ("Residuals", residuals(evidence, predict), "no law could be fitted"),
        ("Held-out check", held_out(evidence, check),
         str(check.get("note") or "the largest data size was not predicted without itself")),
    ]  # fmt: skip
    drawn = [figure for _, figure, _ in wanted if figure is not None]
    return drawn, [(title, reason) for title, figure, reason in wanted if figure is None and reason]


def _claim_view(claim: dict | None) -> dict | None:
    """The title, the sentences and the table of the section on the claim; None where a study cannot test it."""
    if not claim:
        return None
    title = f"Is {claim_quality(claim)} proportional to data over GPUs?"
    return {"title": title, "sentences": claim_sentences(claim), "rows": claim_rows(claim)}


def _law_facts(item: dict) -> list[tuple[str, str]]:
    columns = item.get("columns") or {}
    facts = [("Parameters of the law", str(len(item.get("params") or {})))] if item.get("params") else []
    sizes = [(usual_role(str(column)) or role, str(column)) for role, column in columns.items()]
    facts += [(_ROLES[role], _meaning(column)) for role, column in sizes if role in _ROLES]
    if item.get("objective") is not None:
        scale = "log odds" if item.get("formula", "").startswith("1 / (1 + exp(") else "log"
        facts.append(("Loss that was minimised", f"sum of Huber, δ 0.001, on {scale} residuals"))
    return facts


_ROLES = {"params": "N, the model size", "data": "D, the data", "gpus": "G, the workers"}


def _meaning(column: str) -> str:
    known = {
        "params": "all parameters, embeddings included (column params)",
        "params_non_embedding": "parameters without embeddings (column params_non_embedding)",
        "tokens": "distinct training tokens, further passes not counted again (column tokens)",
        "examples": "distinct training examples, further passes not counted again (column examples)",
        "data_requested": "the size asked for, further passes not counted again (column data_requested)",
        "gpus": "GPUs, or one-thread worker slots where there are none (column gpus)",
    }
    return known.get(column, f"column {column}")


def _lede(study: dict, evidence: Evidence) -> str:
    source = str((study.get("data") or {}).get("train") or "")
    text = "the built-in corpus" if source == "builtin" else Path(source).name
    given = study.get("target") or {}
    target = given if isinstance(given, dict) else {"metric": given}
    metric, reach = target.get("metric") or evidence.target, target.get("reach")
    aim = f"Target: {metric}" + (f", to reach {trimmed(reach, 4)}." if number(reach) is not None else ".")
    return f"{evidence.task or 'A study'}{f' on {plain(text)}' if text else ''}. {aim}"


def _tiles(evidence: Evidence, trials: pd.DataFrame) -> list[tuple[str, str]]:
    ok = trials[trials["status"] == "ok"]
    settled = trials[trials["status"] != OUTDONE]  # of a sweep the one that counts
    tiles = [(f"of {len(settled)} {'trials' if len(settled) == len(trials) else 'cells'} ok", str(len(ok)))]
    if not len(ok):
        return tiles
    params = ok.groupby("model")["params"].median()
    tiles.append((f"{'models' if len(params) > 1 else 'model'}, {_reach(params)} parameters", str(len(params))))
    sizes = ok["data_requested"].dropna()
    many = "data sizes" if sizes.nunique() > 1 else "data size"
    tiles.append((f"{many}, {_reach(sizes)} {evidence.data}", str(sizes.nunique())))
    tiles.append(("GPUs or worker slots", ", ".join(str(int(value)) for value in sorted(ok["gpus"].dropna().unique()))))
    if len(values := evidence.ok[evidence.target].dropna()):
        which, best = ("lowest", values.min()) if evidence.lower else ("highest", values.max())
        tiles.append((f"{which} {evidence.target_label}", significant(best, 4)))
    if trials["device_seconds"].notna().any():
        tiles.append(("device time, all trials", duration(trials["device_seconds"].sum())))
    return tiles


def _reach(values: pd.Series) -> str:
    low, high = count(values.min()), count(values.max())
    return low if low == high else f"{low} to {high}"


def _trials_sentence(trials: pd.DataFrame) -> str:
    counts = trials["status"].value_counts()
    order = ("ok", OUTDONE, "failed", "diverged", "stopped")
    parts = [f"{counts[status]} {status}" for status in order if counts.get(status)]
    text = f"All {len(trials)} trials: {', '.join(parts)}. Those that are not ok come first, with their reason."
    if counts.get(OUTDONE):
        text += " Outdone: another rate of the cell had a lower validation loss; that trial is charged for the sweep."
    return text


def _snippet(evidence: Evidence) -> str:
    measured = evidence.target.removesuffix(" / 100")
    return (
        "import pandas as pd\n\n"
        'trials = pd.read_parquet("trials.parquet")   # in the run folder\n'
        'ok = trials[trials["status"] == "ok"]\n'
        f'print(ok.pivot_table(index=["params", "model"], columns="data_requested",\n'
        f'                     values="{measured}", aggfunc=["mean", "std", "count"]))\n\n'
        "import rayscale as rs                         # the same with the fit and the plan\n"
        'run = rs.load(".")\n'
        "run.trials, run.fit, run.plan\n"
        "# fit_rows are the rows that the laws above count: ok, and each seed once, at its fewest GPUs\n"
        f'rs.fit_law(run.fit_rows, "power", by="model", data="{evidence.data}", target="eval_loss")'
    )
