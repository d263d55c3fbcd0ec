"""The text of a study prepared by Ray Data, where it lies prepared already."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayscale.on_ray.data import prepare as preparation
from rayscale.plan.plan import model_specs
from rayscale.study.study import load_study
from rayscale.text.augment.children import name_of
from rayscale.text.tokens.encode import spec_of


def test_prepared_data_come_in_the_order_of_the_study(study_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"swapped-{number}" for number in range(8)]
    entries = ", ".join(f"{{name: {name}, swap: {{}}}}" for name in names)
    study_file.write_text(study_file.read_text().replace("rows.csv", f"rows.csv\n  augment: [none, {entries}]"))
    study = load_study(study_file)
    (spec,) = {spec_of(model) for model in model_specs(study)}
    expected = [name_of(spec.name, name) for name in ("none", *names)]
    monkeypatch.setattr(preparation, "find_all", lambda study, specs, seeds: dict.fromkeys(reversed(expected), "text"))
    assert list(preparation.prepare(study, [spec], [0])) == expected
