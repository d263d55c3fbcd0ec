"""Small data sets with something to learn, and a study of each: entities in sentences, translation, answers in a text.

`python -m tests.made_studies FOLDER` writes them; docs/STUDIES.md has what `rayscale run` says of them.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

STUDY = """\
name: {name}
task: {task}
data: {{train: {file}, validation_fraction: 0.1, test_fraction: 0.1, near_duplicates: null}}
models:
  - {{family: {family}, sizes: {sizes}, vocabulary: {vocabulary}}}
grid: {{examples: {examples}, gpus: [1], seeds: {seeds}}}
training: {{epochs: {epochs}, global_batch: 16}}
target: {target}
"""
SIZES, EXAMPLES = "[1x32, 1x64, 2x64]", "[250, 1000, 4000]"
STARTS = (
    "Bar",
    "Cal",
    "Den",
    "Fal",
    "Gor",
    "Hal",
    "Kor",
    "Lin",
    "Mar",
    "Nor",
    "Pel",
    "Ros",
    "Sal",
    "Tor",
    "Vel",
    "Win",
)
MIDDLES = ("a", "e", "i", "o", "an", "en", "il", "or", "ber", "den", "ga", "li", "ma", "ran", "sta", "ti")
ENDS = ("by", "den", "er", "ford", "ham", "is", "ley", "mond", "na", "sen", "son", "ton", "vik", "well", "wood", "zen")


def _name(draw: random.Random) -> str:
    """One of 4,096: that of a person, a place or a firm, as the sentence has it."""
    return draw.choice(STARTS) + draw.choice(MIDDLES) + draw.choice(ENDS)


# ---- token-classification: the same names are persons, places and firms, so that only the words beside them tell

SENTENCES = (
    "{PER} left {LOC} last year .", "The people of {LOC} voted for {PER} .", "{ORG} bought a mill near {LOC} .",
    "{PER} joined {ORG} as its chair .", "Shares of {ORG} fell after {PER} had gone .", "In {LOC} it rained all day .",
    "{PER} and {PER} met in {LOC} .", "{ORG} of {LOC} hired {PER} .", "Nobody at {ORG} knew why .",
    "A train from {LOC} to {LOC} was late .", "The court fined {ORG} .", "{PER} said the roads to {LOC} were closed .",
)  # fmt: skip


def sentence(draw: random.Random) -> dict[str, list[str]]:
    """Tokens and tags; a person may have two names."""
    tokens, tags = list[str](), list[str]()
    for word in draw.choice(SENTENCES).split():
        kind = word.strip("{}") if word.startswith("{") else None
        names = [word] if kind is None else [_name(draw) for _ in range(draw.choice((1, 2)) if kind == "PER" else 1)]
        tokens += names
        tags += ["O"] if kind is None else [f"B-{kind}", *[f"I-{kind}"] * (len(names) - 1)]
    return {"tokens": tokens, "tags": tags}


# ---- seq2seq: English to Spanish, with the gender of nouns and adjectives behind them

NOUNS = {
    "house": "casa f", "dog": "perro m", "cat": "gato m", "table": "mesa f", "book": "libro m", "road": "calle f",
    "car": "coche m", "door": "puerta f", "tree": "árbol m", "boat": "barco m", "school": "escuela f",
    "garden": "jardín m", "kitchen": "cocina f", "town": "pueblo m", "shop": "tienda f", "bridge": "puente m",
}  # fmt: skip
ADJECTIVES = {
    "red": "rojo", "white": "blanco", "black": "negro", "small": "pequeño", "old": "viejo", "new": "nuevo",
    "pretty": "bonito", "tall": "alto", "dirty": "sucio", "clean": "limpio", "quiet": "tranquilo", "cheap": "barato",
}  # fmt: skip
PLACES = {"near": "cerca de", "behind": "detrás de", "in front of": "delante de", "far from": "lejos de"}
VERBS = {"is": "está", "was": "estaba", "will be": "estará"}


def translation(draw: random.Random) -> dict[str, str]:
    """A sentence in English and in Spanish."""
    verb, place = draw.choice(list(VERBS)), draw.choice(list(PLACES))
    (one, uno), (two, dos) = _thing(draw), _thing(draw)
    spanish = f"{uno} {VERBS[verb]} {PLACES[place]} {dos}".replace(" de el ", " del ")
    return {"en": f"{one} {verb} {place} {two}", "es": spanish}


def _thing(draw: random.Random) -> tuple[str, str]:
    noun, adjective = draw.choice(list(NOUNS)), draw.choice(list(ADJECTIVES))
    word, gender = NOUNS[noun].split()
    ending = ADJECTIVES[adjective][:-1] + ("a" if gender == "f" else "o")
    return f"the {adjective} {noun}", f"{'la' if gender == 'f' else 'el'} {word} {ending}"


# ---- question-answering: what is asked for stands at a place that the question's words tell

TRADES = ("painter", "doctor", "sailor", "baker", "judge", "farmer", "singer", "printer", "tailor", "chemist")
LIFE = (
    "{who} was born in {born} in {year} .", "From {from_} on {who} worked as a {trade} in {work} .",
    "{who} married {spouse} in {wed} .", "{who} died in {died} .",
)  # fmt: skip
QUESTIONS = {
    "born": "Where was {who} born ?", "year": "When was {who} born ?", "trade": "What was {who} by trade ?",
    "work": "Where did {who} work ?", "spouse": "Whom did {who} marry ?", "wed": "Where did {who} marry ?",
    "died": "Where did {who} die ?",
}  # fmt: skip


def answer(draw: random.Random) -> dict[str, Any]:
    """A life in four sentences, in any order, and a question about it."""
    facts = {key: _name(draw) for key in ("who", "born", "work", "wed", "died")}
    facts |= {"spouse": f"{_name(draw)} {_name(draw)}", "trade": draw.choice(TRADES)}
    facts |= {"year": str(draw.randint(1700, 1899)), "from_": str(draw.randint(1900, 1950))}
    asked = draw.choice(list(QUESTIONS))
    marked = " ".join(draw.sample(LIFE, len(LIFE))).replace(f"{{{asked}}}", "\0")
    context = marked.format(**facts)
    place = context.index("\0")
    return {
        "question": QUESTIONS[asked].format(**facts), "context": context.replace("\0", facts[asked]),
        "answers": {"text": [facts[asked]], "answer_start": [place]},
    }  # fmt: skip


MADE: dict[str, tuple[Callable[[random.Random], dict[str, Any]], dict[str, Any]]] = {
    "entities": (sentence, {
        "task": "{type: token-classification, max_length: 48}", "family": "bert", "vocabulary": 600, "epochs": 6,
        "target": "f1_micro", "examples": "[125, 250, 500, 1000]",
    }),
    "translation": (translation, {
        "task": "{type: seq2seq, source: en, target: es, max_length: 48}", "family": "t5", "vocabulary": 600,
        "epochs": 12, "target": "chrf",
    }),
    "answers": (answer, {
        "task": "{type: question-answering, max_length: 96}", "family": "bert", "vocabulary": 600, "epochs": 10,
        "target": "f1_words",
    }),
}  # fmt: skip


def write_study(folder: Path, name: str, rows: int = 5200, **changes: Any) -> Path:
    """The study of this name beside its data, `rows` of them; `changes` replace what STUDY has in braces."""
    make, settings = MADE[name]
    draw = random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(make(draw), ensure_ascii=False) + "\n" for _ in range(rows)]
    (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    usual = {"sizes": SIZES, "examples": EXAMPLES, "seeds": 2}
    path = folder / f"{name}.yaml"
    path.write_text(STUDY.format(**{"name": name, "file": f"{name}.jsonl", **usual, **settings, **changes}))
    return path


if __name__ == "__main__":
    for study in MADE:
        print(write_study(Path(sys.argv[1]), study))
