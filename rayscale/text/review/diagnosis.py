"""The data doctor: what is wrong with a study's text, before anything is spent; each finding with its fix.

It looks at the clean rows that a survey saw; of many rows the first ones by hash, which are a fair sample.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from rayscale.study.study import Study
from rayscale.system.disk import PRIVATE, write_file
from rayscale.system.doctor import Finding
from rayscale.system.groups import grouped
from rayscale.system.machine import cache_root
from rayscale.text.form import find_form
from rayscale.text.prepared import Prepared
from rayscale.text.review.encoding_faults import find_trouble
from rayscale.text.review.first_look import FIRST_LOOK_VERSION, FirstLook, look
from rayscale.text.review.survey import Survey
from rayscale.text.review.token_findings import LOOKED_AT, PREFIX, characters_of, of_tokenizers, some_texts
from rayscale.text.scripts import share_unspaced
from rayscale.text.tasks.entities import scheme_text
from rayscale.text.tasks.seq2seq import bleu_tokenizer
from rayscale.text.tokens.encode import TokenizerSpec

FEW_ROWS = 8  # of a class
UNEVEN = 20.0  # times that the largest class has the rows of the smallest
MANY_LEAKS = 0.01
MANY_GARBLED = 0.001
LITTLE_GAIN = 0.02
FEW_HELD_OUT = 100
_FOLDERS = re.compile(r"(?<!\S)\S*/")


def diagnose(
    study: Study, survey: Survey, specs: Sequence[TokenizerSpec], prepared: Mapping[str, Prepared]
) -> dict[str, Any]:
    """The `doctor` of plan.json: all findings, and the first look where there is enough text for one.

    `specs` are the study's tokenizers, `prepared` (by name) those whose tokens are there.
    """
    why_none = _why_no_look(study)
    curve = None if why_none else first_look(survey, study.task.type)
    findings = (
        *_rows(survey),
        *_labels(survey, study.task.type),
        *_scored(survey, study.task.type),
        _leaks(survey),
        _lengths(survey),
        _encoding(survey),
        *of_tokenizers(study, survey, specs, prepared),
        *_curve(curve, why_none),
    )
    return {"findings": [finding.to_json() for finding in findings], "first_look": curve and asdict(curve)}


def after_preparing(
    diagnosis: Mapping[str, Any],
    study: Study,
    survey: Survey,
    specs: Sequence[TokenizerSpec],
    prepared: Mapping[str, Prepared],
) -> dict[str, Any]:
    """A diagnosis of plan.json with its findings on tokens measured anew, now that every tokenizer is there."""
    other = [finding for finding in diagnosis["findings"] if not finding["name"].startswith(PREFIX)]
    measured = [finding.to_json() for finding in of_tokenizers(study, survey, specs, prepared)]
    return {**diagnosis, "findings": [*other, *measured]}


def first_look(survey: Survey, task: str) -> FirstLook | None:
    """The first look at these rows, None for tasks without a simple model; kept in the cache: it is paid for once."""
    mark = f"{survey.fingerprint}{'' if survey.exact else '-sample'}-{FIRST_LOOK_VERSION}"
    path = cache_root() / "first-looks" / f"{mark}.json"
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return saved and FirstLook(**{**saved, "sizes": tuple(saved["sizes"]), "losses": tuple(saved["losses"])})
    except (OSError, ValueError, TypeError, KeyError):  # not there, or cut off: looked at anew
        form = find_form(task)
        curve = look(survey.splits, len(survey.labels)) if form.one_class or form.packed else None
        write_file(path, json.dumps(curve and asdict(curve)).encode(), PRIVATE)
        return curve


def _rows(survey: Survey) -> Iterator[Finding]:
    counts = survey.counts
    dropped, read = counts["dropped"], max(1, counts["read"])
    lost = {reason: dropped[reason] for reason in ("bad_row", "empty", "duplicate")}
    more = counts["bad_row_lines"] - lost["bad_row"]  # that were read as parts of rows
    text = (
        f"{counts['read']:,} read, {lost['duplicate']:,} duplicates, {lost['empty']:,} without text, "
        f"{lost['bad_row']:,} unusable" + (f" ({counts['bad_row_lines']:,} lines)" if more else "")
    )
    many = sum(lost.values()) + more > 0.1 * (read + more)
    fix = "more than a tenth of the rows are lost: check their source"
    if more:
        several = next((line for line in survey.bad_rows if " lines" in line), "bad_rows.txt")
        fix += f", first at {_FOLDERS.sub('', several).partition(': ')[0]}"
    yield Finding("rows", "warn" if many else "ok", text, fix * many)
    if conflicts := counts["conflicting_labels"]:
        text = f"{conflicts:,} dropped duplicates have a different label from the row that was kept"
        yield Finding("contradictions", "warn", text, "choose one label for each text; no model can learn both")
    fewest = min(survey.rows_validation, survey.rows_test)
    if survey.labels and fewest < FEW_HELD_OUT:
        off = 1.96 * math.sqrt(0.16 / fewest)
        text = f"{survey.rows_validation:,} validation and {survey.rows_test:,} test rows"
        yield Finding("held-out rows", "warn", f"{text}: an accuracy of 0.8 is known only to within {off:.2f}",
                      "give a larger test file, or a larger fraction")  # fmt: skip


def _scored(survey: Survey, task: str) -> Iterator[Finding]:
    """By what BLEU and F1 count where text has no spaces; nothing where it is words, as usual."""
    if task not in ("seq2seq", "question-answering"):
        return
    texts = [str(text) for text in survey.splits["test"]["label"].slice(0, LOOKED_AT).to_pylist()]
    if task == "question-answering":
        answers = [answer for text in texts for answer, _ in json.loads(text)]
        if share_unspaced(answers) > 0:
            text = "F1 counts characters where text has no spaces between words, as CMRC 2018 and DRCD do"
            yield Finding("scores", "ok", text, "")
    elif (tokenizer := bleu_tokenizer(texts)) != "13a":
        yield Finding("scores", "ok", f"BLEU uses sacrebleu's tokenizer {tokenizer}, which suits the script", "")


def _labels(survey: Survey, task: str) -> Iterator[Finding]:
    form, named = find_form(task), len(survey.labels)
    if form.classes is None:
        return
    column = survey.splits["train"]["label"]
    if form.one_class:
        sizes = np.bincount(column.to_numpy(), minlength=named)
    else:
        counted = Counter(name for label in column.slice(0, LOOKED_AT).to_pylist() for name in form.classes(label))
        sizes = np.array([counted[name] for name in survey.labels])
    what = "training rows" if form.one_class else f"places in {min(LOOKED_AT, len(column)):,} training rows"
    low, high = int(sizes.argmin()), int(sizes.argmax())
    text = (
        f"{named} labels; '{_short(survey.labels[high])}' has {sizes[high]:,} {what} "
        f"({sizes[high] / sizes.sum():.2g} of them), '{_short(survey.labels[low])}' {sizes[low]:,}"
    )
    fixes = []
    if sizes[low] < FEW_ROWS:
        few = [survey.labels[place] for place in np.argsort(sizes, kind="stable") if sizes[place] < FEW_ROWS]
        shown = ", ".join(map(_short, few[:5])) + (", ..." if len(few) > 5 else "")
        fixes.append(f"give more rows of {shown}: {FEW_ROWS} or more are needed")
    if sizes[high] > UNEVEN * max(1, sizes[low]):
        fixes.append("judge by f1_macro (target: f1_macro), since accuracy hides rare labels")
    numbers = [name for name in survey.labels if name.removeprefix("-").isdecimal()]
    if numbers and len(numbers) < named:
        others = ", ".join(f"'{_short(name)}'" for name in survey.labels if name not in numbers)
        fixes.append(
            f"some labels are numbers and some are names ({others[:100]}): make them one kind unless that is intended"
        )
    if alike := _alike(dict(zip(survey.labels, sizes.tolist(), strict=True))):
        text += f"; identical except for case, spaces or invisible characters: {alike}"
        fixes.append("write each label in one way: these now count as different labels")
    if written := survey.counts["label_spellings"]:
        shown = ", ".join(
            f"{_exactly(raw)} ({number:,} rows) as {_exactly(label)}" for label, raw, number in written[:5]
        )
        text += f"; read without surrounding spaces: {shown}{', ...' * (len(written) > 5)}"
    yield Finding("labels", "warn" if fixes else "ok", text, "; ".join(fixes))
    if task == "token-classification":
        yield Finding("tags", "ok", scheme_text(survey.labels))


def _alike(sizes: Mapping[str, int]) -> str:
    """Labels that a person would take for the same, with their rows; empty if there are none."""
    shown = [
        " and ".join(f"{_exactly(name)} ({sizes[name]:,})" for name in names)
        for names in grouped((_folded(name), name) for name in sizes).values()
        if len(names) > 1
    ]
    return "; ".join(shown[:5]) + "; ..." * (len(shown) > 5)


def _folded(label: str) -> str:
    """What a person sees of a label: without case, width, blanks and what does not show."""
    plain = unicodedata.normalize("NFKC", label).casefold()
    return "".join(c for c in plain if not c.isspace() and unicodedata.category(c) not in ("Cf", "Cc", "Mn"))


def _exactly(label: str) -> str:
    """A label in quotes, with what does not show as its number."""
    shown = "".join(
        c if c == " " or (c.isprintable() and not unicodedata.combining(c)) else c.encode("unicode_escape").decode()
        for c in _short(label)
    )
    return f"'{shown}'"


def _leaks(survey: Survey) -> Finding:
    dropped = survey.counts["dropped"]
    exact = dropped["in_test"] + dropped["in_validation"]
    nearly = dropped.get("near_test", 0) + dropped.get("near_validation", 0)
    text = f"{exact:,} training rows duplicate a held-out row, {nearly:,} nearly do; all are left out"
    if survey.near_duplicates:
        text += f" ({_FOLDERS.sub('', survey.near_duplicates[0])})"
    many = exact + nearly > MANY_LEAKS * (survey.rows_train + exact + nearly)
    fix = "results that included them are too good; near_duplicates.txt of a run lists them"
    return Finding("leakage", "warn" if many else "ok", text, fix * many)


def _lengths(survey: Survey) -> Finding:
    lengths = np.array(characters_of(some_texts(survey, "train", 5 * LOOKED_AT)))
    low, middle, high = np.quantile(lengths, (0.05, 0.5, 0.95))
    text = f"half of the training texts have {middle:,.0f} characters or fewer, 90% {low:,.0f} to {high:,.0f}"
    return Finding("lengths", "ok", f"{text}; the longest has {lengths.max():,}")


def _encoding(survey: Survey) -> Finding:
    texts = some_texts(survey, "train", LOOKED_AT) + some_texts(survey, "test", LOOKED_AT // 4)
    signs = find_trouble(texts)
    if not signs:
        return Finding("encoding", "ok", f"no sign of wrong encoding in {len(texts):,} texts")
    many = any(sign.texts > max(2, MANY_GARBLED * len(texts)) for sign in signs)
    shown = "; ".join(f"{sign.kind} in {sign.texts:,} (such as {sign.example!r})" for sign in signs)
    by_kind = {
        "markup": "remove markup from the texts (html.unescape)",
        "control characters": "remove control characters",
    }
    rest = "export the file again with its true encoding; `ftfy` repairs text that is already mixed"
    fixes = dict.fromkeys(by_kind.get(sign.kind, rest) for sign in signs)
    return Finding("encoding", "warn" if many else "ok", f"of {len(texts):,} texts: {shown}", "; ".join(fixes) * many)


def _why_no_look(study: Study) -> str:
    """Why no simple model can say whether more of this text pays; empty where one can."""
    form = find_form(study.task.type)
    if not (form.one_class or form.packed):
        return "this task has no simple model"
    if study.task.text_pair is not None:
        return "word counts cannot tell how two texts relate"
    return ""


def _curve(curve: FirstLook | None, why_none: str) -> Iterator[Finding]:
    if curve is None:
        yield Finding("first look", "ok", f"none: {why_none or 'too little text'}")
        return
    pays = curve.fall > LITTLE_GAIN
    way, ends = ("falls", (curve.low, curve.high)) if curve.fall >= 0 else ("rises", (-curve.high, -curve.low))
    text = (
        f"{'more data pays' if pays else 'more data hardly pays'}: the loss of {curve.model} {way} "
        f"{abs(100 * curve.fall):.2g}% per doubling ({100 * ends[0]:.2g} to {100 * ends[1]:.2g}%), from "
        f"{curve.losses[0]:.3g} at {curve.sizes[0]:,} {curve.unit} to {curve.losses[-1]:.3g} at {curve.sizes[-1]:,}"
    )
    fix = "check labels and columns: a simple model learns nothing from more of this text"
    yield Finding("first look", "ok" if pays else "warn", text, "" if pays else fix)


def _short(text: str) -> str:
    return text if len(text) <= 30 else text[:27] + "..."
