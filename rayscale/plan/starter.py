"""`rayscale init`: a commented study file that fits the user's data, to be read and changed."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from rayscale.errors import InputError
from rayscale.report.numbers import plural
from rayscale.study.encoding_names import UTF_8, canonical
from rayscale.study.study import Data, Grid, Ladder, Study, Task
from rayscale.study.tasks import KINDS, Kind
from rayscale.system.names import as_name
from rayscale.system.storage import Store
from rayscale.text.review.survey import Survey, survey
from rayscale.text.scripts import script_shares, shares_of
from rayscale.text.sources.columns import SampleTable, read_table
from rayscale.text.sources.opening import ending
from rayscale.text.sources.readers import other_separator
from rayscale.text.tokens.encode import TokenizerSpec
from rayscale.text.tokens.token_files import training_texts
from rayscale.text.tokens.vocabulary import make_vocabulary
from rayscale.text.tokens.wordpiece import entries_for

VOCABULARIES = (2048, 4096, 8192, 16_384, 32_768)
PIECES = 1000  # of words, beside the characters
#: Checkpoints to name as an example, by what the text is written in.
CHECKPOINTS = {
    "bert": (
        ("latin", "sentence-transformers/all-MiniLM-L6-v2, layers: [1, 2, 3, 6]"),
        ("han", "google-bert/bert-base-chinese, layers: [2, 4, 8, 12]"),
        ("", "FacebookAI/xlm-roberta-base, layers: [2, 4, 8, 12]"),
    ),
    "gpt2": (
        ("latin", "openai-community/gpt2, layers: [2, 4, 8, 12]"),
        ("", "Qwen/Qwen2.5-0.5B, layers: [4, 8, 16, 24]"),
    ),
    "t5": (("latin", "google-t5/t5-small"), ("", "google/mt5-small")),
}
COUNTED_CHARACTERS = 1_000_000  # a tokenizer learns and reads these in a few seconds
STEPS = (8, 4, 2, 1)  # the largest data size over each of the others
#: The largest size offered: with three small models it trains on a laptop in an hour or so.
MOST = {"examples": 16_000, "tokens": 400_000}
LEAST = {"examples": 8, "tokens": 8 * 64}  # a row, or a window, at the smallest size
BUILT_IN = ("sequence-classification", "causal-lm")  # what the built-in corpus serves

#: Global batch and epochs of a classification, the cheapest first.
PACES = ((32, 3), (16, 3), (8, 3), (8, 6), (8, 12))
STEPS_PER_CLASS, LEAST_STEPS = 5, 90


@dataclass(frozen=True)
class Chosen:
    """What the study file will say of the data. `sizes` are on the data axis, ascending."""

    task: str
    columns: dict[str, str]  # by the key of the study's task
    sizes: tuple[int, ...]
    remark: str  # beside the sizes: what there is
    bad_rows: tuple[str, ...] = ()
    conll: bool = False
    classes: int = 0
    vocabulary: int = VOCABULARIES[0]
    script: str = "latin"
    encoding: str | None = None

    @property
    def batch_and_epochs(self) -> tuple[int, int]:
        """The first of PACES that gives the smallest size STEPS_PER_CLASS steps for each class, LEAST_STEPS at least.

        Fewer leave a classifier from scratch on a plateau where it guesses: of 77 classes and 1,000 examples 96 steps
        do (a test loss of 4.06 to 4.33, guessing 4.34), 378 and 750 do not (2.8 to 2.9, and 2.6 to 3.1).
        """
        if self.task != "sequence-classification":
            return 32, KINDS[self.task].epochs
        wanted = max(LEAST_STEPS, STEPS_PER_CLASS * self.classes)
        able = (pace for pace in PACES if pace[1] * -(-self.sizes[0] // pace[0]) >= wanted)
        return next(able, PACES[-1])


def write_starter(task: str | None, data: Path | None, out: Path, encoding: str | None = None) -> dict[str, Any]:
    """Write a study file; returns what was chosen. `task` and columns are guessed from `data` where not given.

    Raises InputError: `out` exists, `data` cannot be read or is too little, an unknown task or encoding.
    """
    if out.exists():
        raise InputError(f"{out} exists; give another name with --out", code="file_exists", where="--out")
    if task is not None and task not in KINDS:
        raise InputError(f"found '{task}'; use one of {', '.join(KINDS)}", code="unknown_task", where="--task")
    try:
        canonical(UTF_8 if encoding is None else encoding)
    except LookupError:
        text = f"'{encoding}' is not a text encoding; use gb18030, big5, shift_jis, windows-1252, ..."
        raise InputError(text, code="unknown_encoding", where="--encoding") from None
    chosen = _of_file(task, data, encoding) if data else _built_in(task or BUILT_IN[0])
    Store.open(out.absolute().parent).write(out.name, _page(chosen, data, out).encode())
    written = {"study": str(out), "task": chosen.task, **chosen.columns}
    return {**written, "encoding": encoding} if encoding else written


def _built_in(task: str) -> Chosen:
    if task not in BUILT_IN:
        raise InputError(f"the built-in corpus is for {' and '.join(BUILT_IN)}; for {task} give --data FILE",
                         code="no_data", where="--data")  # fmt: skip
    kind = KINDS[task]
    top = 8000 if kind.axis == "examples" else MOST["tokens"]
    return Chosen(task, {key: key for key in _keys(kind)}, _sizes(top), "of the built-in corpus")


def _of_file(task: str | None, data: Path, encoding: str | None) -> Chosen:
    if not data.is_file():
        raise InputError(f"no such file: {data}", code="missing_file", where="--data")
    table = read_table(data, canonical(encoding or UTF_8))
    if table is not None and (separator := other_separator([*table.columns])):
        text = f"its columns look separated by {separator}; save the file with commas (csv) or tabs (tsv)"
        raise InputError(text, code="wrong_separator", where=f"{data}:1")
    task = task or _guess(table, data)
    kind = KINDS[task]
    conll = table is None and task == "token-classification"
    columns = {key: key for key in _keys(kind)} if table is None else _columns(table, data, kind)
    texts = _survey(kind, columns, data, "conll" if conll else None, encoding)
    vocabulary = _vocabulary(kind.families[0], texts, kind.name)
    of_tokens = kind.axis == "tokens"
    unit = "tokens" if of_tokens else "rows"
    there = _count_tokens(texts, kind, vocabulary) if of_tokens else texts.rows_train
    remark = f"of {there:,} training {unit}"
    if of_tokens or not texts.exact:  # of a sample
        remark = f"of about {_rounded(there):,} training {unit}"
        there = int(0.9 * there)
    if there < (least := LEAST[kind.axis]):
        text = f"{data} leaves {there} {unit} to train on; {least} are the least for a study"
        raise InputError(text, code="too_little_data", where="--data")
    sizes = _sizes(min(there, MOST[kind.axis]))
    script = _script(texts)
    return Chosen(task, columns, sizes, remark, texts.bad_rows, conll, len(texts.labels), vocabulary, script, encoding)


def _count_tokens(survey: Survey, kind: Kind, vocabulary: int) -> int:
    """About how many tokens the training rows have: a tokenizer of this size is trained on some of them and counts."""
    texts, characters = [], 0
    for batch in training_texts(survey.splits["train"], kind.name):
        texts.append(batch)
        characters += sum(map(len, batch))
        if characters >= COUNTED_CHARACTERS:
            break
    spec = TokenizerSpec("trained", family=kind.families[0], vocabulary=vocabulary)
    tokenizer = make_vocabulary(spec, texts, kind.name, kind.length).tokenizer
    tokens = sum(len(encoding.ids) for batch in texts for encoding in tokenizer.encode_batch_fast(batch))
    return int(survey.characters_train * tokens / max(1, characters))


def _script(texts: Survey) -> str:
    """In which the training texts are written; "latin" where nothing else prevails."""
    shares = script_shares(texts.splits["train"]["text"].slice(0, 1024).to_pylist())
    most = max(shares, key=lambda script: shares[script], default="latin")
    return "kana" if most == "han" and shares.get("kana", 0.0) > 0.05 else most


def _vocabulary(family: str, texts: Survey, task: str) -> int:
    """The first of VOCABULARIES that holds the characters of the text and leaves room for pieces of words."""
    letters = Counter(chain.from_iterable(chain.from_iterable(training_texts(texts.splits["train"], task))))
    if family == "bert":  # its alphabet; a Han character has no pieces
        needed = entries_for(letters) + PIECES * (1 - shares_of(letters).get("han", 0.0))
    else:  # byte by byte: an entry for each byte, and for what joins the bytes of a character
        needed = 256 + sum(not letter.isascii() for letter in letters) + PIECES
    return next((size for size in VOCABULARIES if size >= needed), VOCABULARIES[-1])


def _guess(table: SampleTable | None, data: Path) -> str:
    """The task that a file is likely meant for."""
    if table is None:
        return "token-classification" if ending(data) in (".conll", ".iob") else "causal-lm"
    if all(key in table.columns for key in ("question", "context", "answers")):
        return "question-answering"
    return "token-classification" if table.named("tokens") and table.named("tags") else "sequence-classification"


def _keys(kind: Kind) -> tuple[str, ...]:
    return tuple(key for key in kind.columns if key not in kind.optional)


def _columns(table: SampleTable, data: Path, kind: Kind) -> dict[str, str]:
    if kind.columns[0] != "text" or kind.labels not in ("label", None):
        columns = {key: table.text() if key == "text" else table.named(key) for key in _keys(kind)}
        for key in (key for key, column in columns.items() if column is None):
            known = ", ".join(f"'{name}'" for name in table.columns)
            problem = f"{data} has no column that looks like {key} by its name (found: {known}); call it '{key}'"
            raise InputError(problem, code="missing_column", where="--data")
        return {key: str(column) for key, column in columns.items()}
    pair = table.pair() if kind.labels else None
    text = pair[0] if pair else table.text()
    if kind.labels is None:
        return {"text": text}
    label = table.label(text)
    if label is None:
        problem = f"{data} has no column other than '{text}' that could be a label: two values or more, and not a new"
        fix = "for plain text use --task causal-lm"
        raise InputError(f"{problem} one on every second row; {fix}", code="no_label", where="--data")
    return {"text": text, **({"text_pair": pair[1]} if pair else {}), "label": label}


def _survey(kind: Kind, columns: dict[str, str], data: Path, form: str | None, encoding: str | None) -> Survey:
    """What the text offers once it is clean and split; rows that cannot be used are passed over and listed."""
    study = Study(
        name="starter",
        task=Task.model_validate({"type": kind.name, **columns}),
        data=Data(train=str(data.absolute()), on_bad_row="skip", format=form, encoding=encoding),
        models=(Ladder(family=kind.families[0], sizes=("1x32",), vocabulary=VOCABULARIES[0]),),  # type: ignore[arg-type]
        grid=Grid(tokens=(64,)) if kind.axis == "tokens" else Grid(examples=(1,)),
    )
    return survey(study)


def _sizes(top: int) -> tuple[int, ...]:
    """Four sizes up to `top`, each twice the one before."""
    smallest = _rounded(top // STEPS[0])
    return tuple(smallest * STEPS[0] // step for step in STEPS)


def _rounded(number: int) -> int:
    """Down to two digits."""
    digit = 10 ** max(0, len(str(number)) - 2)
    return number // digit * digit


def _page(chosen: Chosen, data: Path | None, out: Path) -> str:
    train = "builtin" if data is None else _relative(data, out)
    sizes = f"[{', '.join(map(str, chosen.sizes))}]"
    kind = KINDS[chosen.task]
    named = "".join(f", {key}: {_quoted(column)}" for key, column in chosen.columns.items())
    task = f"{{type: {kind.name}{named}}}"
    if kind.axis == "tokens":
        task = f"{task[:-1]}, max_length: {kind.length}}}   # max_length: tokens per window"
    family = kind.families[0]
    batch, epochs = chosen.batch_and_epochs
    few = epochs * -(-chosen.sizes[0] // batch)
    enough = f"   # {few:,} steps at the smallest size; with too few a model only guesses" if chosen.classes else ""
    checkpoint = next(name for script, name in CHECKPOINTS[family] if script in ("", chosen.script))
    more = []
    if chosen.conll:
        more.append("format: conll      # a token first, its tag last in each line, a blank line after each sentence")
    if chosen.encoding:
        more.append(f"encoding: {_quoted(chosen.encoding)}")
    if chosen.bad_rows:
        rows, first = plural(len(chosen.bad_rows), "row"), chosen.bad_rows[0].replace("\n", " ")
        more.append(f"# {rows} cannot be used; error instead of skip refuses them. The first:")
        more += [f"# {first}", "on_bad_row: skip"]
    data_lines = "".join(f"\n  {line}" for line in more)
    many = "   # it has room for the characters of the text" * (chosen.vocabulary > VOCABULARIES[0])
    return f"""\
