"""report.html: its structure, what it escapes, and every study that went less than well."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import pandas as pd
import pytest

from rayscale.laws.fit import fit_law
from rayscale.laws.fitting.result import Fit
from rayscale.report import write_report
from rayscale.report.rebuild import with_sentences
from rayscale.report.wording import cheapest_facts, target_facts
from rayscale.verdict.verdict import conclude

EVIL = "<script>alert('x')</script> $x$ &amp; \"模型\" \x1b[31m"
EVILS = (
    EVIL,
    '"><img src=x onerror=alert(1)>',
    "{{7*7}}{% raw %}${7*7}#{7*7}",
    "</style><script src=//evil.example/x.js>",
    "' onmouseover='alert(1)' javascript:alert(1)",
)
VOID = {"meta", "link", "img", "source", "br", "hr", "input"}


class Page(HTMLParser):
    """What a browser would see: the tags, their attributes, their nesting and the text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.unbalanced: list[str] = []
        self.source = text
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]

    def images(self) -> list[str]:
        """All SVG sources, decoded."""
        uris = [attrs["src"] for attrs in self.all("img")] + [attrs["srcset"] for attrs in self.all("source")]
        head = "data:image/svg+xml;base64,"
        assert all(uri.startswith(head) for uri in uris)
        return [base64.b64decode(uri.removeprefix(head)).decode() for uri in uris]

    def figures(self) -> list[str]:
        return [attrs["id"].removeprefix("figure-") for attrs in self.all("figure")]


@pytest.fixture
def written(simulated, tmp_path):
    """Write a page for a simulated study; everything may be replaced."""

    def write(trials: pd.DataFrame | None = None, task: str = simulated.LANGUAGE, fit="fit", **changes) -> Page:
        table = simulated.trials(task) if trials is None else trials
        arguments = {
            "study": simulated.study(task), "plan": simulated.plan(table), "trials": table,
            "fit": concluded(table, task) if fit == "fit" else fit, "provenance": simulated.provenance(),
            "path": tmp_path / "report.html",
        } | changes  # fmt: skip
        path = write_report(**arguments)
        assert path == Path(arguments["path"])
        assert path.is_file()
        page = Page(path.read_text(encoding="utf-8"))
        check(page)
        return page

    return write


@pytest.fixture(scope="module")
def usual(simulated, tmp_path_factory) -> SimpleNamespace:
    """The page of the language-model study that went well, drawn once; `fit` is what it was drawn from."""
    table = simulated.trials()
    fit = concluded(table, simulated.LANGUAGE)
    settings = dict(matplotlib.rcParams)
    path = write_report(
        study=simulated.study(), plan=simulated.plan(table), trials=table, fit=fit, provenance=simulated.provenance(),
        path=tmp_path_factory.mktemp("usual") / "report.html", written_at=datetime(2026, 1, 5, 10, tzinfo=UTC),
    )  # fmt: skip
    page = Page(path.read_text(encoding="utf-8"))
    check(page)
    return SimpleNamespace(page=page, fit=fit, table=table, settings=settings)


def concluded(table: pd.DataFrame, task: str) -> dict:
    """fit.json of a table: the law as fitted, the verdict by hand."""
    data = "tokens" if task == "causal-lm" else "examples"
    law = replace(
        fit_law(table, "chinchilla", params="params", data=data, target="eval_loss", bootstrap=40), seconds=0.1
    )
    return {
        "fits": [law.to_json()],
        "verdict": {
            "sentences": ["Twice the data lowers the test loss by 6.1 %.", "Two GPUs run 1.65 times as fast as one."],
            "target": {"metric": "eval_loss", "reach": 3.6},
            "doubling": {
                "data": {"value": -6.1, "low": -7.2, "high": -4.9, "unit": "%"},
                "params": {"value": None, "low": None, "high": None, "unit": "%", "note": "one model size"},
                "gpus": {"value": 1.65, "low": 1.6, "high": 1.7, "unit": "times", "from": 1, "to": 2,
                         "curve": [{"from": 1, "to": 2, "value": 1.65, "low": 1.6, "high": 1.7}]},
            },
            "cheapest": None,
            "held_out": None,
        },
    }  # fmt: skip


