"""The examples of docs/plugins.md, as a reader would use them: one package, by registered names and by places."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest

import rayscale as rs
from rayscale.errors import DataError, InputError
from rayscale.laws.formula import read_laws
from rayscale.study.augment_key import read
from rayscale.study.study import load_study
from rayscale.system.registry import entries
from rayscale.text.augment.chain import Chain
from rayscale.text.normalise import keys_of
from rayscale.text.preparation import Here, prepare
from rayscale.text.sources.readers import BadRow, Row
from rayscale.text.tokens.encode import TokenizerSpec

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
PLACES = {
    "format: fasttext": 'format: "my_plugins.sources:read_fasttext"',
    "typing_slips": '"my_plugins.augmenters:typing_slips"',
    "[stretched, power]": '["my_plugins.laws:STRETCHED", power]',
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The modules of the page, importable."""
    folder = tmp_path / "site" / "my_plugins"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    for block in blocks("python"):
        name = re.match(r"# my_plugins/(\w+\.py)\n", block)
        assert name is not None
        (folder / name[1]).write_text(block)
    for module in [name for name in sys.modules if name.partition(".")[0] == "my_plugins"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def installed(package: Path) -> dict[str, dict[str, str]]:
    """The same as an installed package: with its metadata; the entry points, by group."""
    project = tomllib.loads(blocks("toml")[0])["project"]
    name = f"{project['name'].replace('-', '_')}-{project['version']}"
    folder = package.parent / f"{name}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups: dict[str, dict[str, str]] = project["entry-points"]
    sections = [
        f"[{group}]\n" + "\n".join(f"{key} = {value}" for key, value in each.items()) for group, each in groups.items()
    ]
    (folder / "entry_points.txt").write_text("\n".join(sections) + "\n")
    return groups


@pytest.fixture(params=["names", "places"])
def study_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The study of the page beside its data, and the same by places."""
    request.getfixturevalue("installed" if request.param == "names" else "package")
    random, words = Random(3), ("parcel", "invoice", "refund", "courier", "order", "account", "card", "door", "week")
    lines = [
        f"__label__{('billing', 'delivery')[i % 2]} {' '.join(random.choices(words, k=6))} {i}" for i in range(500)
    ]
    (tmp_path / "tickets.txt").write_text("\n".join(lines) + "\n")
    text = blocks("yaml")[0]
    for name, place in PLACES.items() if request.param == "places" else ():
        assert name in text
        assert place.strip("[]").partition(",")[0] in PAGE
        text = text.replace(name, place)
    path = tmp_path / "study.yaml"
    path.write_text(text)
    return path


def test_the_names_are_listed_with_their_package(installed: dict[str, dict[str, str]]) -> None:
    found = {(each.group, each.name): each for each in entries() if each.origin == "my-plugins 1.0"}
    assert {key: each.target for key, each in found.items()} == {
        (group, name): target for group, names in installed.items() for name, target in names.items()
    }
    assert {group for group, _ in found} == set(installed)


@pytest.mark.parametrize("by_name", [True, False])
def test_the_law_fits_a_table(request: pytest.FixtureRequest, by_name: bool) -> None:
    request.getfixturevalue("installed" if by_name else "package")
    law = "stretched" if by_name else "my_plugins.laws:STRETCHED"
    truth = {"E": 0.5, "B": 3.0, "D0": 2000.0, "beta": 0.7}
    design = pd.DataFrame({"examples": np.repeat(np.geomspace(100, 20_000, 9), 3), "seed": [0, 1, 2] * 9})
    table = rs.simulate(law, truth, design, noise=0.01, seed=1)
    fit = rs.fit_law(table, law, data="examples", target="eval_loss", bootstrap=200)
    assert fit.outcome == "converged"
    assert fit.params == pytest.approx(truth, rel=0.1)
    as_formula = rs.fit_law(table, fit.law.formula, data="examples", target="eval_loss", bootstrap=2)
    assert as_formula.params == pytest.approx(fit.params, rel=1e-3)
    if by_name:
        assert rs.fit_law(table, "auto", data="examples", target="eval_loss", bootstrap=50).weights["stretched"] > 0


def test_the_augmenter_follows_the_seed_of_each_row(package: Path) -> None:
    entry = {"name": "slips", "my_plugins.augmenters:typing_slips": {"share": 0.2}}
    texts = ["我的订单被收了两次费用", "charged twice", "a"]
    chain, keys = Chain(read(entry)), keys_of(texts)
    made = [row.text for row in chain.rows(texts, keys, 0)]
    assert [chain.rows([text], keys[i : i + 1], 0)[0].text for i, text in enumerate(texts)] == made
    assert made[0] != texts[0]
    assert [sorted(text) for text in made] == [sorted(text) for text in texts]
    assert made != [row.text for row in chain.rows(texts, keys, 1)]
    with pytest.raises(InputError, match="share"):
        read({"name": "slips", "my_plugins.augmenters:typing_slips": {"share": 2}})


def test_the_source_tells_lines_and_bad_rows(package: Path, tmp_path: Path) -> None:
    from my_plugins.sources import read_fasttext  # type: ignore[import-not-found]

    path = tmp_path / "rows.txt"
    path.write_text("__label__a one text\n\nno label\n__label__b\n__label__b 两个\n")
    rows = list(read_fasttext(str(path), ["text", "label"]))
    assert [type(row) for row in rows] == [Row, BadRow, BadRow, Row]
    assert [row.line for row in rows] == [1, 3, 4, 5]
    assert [row.values for row in rows if isinstance(row, Row)] == [("one text", "a"), ("两个", "b")]
    with pytest.raises(DataError, match="it has text and label"):
        list(read_fasttext(str(path), ["body"]))


def test_a_study_uses_all_three(study_file: Path) -> None:
    study = load_study(study_file)
    chosen = read_laws(study.model_dump()["laws"])
    assert chosen is not None
    assert chosen[0].name == "stretched"
    spec = TokenizerSpec("trained", "bert", 512)
    prepared = prepare(study, [spec], [0, 1], Here())
    assert prepared[spec.name].labels == ["billing", "delivery"]
    plain, slips = (prepared[name].manifest["splits"]["train"]["rows"] for name in (spec.name, f"{spec.name}+slips"))
    assert 2 * plain < slips <= 3 * plain  # each row with its copies, less those that are not new