# A study for rayscale. Next: rayscale plan {out.name}, then rayscale run {out.name}
name: {_named(out.stem if out.stem != "study" or data is None else data.stem)}
task: {task}
data:
  train: {_quoted(train)}    # csv, tsv, jsonl, parquet, txt, also .gz; globs; relative to this file
  test: null              # a file, or a share of train is kept out:
  test_fraction: 0.1
  validation_fraction: 0.1{data_lines}
models:                   # at least two sizes, eight times apart, so that a law in size can be fitted
  # from scratch, layers x width:
  - {{family: {family}, sizes: [1x32, 2x64, 3x128], vocabulary: {chosen.vocabulary}}}{many}
  # a checkpoint, by folder or hub id, whole and cut to its first layers:
  # - {{pretrained: {checkpoint}}}
  # the same with its weights frozen, with adapters added (pip install 'rayscale[lora]'):
  # - {{pretrained: {checkpoint}, lora: {{rank: 8}}}}
grid:
  # {chosen.remark}; four sizes or more: the largest is held out to check the fit
  {kind.axis}: {sizes}
  gpus: [1]               # [1, 2] also measures the effect of a second GPU
  seeds: 2
training: {{epochs: {epochs}, global_batch: {batch}, learning_rate: auto}}{enough}
target: eval_loss         # or {{metric: {kind.aim}, reach: ...}}
# prices: {{gpu_hour: 2.5, currency: USD}}
# budget: {{gpu_hours: 2}}
"""


def _relative(data: Path, out: Path) -> str:
    try:
        return str(data.resolve().relative_to(out.resolve().parent))
    except ValueError:
        return str(data.resolve())


def _quoted(text: str) -> str:
    """The text as YAML reads it back: in single quotes unless it is one plain word."""
    if re.fullmatch(r"[^\W\d_/][\w./-]*|/[\w./-]*", text) and text.lower() not in _NO_TEXT:
        return text
    return "'" + text.replace("'", "''") + "'"


#: Words that YAML does not read as text.
_NO_TEXT = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))


def _named(stem: str) -> str:
    """A name for the study, after a file."""
    name = as_name(stem, "-")
    return _quoted(name if re.search(r"[^\W_]", name) else "study")