def check(page: Page) -> None:
    """What holds for every page, however the study went."""
    assert not page.unbalanced
    assert not page.open
    assert page.source.startswith("<!DOCTYPE html>")
    assert len(page.all("h1")) == 1
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy == (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    assert page.tags.index(("meta", {"http-equiv": "Content-Security-Policy", "content": policy})) < 4
    assert not re.search(r"url\(|@import", page.source)
    tags = Counter(tag for tag, _ in page.tags)
    assert not tags["script"]
    assert not tags["link"]
    assert not tags["iframe"]
    assert not tags["form"]
    for _, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href", "srcset"):
            assert attrs.get(name, "#").startswith(("#", "data:image/svg+xml;base64,"))
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {attrs["href"][1:] for attrs in page.all("a")} <= set(ids)
    assert all(attrs.get("alt") for attrs in page.all("img"))
    assert all(attrs.get("scope") in {"row", "col"} for attrs in page.all("th"))
    assert "nan" not in re.split(r"\W+", page.text.lower())
    assert "None" not in page.text
    for svg in page.images():
        root = ElementTree.fromstring(svg)
        assert root.tag.endswith("svg")
        for node in root.iter():
            assert node.tag.rpartition("}")[2] not in ("script", "foreignObject", "image", "a")
            for name, value in node.attrib.items():
                assert not name.startswith("on")
                assert not name.endswith("href") or value.startswith("#")
    parts = ("verdict", "figures", "fits", "trials", "plan", "provenance")
    order = [page.source.index(f'id="{part}"') for part in parts]
    assert order == sorted(order)


def test_language_model_study(usual):
    page = usual.page
    assert page.figures() == ["loss-data", "loss-size", "speed", "residuals"]
    for said in (
        "Twice the data lowers the test loss by 6.1 %.", "−6.1%", "−7.2% to −4.9%", "×1.65", "one model size",
        "E + A * params ** -alpha + B * data ** -beta", "Starts that reached the best", "41 ok, 1 failed",
        "RuntimeError: worker 1 was killed (out of memory?)", "status failed: 1 row", "beyond the budget",
        "two GPU counts give a ratio", "rayscale run study.yaml --yes", "9f2c61aa01b7", "read_parquet", "95% interval",
        "2026-01-05 at 10:00 UTC", "More data lowers the loss of every model.",
        "The largest model is best at 800 k tokens",
        "all parameters, embeddings included", "distinct training tokens",
    ):  # fmt: skip
        assert said in page.text, said
    assert len(page.source) < 1_500_000


def test_unrounded_parameters_are_there(usual):
    for value in usual.fit["fits"][0]["params"].values():
        assert repr(value) in usual.page.text
    assert repr(usual.fit["fits"][0]["covariance"][1][0]) in usual.page.text


def test_parameters_have_units_and_predictions_say_how_far_they_reach(usual):
    text = " ".join(usual.page.text.split())
    law = usual.fit["fits"][0]
    for said in ("eval_loss x params^alpha", "Beyond the data", "×2", "×10", "Residuals by model", "Root mean square",
                 "Intervals widened, few runs"):  # fmt: skip
        assert said in text, said
    largest = {law["columns"][role]: [4 * pair[1] if role == "data" else pair[1]]
               for role, pair in law["data_range"].items()}  # fmt: skip
    row = Fit.from_json(law).predict(pd.DataFrame(largest)).iloc[0]
    assert f"{row['low']:.3f} to {row['high']:.3f}" in text
    assert f"{row['mean_low']:.3f} to {row['mean_high']:.3f}" in text


def test_classification_study_shows_accuracy_and_f1(written, simulated):
    page = written(task=simulated.CLASSES)
    assert "metrics" in page.figures()
    assert "Accuracy" in page.text
    assert "Macro F1" in page.text
    assert "nats per example" in "".join(page.images())


def test_equal_inputs_give_equal_bytes_and_touch_nothing(written, usual, tmp_path):
    (tmp_path / "report.html").write_text("an older page" * 1_000_000)
    again = written(usual.table, fit=usual.fit, written_at=datetime(2026, 1, 5, 10, tzinfo=UTC))
    assert again.source == usual.page.source
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"], "the older page was replaced whole"
    assert dict(matplotlib.rcParams) == usual.settings, "matplotlib's settings belong to the caller"


@pytest.mark.row
@pytest.mark.parametrize("evil", EVILS)
def test_row_6_labels_names_paths_and_errors_are_text_everywhere(written, simulated, evil):
    models = {evil: 81_000, "plain": 240_000, "third": 670_000}
    table = simulated.trials(models=models, failed=0)
    for column in ("error", "host", "device", "versions", "trial_id", "optimizer"):
        table[column] = evil
    fit = concluded(table, simulated.LANGUAGE)
    fit["verdict"]["sentences"] = [evil]
    fit["verdict"]["target"] = {"metric": evil}
    fit["verdict"]["doubling"]["params"]["note"] = evil
    fit["fits"][0]["warnings"] = [{"code": evil, "message": evil}]
    plan = simulated.plan(table) | {"cut": [{"cell": evil, "reason": evil}], "lint": [{"code": evil, "message": evil}]}
    plan["data"] = {"read": 5, "train": 3, "validation": 1, "test": 1, "dropped": {}, "labels_not_in_training": [evil]}
    provenance = {"host": evil, "commands": [evil], evil: evil}
    study = simulated.study(name=evil)
    study["data"]["train"] = f"/home/me/{evil}"
    study[evil] = {evil: [evil]}
    page = written(table, fit=fit, plan=plan, provenance=provenance, study=study)
    assert evil.replace(" \x1b[31m", "") in page.text  # as it was written, in words
    assert page.source.count("<style>") == page.source.count("</style>") == 1
    for text in (page.source, *page.images()):
        assert not re.search(r"<script|<img src=x", text)
    assert [evil[:6] in "".join(ElementTree.fromstring(svg).itertext()) for svg in page.images()].count(True) > 2


def test_names_of_any_direction_stand_apart_from_the_text_around_them(written, simulated):
    table = simulated.trials(models={"نموذج": 81_000, "plain": 240_000, "third": 670_000}, failed=0)
    page = written(table, study=simulated.study(name="عربي"))
    assert "<h1><bdi>عربي</bdi></h1>" in page.source
    assert '<th scope="row"><bdi>نموذج</bdi></th>' in page.source


def test_without_a_fit_the_data_still_show(written):
    page = written(fit=None)
    assert "No law could be fitted" in page.text
    assert "No law was fitted." in page.text
    assert page.figures() == ["loss-data", "loss-size", "speed"]
    assert "Residuals : no law could be fitted" in page.text


@pytest.mark.parametrize("fit", [None, {}, {"fits": [], "verdict": {}}], ids=["none", "empty", "no fits"])
def test_an_empty_fit_is_no_fit(written, simulated, fit):
    assert "No law was fitted." in written(simulated.trials().iloc[:0], fit=fit).text


def test_a_refusal_is_shown_with_its_reason(written, simulated):
    table = simulated.trials(models={"only": 81_000})
    page = written(table)
    assert "What this study cannot say" in page.text
    assert "only one value of params" in page.text
    assert page.figures() == ["loss-data", "speed"]
    assert "only one model size has ok trials" in page.text


def test_one_model_with_its_own_law(written, simulated):
    table = simulated.trials(models={"only": 81_000})
    law = fit_law(table, "power", data="tokens", target="eval_loss", by="model", bootstrap=40)
    grouped = {**law.to_json(), "target": "eval_loss", "law": "power"}
    page = written(table, fit={"fits": [grouped], "verdict": {}})
    assert page.figures() == ["loss-data", "speed", "residuals"]
    assert "power on eval_loss (model only)" in page.text


def test_no_trial_is_ok(written, simulated):
    table = simulated.trials()
    page = written(simulated.trials(failed=len(table)), fit=None)
    assert page.figures() == []
    assert "42 failed" in page.text
    assert page.text.count("RuntimeError: worker 1 was killed") == 42


def test_no_trial_at_all(written, simulated):
    empty = simulated.trials().iloc[:0]
    page = written(empty, fit=None, plan=simulated.plan(simulated.trials()))
    assert "No trial has a record yet." in page.text
    assert written(pd.DataFrame(), fit=None, plan={}, provenance={}, study={}).figures() == []


def test_two_hundred_trials_and_ten_models(written, simulated):
    models = {f"bert-{layers}x128": 300_000 * layers for layers in range(1, 11)}
    table = simulated.trials(models=models, seeds=(4, 3, 2, 1))
    assert len(table) == 200
    page = written(table)
    assert len(page.source) < 1_500_000
    assert len(page.all("figure")) == 4


def test_a_study_as_the_user_wrote_it(written, simulated):
    study = {"name": "mine", "task": {"type": "causal-lm"}, "target": "perplexity", "data": {"train": "a/b.txt"}}
    page = written(simulated.trials().iloc[:0], fit=None, study=study)
    assert "Target: perplexity" in page.text
    assert "on b.txt" in page.text


def test_the_page_says_what_became_of_every_row(simulated, tmp_path):
    trials = simulated.trials()
    data = {"read": 100, "train": 70, "validation": 10, "test": 12, "dropped": {"bad_row": 3, "duplicate": 5},
            "labels_not_in_training": [EVIL]}  # fmt: skip
    path = write_report(
        study={"name": "mine"}, plan={**simulated.plan(trials), "data": data}, trials=trials, fit=None, provenance={},
        path=tmp_path / "report.html",
    )  # fmt: skip
    page = Page(path.read_text(encoding="utf-8"))
    check(page)
    assert "Rows: 100 read = 70 training + 10 validation + 12 test + 8 dropped (3 cannot be used, 5 dupl" in page.text
    assert "1 label not in the training rows" in page.text


def test_the_verdict_of_a_run_is_shown_whole(written, simulated):
    """The object that `verdict.conclude` makes, target and held-out check included."""
    table = simulated.trials()
    fit = conclude(
        table, data_axis="tokens", target="eval_loss", reach=4.2, price_gpu_hour=2.5, currency="EUR", bootstrap=40
    )
    fit = with_sentences(fit, simulated.LANGUAGE, "tokens")
    check_of = fit["verdict"]["held_out"]
    check_of["rows"] = [
        {"trial_id": "a", "model": model, "measured": 4.0, "predicted": 4.1, "low": 3.9, "high": 4.3}
        for model in simulated.LADDERS[simulated.LANGUAGE]
    ]
    page = written(table, fit=fit)
    assert page.figures() == ["loss-data", "loss-size", "speed", "residuals", "held-out"]
    for sentence in fit["verdict"]["sentences"]:
        assert sentence.rstrip(".") in page.text
    for said in ("Cheapest allocation that reaches the target", "Runs that reach it", "EUR", "power on eval_loss (",
                 "The claim: the inverse of the test loss is proportional to data over GPUs", "Twice the GPUs ×0.5",
                 "Fitted without 800 k tokens, auto misses these runs by"):  # fmt: skip
        assert said in page.text


def test_where_a_metric_leads_the_figures_are_of_it(written, simulated):
    table = simulated.trials(simulated.CLASSES, gpus=(1,))
    fit = conclude(table, data_axis="examples", target="f1_macro", reach=None, bootstrap=40)
    page = written(table, simulated.CLASSES, fit=with_sentences(fit, simulated.CLASSES, "examples"))
    assert fit["verdict"]["leading"]["target"] == "f1_macro"
    for said in ("The verdict rests on f1_macro, the study's target.", "F1 macro against data", "highest f1 macro",
                 "the f1 macro of every model", " points", "F1 macro against model size"):  # fmt: skip
        assert said in page.text


def test_a_target_out_of_reach_says_how_far(simulated):
    asked = {"data_axis": "tokens", "target": "eval_loss", "reach": 3.6}
    fit = conclude(simulated.trials(), **asked, bootstrap=40)
    facts = dict(target_facts(fit))
    assert facts["To reach"] == "3.6"
    assert facts["Reached"].startswith("no, 0.")
    assert "tokens (95%:" in facts["Data that would reach it"]
    assert cheapest_facts(fit) == []
