"""Broken study files from a seed: what a typing error, a bad editor or an attacker makes of a good one.

A mutant says which fields the refusal must name, and on which lines: these and no others. Where the file cannot be
parsed at all there is one line and perhaps no field.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: A good study; leaves are YAML literals, so that a mutant can put anything there.
GOOD: dict[str, Any] = {
    "name": "toy",
    "task": {"type": "sequence-classification", "text": "text", "label": "label", "max_length": "64"},
    "data": {"train": "rows.csv", "validation_fraction": "0.1", "test_fraction": "0.2", "on_bad_row": "error"},
    "models": [
        {"family": "bert", "sizes": ["1x32", "2x64"], "vocabulary": "512"},
        {"family": "bert", "sizes": ["4x64"], "vocabulary": "400"},
    ],
    "grid": {"examples": ["20", "40", "80"], "gpus": ["1"], "seeds": "2"},
    "training": {
        "epochs": "2", "global_batch": "16", "learning_rate": "1e-3", "schedule": "cosine", "warmup": "0.2",
        "precision": "fp32", "weight_decay": "0.05",
    },
    "target": {"metric": "f1_macro", "reach": "0.9"},
    "laws": {"mine": {"formula": "E + B * data ** -beta", "bounds": {"beta": ["0.1", "1.0"]}}},
    "run": {"executor": "lanes", "accelerator": "cpu", "storage": "runs", "keep": "best", "retries": "1"},
    "budget": {"gpu_hours": "9"},
    "prices": {"gpu_hour": "2.5", "currency": "EUR"},
}  # fmt: skip

_NEVER = ["2020-01-01", "!!binary aGk=", "[]", "[[1]]", "{a: {b: [1, {c: d}]}}", "true"]
_NO_NUMBER = ["x", "'3'", "''", ".nan", ".inf", "-.inf", "-1", "1e400", "null", *_NEVER]
_NO_TEXT = ["5", "2.5", "''", ".nan", "1" + "0" * 400, '"a\\0b"', '"\\e[31m"', '"\\ud800"', *_NEVER]
#: What each field can certainly not be.
WRONG: dict[str, list[str]] = {
    "name": [*_NO_TEXT, "../x", ".hidden", "<script>alert(1)</script>", "x" * 300, "a/b", "'a b'", "ü", "'..'"],
    "task.type": ["sequence-clasification", "null", *_NO_TEXT],
    "task.text": _NO_TEXT,
    "task.label": _NO_TEXT,
    "task.max_length": ["0", "7", "2.5", "1" + "0" * 400, *(v for v in _NO_NUMBER if v != "null")],
    "data.train": ["no-such.csv", "'../../no/such'", "x" * 300, "'" + "y/" * 5000 + "'", "s3x://a", *_NO_TEXT],
    "data.validation_fraction": ["0", "1", "1.5", *_NO_NUMBER],
    "data.test_fraction": ["0", "1", "-0.1", *_NO_NUMBER],
    "data.on_bad_row": ["skp", "null", *_NO_TEXT],
    "models.0.family": ["brt", "gpt2", "null", *_NO_TEXT],
    "models.0.sizes.1": ["2by64", "0x64", "2x63", "-1x64", "2x", "3", "null", *_NO_TEXT],
    "models.1.vocabulary": ["0", "299", "1" + "0" * 400, "2.5", *_NO_NUMBER],
    "grid.examples.1": ["0", "2.5", "1" + "0" * 30, *_NO_NUMBER],
    "grid.gpus.0": ["0", "2.5", "1" + "0" * 30, *_NO_NUMBER],
    "grid.seeds": ["0", "2.5", "1" + "0" * 30, "x", "''", ".nan", ".inf", "-1", "null", "[]", "true", "2020-01-01"],
    "training.epochs": ["0", "2.5", "1" + "0" * 30, *(v for v in _NO_NUMBER if v != "null")],
    "training.global_batch": ["0", "2.5", "1" + "0" * 30, *_NO_NUMBER],
    "training.learning_rate": [
        "0",
        "1e300",
        "1" + "0" * 400,
        "atuo",
        "[1e-3]",
        *(v for v in _NO_NUMBER if v != "[[1]]"),
    ],
    "training.schedule": ["cosin", "null", *_NO_TEXT],
    "training.warmup": ["1", "1.5", *_NO_NUMBER],
    "training.precision": ["fp16", "null", *_NO_TEXT],
    "training.weight_decay": ["1.5", *_NO_NUMBER],
    "target.metric": ["f1", "loss", "null", *_NO_TEXT],
    "target.reach": ["92", "-0.1", *(v for v in _NO_NUMBER if v != "null")],
    "laws.mine.formula": ["__import__('os')", "E +", "data", "E * dat.a", "E * data[0]", "null", *_NO_TEXT],
    "run.executor": ["lane", "null", *_NO_TEXT],
    "run.accelerator": ["tpu", "null", *_NO_TEXT],
    "run.storage": ["null", *_NO_TEXT],
    "run.keep": ["all of them", "null", *_NO_TEXT],
    "run.retries": ["-1", "101", "2.5", *_NO_NUMBER],
    "budget.gpu_hours": ["0", "1e300", *(v for v in _NO_NUMBER if v != "null")],
    "prices.gpu_hour": ["0", "1e300", *(v for v in _NO_NUMBER if v != "null")],
    "prices.currency": ["usd", "US", "DOLLAR", "null", *_NO_TEXT],
    "task": ["3", "x", "[]", "true", "null", "[[1]]"],
    "data": ["3", "x", "[]", "true", "null", "[[1]]"],
    "models": ["3", "x", "{}", "[]", "true", "null"],
    "models.1": ["3", "x", "[]", "true", "null"],
    "models.0.sizes": ["3", "1x64", "{}", "[]", "true", "null"],
    "grid": ["3", "x", "[]", "true", "null"],
    "grid.examples": ["3", "x", "{}", "[]", "true"],
    "grid.gpus": ["3", "x", "{}", "[]", "true", "null"],
    "training": ["3", "x", "[]", "true", "null"],
    "target": ["3", "[]", "true", "null", "f1"],
    "run": ["3", "x", "[]", "true", "null"],
    "budget": ["3", "x", "[]", "true", "null"],
    "prices": ["3", "x", "[]", "true", "null"],
}
REQUIRED = ("name", "task", "data", "models", "grid", "task.type", "data.train", "models.0.family", "models.1.sizes")


@dataclass(frozen=True)
class Mutant:
    """A study file, and the lines by dotted field that its refusal must name; None where nothing parses.

    `said` are words that must stand somewhere in the message.
    """

    name: str
    content: bytes
    fields: dict[str, int] | None
    said: tuple[str, ...] = ()


def mutants(seed: int, number: int) -> list[Mutant]:
    """As many different mutants, always the same for a seed."""
    rng = random.Random(seed)
    makers: list[Callable[[random.Random], Mutant]] = [_misspelt, _wrong, _wrong, _mixed, _missing, _twice, _unparsable]
    found = {mutant.content: mutant for mutant in fixed()}
    turns = itertools.cycle(makers)  # some soon know nothing new
    while len(found) < number:
        mutant = next(turns)(rng)
        found.setdefault(mutant.content, mutant)
    return list(found.values())


def render(value: Any, indent: int = 0, where: str = "", line: int = 1) -> tuple[str, dict[str, int]]:
    """The tree as block YAML, and the line of each field."""
    text, lines = "", {}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in items:
        field = f"{where}.{key}" if where else str(key)
        lines[field] = line + text.count("\n")
        text += " " * indent + (f"{key}:" if isinstance(value, dict) else "-")
        if isinstance(part, str):
            text += f" {part}\n"
        elif isinstance(value, list):  # `- key: ...`: the first key stands on the line of the dash
            inner, more = render(part, indent + 2, field, line + text.count("\n"))
            text, lines = text + " " + inner[indent + 2 :], lines | more
        else:
            inner, more = render(part, indent + 2, field, line + text.count("\n") + 1)
            text, lines = text + "\n" + inner, lines | more
    return text, lines


def _parent(tree: Any, field: str) -> tuple[Any, Any]:
    *steps, last = (int(step) if step.isdigit() else step for step in field.split("."))
    for step in steps:
        tree = tree[step]
    return tree, last


def _apart(rng: random.Random, fields: list[str], most: int) -> list[str]:
    """Some of the fields, none of which lies within another."""
    chosen: list[str] = []
    for field in rng.sample(fields, rng.randint(1, most)):
        if not any(f"{field}.".startswith(f"{other}.") or f"{other}.".startswith(f"{field}.") for other in chosen):
            chosen.append(field)
    return chosen


def _wrong(rng: random.Random) -> Mutant:
    tree, named = copy.deepcopy(GOOD), set()
    for field in _apart(rng, list(WRONG), 4):
        named.add(_put_wrong(rng, tree, field))
    text, lines = render(tree)
    return Mutant("wrong " + ", ".join(sorted(named)), text.encode(), {field: lines[field] for field in named})


def _put_wrong(rng: random.Random, tree: Any, field: str) -> str:
    parent, last = _parent(tree, field)
    parent[last] = rng.choice(WRONG[field])
    return field


def _keys(tree: Any, where: str = "") -> list[str]:
    found = []
    for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
        field = f"{where}.{key}" if where else str(key)
        found += ([field] if isinstance(tree, dict) else []) + ([] if isinstance(part, str) else _keys(part, field))
    return found


def _typo(rng: random.Random, word: str) -> str:
    place = rng.randrange(1, len(word))
    kinds = [word[:place] + word[place + 1 :], word[:place] + word[place - 1 :], word[:place] + "q" + word[place:]]
    return rng.choice(kinds)


def _misspelt(rng: random.Random) -> Mutant:
    free = [key for key in _keys(GOOD) if not key.startswith(("laws.", "grid.examples"))]
    tree, missing, said = copy.deepcopy(GOOD), [], []
    strange = []
    for field in sorted(_apart(rng, free, 3), key=len, reverse=True):
        parent, last = _parent(tree, field)
        wrong = _typo(rng, last)
        items = [(wrong if key == last else key, part) for key, part in parent.items()]
        parent.clear()
        parent.update(items)
        strange.append(f"{field.rpartition('.')[0]}.{wrong}".lstrip("."))
        said.append(f"did you mean '{last}'?")
        missing += [field] if field in REQUIRED or field.endswith((".family", ".sizes")) else []
    text, lines = render(tree)
    named = {field: lines[field] for field in strange} | {field: _above(lines, field) for field in missing}
    return Mutant("misspelt " + ", ".join(strange), text.encode(), named, tuple(said))


def _above(lines: dict[str, int], field: str) -> int:
    parent = field.rpartition(".")[0]
    return lines[parent] if parent else 1


def _mixed(rng: random.Random) -> Mutant:
    """A wrong value, a misspelt key and what only a look at several fields shows, each in a section of its own."""
    tree = copy.deepcopy(GOOD)
    tree["training"]["epoch"] = tree["training"].pop("epochs")
    named = {_put_wrong(rng, tree, rng.choice(["run.keep", "run.retries", "run.executor"])), "training.epoch"}
    across = {
        "target.metric": lambda: tree["target"].update(metric="f1"),
        "data.train": lambda: tree["data"].update(train="none.csv"),
        "models.0.family": lambda: tree["models"][0].update(family="gpt2"),
        "budget.usd": lambda: tree["budget"].update(usd="5"),
        "grid.examples": lambda: tree["grid"].update(tokens=tree["grid"].pop("examples")),
        "models.1.pretrained": lambda: tree["models"].__setitem__(1, {"pretrained": "./none"}),
    }
    for field in rng.sample(list(across), rng.randint(1, 4)):
        across[field]()
        named.add("grid.tokens" if field == "grid.examples" else field)
    text, lines = render(tree)
    return Mutant("mixed " + ", ".join(sorted(named)), text.encode(), {field: lines[field] for field in named})


def _missing(rng: random.Random) -> Mutant:
    tree, gone = copy.deepcopy(GOOD), _apart(rng, list(REQUIRED), 3)
    for field in gone:
        parent, last = _parent(tree, field)
        del parent[last]
    text, lines = render(tree)
    return Mutant("missing " + ", ".join(gone), text.encode(), {field: _above(lines, field) for field in gone})


def _twice(rng: random.Random) -> Mutant:
    lines_of = render(GOOD)[1]
    text = render(GOOD)[0].splitlines()
    single = [f for f in lines_of if isinstance(_parent(GOOD, f)[0], dict) and isinstance(_value(f), str)]
    field = rng.choice([f for f in single if not f.endswith(".family")])
    place = lines_of[field]
    text.insert(place, text[place - 1])
    return Mutant(f"twice {field}", "\n".join(text).encode(), {field: place + 1}, ("is given twice",))


def _value(field: str) -> Any:
    parent, last = _parent(GOOD, field)
    return parent[last]


def _unparsable(rng: random.Random) -> Mutant:
    """One byte too many or too few, in the first half of the file, such that YAML must stumble."""
    text = render(GOOD)[0]
    lines = text.splitlines()
    number = rng.randrange(1, 12)
    broken = {
        "a tab": lambda: "\n".join([*lines[:number], "\t" + lines[number], *lines[number + 1 :]]).encode(),
        "no UTF-8": lambda: text.replace("text", "t\0xt", 1).encode().replace(b"\0", bytes([rng.randrange(128, 192)])),
        "a control byte": lambda: "\n".join([*lines[:number], lines[number] + chr(rng.randrange(0, 9))]).encode(),
        "an open bracket": lambda: "\n".join([*lines[:number], "extra: [1, {a: ", *lines[number:]]).encode(),
        "an open quote": lambda: "\n".join(
            [*lines[:number], f'extra{number}: "never closed', *lines[number:]]
        ).encode(),
        "cut in a line": lambda: ("\n".join(lines[:number]) + f"\nextra{number}: '").encode(),
        "a stray colon": lambda: "\n".join([*lines[:number], f"a{number}: b: c: d", *lines[number:]]).encode(),
        "an unknown anchor": lambda: "\n".join([*lines[:number], f"extra: *a{number}", *lines[number:]]).encode(),
    }
    name = rng.choice(list(broken))
    return Mutant(f"{name} at line {number}", broken[name](), None)


def fixed() -> list[Mutant]:
    """Files that no small change of a good one gives."""
    good = render(GOOD)[0]
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    maps = "m0: &m0 {x: 1}\n" + "".join(f"m{i}: &m{i} {{a: *m{i - 1}, b: *m{i - 1}}}\n" for i in range(1, 40))
    merged = "m0: &m0 {k0: 1}\n" + "".join(f"m{i}: &m{i}\n  <<: [*m{i - 1}, *m{i - 1}]\n" for i in range(1, 40))
    texts = {
        "empty": "",
        "spaces": "  \n\n",
        "only a comment": "# nothing\n",
        "a list": "- a\n- b\n",
        "a word": "study\n",
        "a number": "3\n",
        "two documents": good + "---\n" + good,
        "an alias bomb": bomb,
        "an alias bomb of mappings": maps,
        "an alias bomb of merge keys": merged,
        "an alias of itself": "name: &a [*a]\n",
        "deep lists": "name: " + "[" * 5_000 + "]" * 5_000 + "\n",
        "deeper lists": "[" * 400_000,
        "deep mappings": "".join(" " * i + f"k{i}:\n" for i in range(1_000)),
        "deep flow mappings": "{a: " * 20_000,
        "many keys": "".join(f"k{i}: {i}\n" for i in range(60_000)),
        "a key that is a list": "[a, b]: c\n",
        "a key that is a mapping": "{a: b}: c\n",
        "directives": "%YAML 9.9\n---\nname: x\n",
        "bell": "name: \a\n",
        "no float": "name: !!float x\n",
        "no int": "name: !!int ''\n",
        "no truth": "name: !!bool x\n",
        "no time": "name: !!timestamp x\n",
        "no such day": "name: 2020-99-99\n",
        "no binary": "name: !!binary x\n",
        "pairs": "name: !!pairs [a]\n",
        "a set": "name: !!set {[a]: b}\n",
        "nothing but a merge": "<<: 3\n",
    }
    made = [Mutant(name, text.encode(), None) for name, text in texts.items()]
    tags = ("!!python/object/apply:os.system [echo]", "!!python/object:os.PathLike {}", "!!python/name:os.system ''",
            "!!python/module:os ''", "!!python/object/new:tuple [[1]]", "!unknown {a: 1}")  # fmt: skip
    made += [Mutant(f"tag {tag}", good.replace("toy", tag, 1).encode(), {"name": 1}, (tag.split()[0],)) for tag in tags]
    strange = good.encode()
    made += [
        Mutant("UTF-16", good.encode("utf-16"), None, ("UTF-8",)),
        Mutant("UTF-16 without a mark", good.encode("utf-16-le"), None),
        Mutant("UTF-32", good.encode("utf-32"), None),
        Mutant("Latin-1", strange.replace(b"toy", b"t\xf6y"), None, ("0xf6", "UTF-8")),
        Mutant("a NUL byte", strange.replace(b"toy", b"t\0y"), None),
        Mutant("gzip", b"\x1f\x8b\x08\x00" + strange, None),
        Mutant("a mark in the middle", strange.replace(b"task", b"\xef\xbb\xbftask", 1), None),
    ]
    return made
