"""Synonyms keep part of speech, form and case; what cannot be read is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayscale.errors import DataError
from rayscale.study.augment_key import read
from rayscale.study.augmenters import Example
from rayscale.text.augment.inflection import FORMS, Inflector
from rayscale.text.augment.synonyms import SYNONYMS, SynonymSettings
from rayscale.text.augment.wordnet import WordNet, find_wordnet
from tests.unit.text.made_wordnet import write_wordnet


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory):
    return write_wordnet(tmp_path_factory.mktemp("made") / "wordnet")


def replaced(source, text, share=1.0, **more):
    step = SYNONYMS.make(SYNONYMS.locate(SynonymSettings(source=str(source), share=share)))
    return step([Example(text, 11, **more)])[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("he saw the films", "he saw the movies"),
        ("the children of the town", "the kids of the town"),
        ("the work began early", "the work started early"),
        ("the work has begun early", "the work has started early"),
        ("it has stopped", "it has halted"),
        ("they stopped here", "they halted here"),
        ("she picked the red one", "she chose the red one"),
        ("it was picked by them", "it was chosen by them"),
        ("he shows it to us", "he demonstrates it to us"),
        ("a bigger house", "a larger house"),
        ("Car of the year", "Automobile of the year"),
        ("THE FILM IS HERE", "THE MOVIE IS HERE"),
        ("he met Film there", "he met Film there"),  # a name
        ("an honest answer", "a sincere answer"),
        ("a car in the yard", "an automobile in the yard"),
        ("the funniest of them", "the funniest of them"),  # amusing has no form in -est
        ("we were filming there", "we were shooting there"),
        ("a filmgoer spoke", "a filmgoer spoke"),
    ],
)
def test_a_synonym_takes_the_form_and_the_case_of_its_word(wordnet, text, expected):
    assert replaced(wordnet, text).text == expected


def test_offensive_senses_rare_words_and_phrases_are_left_out(wordnet):
    words = {replaced(wordnet, f"the boy {i} ate dessert in the car").text for i in range(30)}
    assert words == {f"the lad {i} ate dessert in the automobile" for i in range(30)}


def test_one_word_in_six_is_replaced_and_one_at_least(wordnet):
    text = "the film was shown to the boy and the child in a big car very quickly"
    counts = [sum(a != b for a, b in zip(text.split(), replaced(wordnet, text, share).text.split(), strict=True))
              for share in (0.01, 0.2)]  # fmt: skip
    assert counts[0] in (1, 2)  # 2: an article followed its word
    assert 3 <= counts[1] <= 4


def test_the_users_own_table_respects_part_of_speech_and_form(tmp_path):
    table = tmp_path / "own.tsv"
    table.write_text("word\tsynonym\tpart\nphone\tmobile phone\tnoun\nbrilliant\tdazzling\t\nturn\tswitch off\tv\n")
    assert replaced(table, "the phones were brilliant").text == "the mobile phones were dazzling"
    assert replaced(table, "you can phone me").text == "you can phone me"
    assert replaced(table, "they turned it").text == "they switched off it"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("word,synonym\n", "holds no synonyms"),
        ("car,auto\nbus\n", r"own\.csv:2: found 1 columns"),
        ("car,auto,thing\n", "part of speech 'thing'"),
        ("motor car,auto\n", "one word of letters"),
        ("car,\xff\n", r"own\.csv:1: is not UTF-8"),
    ],
)
def test_a_wrong_table_is_named_with_its_line(tmp_path, content, said):
    table = tmp_path / "own.csv"
    table.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=said):
        SYNONYMS.locate(SynonymSettings(source=str(table)))


def test_an_absent_wordnet_says_what_to_install_and_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.setattr("rayscale.text.augment.wordnet._places", lambda: [str(tmp_path / "none")])
    with pytest.raises(DataError, match=r"apt-get install wordnet-base.*pip install nltk.*Looked in") as error:
        read({"name": "syn", "synonyms": None}).located()
    assert error.value.code == "no_wordnet"


def test_a_wordnet_folder_without_its_files_names_them(tmp_path):
    folder = write_wordnet(tmp_path / "wordnet")
    (folder / "index.verb").unlink()
    with pytest.raises(DataError, match=r"without WordNet's index\.verb"):
        SYNONYMS.locate(SynonymSettings(source=str(folder)))
    write_wordnet(folder)
    (folder / "index.noun").write_text("car n 7 zero\n")
    with pytest.raises(DataError, match="no index of WordNet 3"):
        WordNet(folder)


def test_nltks_data_folder_serves_as_debians(tmp_path):
    write_wordnet(tmp_path / "nltk_data" / "corpora" / "wordnet")
    assert replaced(tmp_path / "nltk_data", "the films").text == "the movies"


def test_every_form_is_read_back_as_a_form_of_its_word(wordnet):
    inflector = Inflector(WordNet(wordnet))
    for part, word in (("verb", "begin"), ("verb", "show"), ("noun", "child"), ("adj", "big"), ("verb", "choose")):
        for form in FORMS[part]:
            spelled = inflector.inflect(word, part, form)
            assert (part, form, word) in {(r.part, r.form, r.word) for r in inflector.readings(spelled)}
    assert inflector.inflect("show", "verb", "past") == "showed"
    assert inflector.inflect("show", "verb", "participle") == "shown"
    assert inflector.inflect("begin", "verb", "past") == "began"


def test_the_real_wordnet_where_it_is_installed():
    try:
        source = find_wordnet()
    except DataError:
        pytest.skip("WordNet is not installed")
    text = replaced(source, "The movies were brilliant, and she quickly purchased a house.").text
    assert text.startswith("The films were ")
    assert "quickly" not in text
    assert Path(source, "cntlist.rev").exists()
