"""The data doctor on planted faults, and the first look on planted curves."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rayscale.plan.draft import draft_plan, write_plan
from rayscale.report.terminal.plan import facts, notes
from rayscale.runs.folder import Run
from rayscale.study.study import load_study
from rayscale.system.machine import Machine
from rayscale.system.storage import Store
from rayscale.text.normalise import keys_of
from rayscale.text.preparation import Here, prepare
from rayscale.text.review.encoding_faults import find_trouble, written_as
from rayscale.text.review.first_look import look, words_and_pairs
from rayscale.text.tokens.encode import spec_of
from tests.made_languages import MADE, write_study

MACHINE = Machine("cpu", 2, "a processor", "this machine")
WORDS = [f"{a}{b}{c}" for a in ("ka", "lo", "mi", "tru") for b in ("da", "fe", "gi", "nu") for c in "bdkmrst"]
STUDY = """name: doctored
task: {type: sequence-classification, max_length: 16}
data: {train: train.csv, test: test.csv}
models: [{family: bert, sizes: [1x64], vocabulary: 400}]
grid: {examples: [50, 100], gpus: [1], seeds: 1}
"""


def written(folder: Path, rows: dict[str, list[tuple[str, str]]]) -> Path:
    for name, pairs in rows.items():
        lines = "".join(f'"{text}",{label}\n' for text, label in pairs)
        (folder / f"{name}.csv").write_text(f"text,label\n{lines}", encoding="utf-8")
    (folder / "study.yaml").write_text(STUDY)
    return folder / "study.yaml"


def made(number: int, seed: int, words: int) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    rows = []
    for place in range(number):
        label = "xy"[place % 2]
        rows.append((" ".join([label * 3, *(draw.choice(WORDS) for _ in range(words))]), label))
    return rows


def findings(plan: dict) -> dict[str, dict]:
    return {each["name"]: each for each in plan["doctor"]["findings"]}


def test_planted_faults_are_found_each_with_its_mend(tmp_path: Path) -> None:
    train, test = made(600, 1, 30), made(40, 2, 30)
    train = [(f"{text} number {place}", "x") for place, (text, _) in enumerate(train)]
    train += [(text.replace("x", "z"), "rare") for text, _ in made(4, 3, 30)]
    train += [(f"{text} cafÃ© {place}", "y") for place, (text, _) in enumerate(made(20, 4, 30))]
    train += [(f"{text} bell\x07 &amp; tag {place}", "y") for place, (text, _) in enumerate(made(20, 5, 30))]
    train += [(f"{text}!", label) for text, label in test[:30]]
    train += [(train[0][0], "y")] * 100
    study, store = load_study(written(tmp_path, {"train": train, "test": test})), Store.open(tmp_path / "run")
    plan = draft_plan(study, MACHINE, store)
    found = findings(plan.to_json())
    assert {name for name, each in found.items() if each["level"] == "warn"} >= {
        "rows", "contradictions", "held-out rows", "labels", "leakage", "encoding", "tokens of bert-400",
    }  # fmt: skip
    assert all(bool(each["mend"]) == (each["level"] == "warn") for each in found.values())
    assert "give more rows of rare" in found["labels"]["mend"]
    assert "f1_macro" in found["labels"]["mend"]
    assert re.search(r"(2[5-9]|3\d) nearly do", found["leakage"]["found"])
    assert "(train.csv:" in found["leakage"]["found"]
    for sign in (f"{READ_WRONGLY} in", "control characters in", "markup in"):
        assert sign in found["encoding"]["found"]
    assert "raise task.max_length" in found["tokens of bert-400"]["mend"]
    assert "Fix: raise task.max_length" in dict(notes(plan.to_json()))["tokens of bert-400"]
    assert dict(facts(plan.to_json()))["Data checks"].startswith("passed: lengths")

    prepared = prepare(study, [spec_of(plan.trials[0].trial.model)], [0], Here())
    write_plan(store, plan, prepared)
    after = findings(Run(store).plan)
    assert set(after) == set(found)
    assert "per word" in after["tokens of bert-400"]["found"]  # the tokenizer is there now, and was measured
    (splits,) = Run(store).plan["data"]["tokens"].values()
    assert f"{splits['train']['truncated_share']:.2g} of the texts" in after["tokens of bert-400"]["found"]
    assert store.read("near_duplicates.txt").decode().count("\n") >= 25


def test_text_without_fault_is_well_and_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, {"train": made(1300, 1, 8), "test": made(150, 2, 8)})
    path.write_text(path.read_text().replace("max_length: 16", "max_length: 64"))
    study = load_study(path)
    first = draft_plan(study, MACHINE, Store.open(tmp_path / "run")).to_json()["doctor"]
    assert [each["name"] for each in first["findings"] if each["level"] != "ok"] == []
    assert first["first_look"]["fall"] > 0.1
    json.dumps(first, allow_nan=False)
    monkeypatch.setattr("rayscale.text.review.diagnosis.look", lambda *_: pytest.fail("looked at again"))
    assert draft_plan(study, MACHINE, Store.open(tmp_path / "run")).to_json()["doctor"] == first


def test_of_little_text_the_plan_tells_what_tokenising_will_cut(tmp_path: Path) -> None:
    rows = [(f"{'so am I ' * 6}{place}", "xy"[place % 2]) for place in range(130)]
    path = written(tmp_path, {"train": [*rows, ("no go " * 40, "x")], "test": made(40, 2, 3)})
    path.write_text(path.read_text().replace("max_length: 16", "max_length: 32").replace(
        "test.csv}", "test.csv, validation_fraction: 0.1, near_duplicates: null}"))  # fmt: skip
    study = load_study(path)
    plan = draft_plan(study, MACHINE, Store.open(tmp_path / "run"))
    told = findings(plan.to_json())["tokens of bert-400"]  # by its length in bytes most texts would be longer than 32
    prepared = prepare(study, [spec_of(plan.trials[0].trial.model)], [0], Here())
    splits = prepared["bert-400"].manifest["splits"]["train"]
    assert splits["truncated_rows"] == 1
    assert "max_length" not in told["mend"]
    assert "held-out texts have characters that the training texts lack" in told["mend"]  # other words, other letters
    assert f"; {splits['truncated_share']:.2g} of the texts exceed 32 tokens and will be cut" in told["found"]


def tables(texts: list[str], labels: list[int] | None) -> dict[str, pa.Table]:
    columns = {"key": keys_of(texts), "text": pa.array(texts, pa.large_string())}
    whole = pa.table(columns if labels is None else {**columns, "label": np.array(labels, dtype=np.int32)})
    return {"train": whole.slice(200), "validation": whole.slice(0, 200)}


def test_the_first_look_tells_what_can_be_learnt_from_what_cannot() -> None:
    draw = random.Random(7)
    texts = [" ".join(draw.choice(WORDS) for _ in range(12)) for _ in range(1200)]
    halves = {word: place % 2 for place, word in enumerate(WORDS)}
    told = [int(sum(halves[word] for word in text.split()) > 6) for text in texts]
    learnt = look(tables(texts, told), 2)
    assert learnt is not None
    assert learnt.fall > 0.1
    assert learnt.low <= learnt.fall <= learnt.high
    assert list(learnt.losses) == sorted(learnt.losses, reverse=True)
    random_ones = look(tables(texts, [draw.randrange(2) for _ in texts]), 2)
    assert random_ones is not None
    assert random_ones.fall < 0.02
    letters = look(tables(texts, None), 0)
    assert letters is not None
    assert letters.fall > 0.02
    noise = ["".join(chr(97 + draw.randrange(26)) for _ in range(60)) for _ in range(1200)]
    nothing = look(tables(noise, None), 0)
    assert nothing is not None
    assert nothing.losses[-1] > np.log(26)  # nobody foretells what is drawn at random
    assert look(tables(texts[:230], told[:230]), 2) is None


READ_WRONGLY = "mojibake (utf-8 read as windows-1252)"


@pytest.mark.parametrize(
    ("text", "kinds"),
    [("naïve café — “quoted” 漢字 ÄÖÜ", []), ("cafÃ© crÃ¨me", [READ_WRONGLY]), ("itâ€™s", [READ_WRONGLY]),
     ("a\ufffdb", ["replacement characters"]), ("a\x00b", ["control characters"]), ("x\x93y", ["control characters"]),
     ("one<br />two &quot;three&quot;", ["markup"]), ("AT&T < 3 > 2", [])],
)  # fmt: skip
def test_signs_of_wrong_encoding(text: str, kinds: list[str]) -> None:
    assert [sign.kind for sign in find_trouble([text])] == kinds
    assert written_as("é") is None


def test_text_without_spaces_is_looked_at_by_signs_and_pairs_of_them() -> None:
    draw = random.Random(7)
    rows = [MADE["工单"][0](draw) for _ in range(1500)]
    names = sorted({row["label"] for row in rows})
    seen = look(tables([row["text"] for row in rows], [names.index(row["label"]) for row in rows]), len(names))
    assert seen is not None
    assert "characters" in seen.model
    assert seen.losses[-1] < 0.7 < 1.0 < seen.losses[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's 5 o'clock, Zoë!", ["it", "'", "s", "5", "o", "'", "clock", ",", "zoë", "!"]),
        ("买iPhone吗？", ["买", "iphone", "吗", "？"]),
        ("退货 了", ["退", "退货", "货", "了"]),
        ("हिन्दी में।", ["हिन्दी", "में", "।"]),
    ],
)
def test_what_the_first_look_counts(text: str, words: list[str]) -> None:
    assert sorted(words_and_pairs(text)) == sorted(words)


def test_a_chinese_text_is_told_its_unknown_characters_by_split_and_suits_where_there_are_none(tmp_path: Path) -> None:
    path = write_study(tmp_path, "工单", 1800, vocabulary=2600, examples="[100]", sizes="[1x32]")
    whole = findings(draft_plan(load_study(path), MACHINE, Store.open(tmp_path / "run")).to_json())
    told = whole["tokens of bert-2600"]
    assert told["level"] == "ok"
    assert "per word" not in told["found"]
    assert re.search(r"unknown: 0(\.000\d+)? of train, 0\.0\d+ of validation, 0\.0\d+ of test", told["found"])
    path.write_text(path.read_text(encoding="utf-8").replace("2600", "300"), encoding="utf-8")
    few = findings(draft_plan(load_study(path), MACHINE, Store.open(tmp_path / "run")).to_json())["tokens of bert-300"]
    assert few["level"] == "warn"
    assert "its vocabulary does not suit this text" in few["mend"]


def test_tokens_of_chinese_are_counted_without_the_spaces_that_join_them(tmp_path: Path) -> None:
    path = write_study(tmp_path, "实体", 700, vocabulary=2600, examples="[100]", sizes="[1x32]")
    told = findings(draft_plan(load_study(path), MACHINE, Store.open(tmp_path / "run")).to_json())
    rows = [json.loads(line) for line in (tmp_path / "实体.jsonl").read_text(encoding="utf-8").splitlines()]
    assert f"the longest has {max(len(row['tokens']) for row in rows)}" in told["lengths"]["found"]
    assert ", 1 character each" in told["tokens of bert-2600"]["found"]
    assert "does not suit" not in told["tokens of bert-2600"]["mend"]
    assert told["first look"]["found"] == "none: this task has no simple model"


def test_of_pairs_there_is_no_first_look_since_words_do_not_tell_how_two_texts_go_together(tmp_path: Path) -> None:
    path = write_study(tmp_path, "问句", 700, vocabulary=2600, examples="[100]", sizes="[1x32]")
    plan = draft_plan(load_study(path), MACHINE, Store.open(tmp_path / "run")).to_json()
    told = findings(plan)["first look"]
    assert (told["level"], told["mend"], plan["doctor"]["first_look"]) == ("ok", "", None)
    assert told["found"] == "none: word counts cannot tell how two texts relate"
