"""Children: seeded by their row alone, never in another split, nested with their parents, made once."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rayscale.errors import InputError
from rayscale.study.augment_key import read
from rayscale.text import folders, prepared
from rayscale.text.augment import children
from rayscale.text.augment.chain import Chain, fingerprint
from rayscale.text.normalise import keys_of
from rayscale.text.preparation import Here, prepare
from rayscale.text.tokens.encode import TokenizerSpec
from tests.unit.text.made_wordnet import write_wordnet

BERT = TokenizerSpec("trained", "bert", 400)
SWAP = {"name": "mixed", "swap": {"share": 0.3}, "delete": {"share": 0.1}, "copies": 2}


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSCALE_CACHE", str(tmp_path / "cache"))


def shout(rows, mark: str = "!"):
    """A plugin: a function of rows."""
    return [row.saying(f"{row.text} {mark}") for row in rows]


def forgetful(rows):
    """A plugin that loses a row."""
    return list(rows)[1:]


def first_words(rows, words: int = 2):
    """A plugin whose children often say the same."""
    return [row.saying(" ".join(row.text.split()[:words])) for row in rows]


PLUGIN = {"name": "loud", f"{__name__}:shout": {"mark": "?"}}


@settings(deadline=None)
@given(st.permutations(range(12)), st.integers(1, 12))
def test_neither_order_nor_block_nor_neighbours_change_a_child(order, cut):
    texts = [f"text {i} of some words that are many" for i in range(12)]
    chain, keys = Chain(read(SWAP)), keys_of(texts)
    alone = {keys[i]: chain.rows([texts[i]], keys[i : i + 1], 1)[0].text for i in range(12)}
    for part in (order[:cut], order[cut:]):
        made = chain.rows([texts[i] for i in part], keys[list(part)], 1)
        assert [row.text for row in made] == [alone[keys[i]] for i in part]


def test_copies_steps_and_seeds_draw_apart():
    texts = [f"text {i} of some words that are many and more of them" for i in range(50)]
    keys = keys_of(texts)
    made = [[row.text for row in Chain(read({**SWAP, "seed": seed})).rows(texts, keys, copy)]
            for seed in (0, 1) for copy in (0, 1)]  # fmt: skip
    assert len({tuple(each) for each in made}) == 4
    assert all(np.mean([a == b for a, b in zip(made[0], other, strict=True)]) < 0.2 for other in made[1:])


@pytest.mark.row
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_row_12_no_child_is_a_held_out_text_a_training_text_or_another_child(tmp_path, make_study, data):
    # Few words and short texts: a swap or a cut often gives a text that is there already.
    words = data.draw(st.lists(st.sampled_from("abcd"), min_size=4, max_size=4, unique=True))
    size = data.draw(st.integers(2, 4))
    import itertools

    texts = [" ".join(each) for n in range(1, size + 1) for each in itertools.product(words, repeat=n)]
    path = tmp_path / f"rows-{data.draw(st.integers(0, 10**9))}.csv"
    path.write_text("text,label\n" + "".join(f"{text},{i % 2}\n" for i, text in enumerate(texts[: 12 + 40 * size])))
    entry = data.draw(st.sampled_from([SWAP, {"name": "less", "delete": {"share": 0.5}, "copies": 3},
                                       {"name": "first", f"{__name__}:first_words": {}, "copies": 2}]))  # fmt: skip
    study = make_study(path, augment=("none", entry), validation_fraction=0.3, test_fraction=0.3)
    made = prepare(study, [BERT], [0], Here())[f"bert-400+{entry['name']}"]
    clean = made.path.parent
    [folder] = [each for each in clean.glob("augment-*") if each.name == made.path.name.split("400-")[-1]
                or made.path.name.endswith(each.name)]  # fmt: skip
    found = prepared.read_table(folder / "train.arrow")
    held = {t for name in ("validation", "test", "train")
            for t in prepared.read_table(clean / f"{name}.arrow")["text"].to_pylist()}  # fmt: skip
    kept = found["text"].to_pylist()
    assert not held & set(kept)
    assert len(set(kept)) == len(kept)
    train = prepared.read_table(clean / "train.arrow")
    assert set(found["parent"].to_pylist()) <= set(train["key"].to_pylist())
    rows = made.manifest["augmentation"]["rows"]
    assert rows["made"] == rows["kept"] + sum(rows["dropped"].values()) == rows["real"] * entry["copies"]
    labels = dict(zip(train["key"].to_pylist(), train["label"].to_pylist(), strict=True))
    assert found["label"].to_pylist() == [labels[key] for key in found["parent"].to_pylist()]


def test_a_subset_holds_its_real_rows_and_exactly_their_children(pets, make_study):
    study = make_study(pets, augment=("none", SWAP))
    found = prepare(study, [BERT], [0, 1], Here())
    plain, made = found["bert-400"], found["bert-400+mixed"]
    real = len(plain.split("train"))
    parents = np.load(made.path / "children.npy")
    for seed in (0, 1):
        small, large = (made.subset("examples", n, seed) for n in (50, 200))
        assert list(small[:50]) == list(plain.subset("examples", 50, seed))
        assert set(small) < set(large)
        children_of = [real + child for row in small[:50] for child in range(parents[row], parents[row + 1])]
        assert sorted(small[50:]) == sorted(children_of)
        assert 60 <= len(children_of) <= 100
    train, before = made.split("train"), plain.split("train")
    assert (train.keys[:real] == before.keys).all()
    assert all((a == b).all() for a, b in zip(train.rows(range(9)), before.rows(range(9)), strict=True))
    for row in (0, real // 2):
        kinds = {int(train.labels[real + child]) for child in range(parents[row], parents[row + 1])}
        assert kinds == {int(train.labels[row])}
    assert (made.split("test").values == plain.split("test").values).all()
    assert plain.manifest["tokenizer"] == made.manifest["tokenizer"]


def test_a_stopped_run_goes_on_with_the_blocks_that_are_left(pets, make_study, monkeypatch):
    monkeypatch.setattr(children, "BLOCK_ROWS", 64)
    study = make_study(pets, augment=(SWAP,))
    whole = prepare(study, [BERT], [0], Here())["bert-400+mixed"].path
    contents = {p.name: p.read_bytes() for p in whole.iterdir() if p.is_file()}
    shutil.rmtree(whole)
    shutil.rmtree(next(whole.parent.glob("augment-*")))
    done = []

    class Stopping(Here):
        def augment(self, augmentation, tables):
            for table in super().augment(augmentation, tables):
                if len(done) == 3:
                    raise KeyboardInterrupt
                done.append(len(table))
                yield table

    with pytest.raises(KeyboardInterrupt):
        prepare(study, [BERT], [0], Stopping())
    assert len(list(next(whole.parent.glob("augment-*-parts")).iterdir())) == 3
    asked = []

    class Counting(Here):
        def augment(self, augmentation, tables):
            asked.extend(tables)
            # As Ray gives them: cut anew and in another order.
            joined = pa.concat_tables(super().augment(augmentation, tables[::-1]))
            return [joined.slice(first, 50) for first in range(0, len(joined), 50)][::-1]

    prepare(study, [BERT], [0], Counting())
    assert len(asked) == -(-folders.read_manifest(whole.parent)["rows"]["train"] // 64) - 3
    assert {p.name: p.read_bytes() for p in whole.iterdir() if p.is_file()} == contents
    assert not list(whole.parent.glob("augment-*-parts"))


def test_a_plugin_is_a_function_of_rows(pets, make_study):
    made = prepare(make_study(pets, augment=(PLUGIN,)), [BERT], [0], Here())["bert-400+loud"]
    folder = next(made.path.parent.glob("augment-*"))
    assert all(text.endswith(" ?") for text in prepared.read_table(folder / "train.arrow")["text"].to_pylist())
    with pytest.raises(InputError, match=r"forgetful' returned 1 rows for 2"):
        Chain(read({"name": "x", f"{__name__}:forgetful": {}})).rows(["a b", "c d"], keys_of(["a b", "c d"]), 0)


def test_the_fingerprint_follows_settings_and_sources_not_places(tmp_path):
    folders = [write_wordnet(tmp_path / name / "wordnet") for name in ("one", "two")]

    def mark(folder, **settings):
        entry = {"name": "syn", "synonyms": {"source": str(folder), **settings}}
        return fingerprint(read(entry).located())

    assert mark(folders[0]) == mark(folders[1]) != mark(folders[0], share=0.3)
    (folders[1] / "verb.exc").write_text("began begin\n")
    assert mark(folders[0]) != mark(folders[1])


def test_a_table_of_synonyms_reaches_the_children(tmp_path, pets, make_study):
    (tmp_path / "own.csv").write_text("home,back\nnumber,no\n")
    entry = {"name": "own", "synonyms": {"source": str(tmp_path / "own.csv"), "share": 1.0}}
    made = prepare(make_study(pets, augment=("none", entry)), [BERT], [0], Here())["bert-400+own"]
    texts = prepared.read_table(next(made.path.parent.glob("augment-*")) / "train.arrow")["text"].to_pylist()
    assert all(" no " in text and text.endswith("runs back") for text in texts)
