"""The data doctor: what can be said of a study's text before anything is spent, each finding with its mend.

It looks at the clean rows that a survey saw; of many rows the first ones by hash, which are a fair sample. It needs
neither torch nor Ray.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rayscale.errors import DataError
from rayscale.study.checkpoints import read_tokenizer
from rayscale.system.disk import PRIVATE, write_file
from rayscale.system.doctor import Finding
from rayscale.system.machine import cache_root
from rayscale.text.form import find_form
from rayscale.text.review.encoding_faults import find_trouble
from rayscale.text.review.first_look import FIRST_LOOK_VERSION, FirstLook, look
from rayscale.text.scripts import share_unspaced, worth_in_letters
from rayscale.text.tasks.entities import scheme_text
from rayscale.text.tasks.seq2seq import bleu_tokenizer
from rayscale.text.tokens.encode import TokenizerSpec, letters_per_token, tokenizer_folder
from rayscale.text.tokens.token_files import training_texts
from rayscale.text.tokens.vocabulary import make_vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from rayscale.study.study import Study
    from rayscale.text.prepared import Prepared
    from rayscale.text.review.survey import Survey

LOOKED_AT = 20_000  # texts that are read for signs of wrong encoding
TOKENISED = 512  # texts that a tokenizer is tried on
MOST_LETTERS = 20_000  # of each of these
LITTLE_TEXT = 200_000  # bytes that a tokenizer is trained on in less than a second
FEW_ROWS = 8  # of a class
UNEVEN = 20.0  # times that the largest class has the rows of the smallest
MANY_LEAKS = 0.01
MANY_CUT = 0.05
MANY_GARBLED = 0.001
MANY_UNKNOWN = 0.01
MANY_UNSEEN = 0.05
FEW_LETTERS_A_PIECE = 2.0  # a Chinese sign counts as three
FEW_UNSPACED = 0.2
LITTLE_GAIN = 0.02
FEW_HELD_OUT = 100
_TOKENS = "tokens of "
_FOLDERS = re.compile(r"(?<!\S)\S*/")
_BYTE_PIECE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and the curve of the free first look where there is enough text for one."""

    findings: tuple[Finding, ...]
    first_look: FirstLook | None

    def to_json(self) -> dict[str, Any]:
        """The `doctor` of plan.json."""
        return {
            "findings": [finding.to_json() for finding in self.findings],
            "first_look": self.first_look.to_json() if self.first_look else None,
        }


def diagnose(
    study: Study, found: Survey, specs: Sequence[TokenizerSpec], prepared: Mapping[str, Prepared]
) -> Diagnosis:
    """Look at a study's text; `specs` are its tokenizers, `prepared` (by name) those whose tokens are there."""
    why_none = _why_no_look(study)
    seen = None if why_none else first_look(found, study.task.type)
    return Diagnosis(
        (
            *_rows(found),
            *_labels(found, study.task.type),
            *_scored(found, study.task.type),
            _leaks(found),
            _lengths(found),
            _encoding(found),
            *of_tokenizers(study, found, specs, prepared),
            *_curve(seen, why_none),
        ),
        seen,
    )


def after_preparing(
    told: Mapping[str, Any],
    study: Study,
    found: Survey,
    specs: Sequence[TokenizerSpec],
    prepared: Mapping[str, Prepared],
) -> dict[str, Any]:
    """A diagnosis of plan.json with its findings on tokens measured anew, now that every tokenizer is there."""
    other = [finding for finding in told["findings"] if not finding["name"].startswith(_TOKENS)]
    measured = [finding.to_json() for finding in of_tokenizers(study, found, specs, prepared)]
    return {**told, "findings": [*other, *measured]}


def first_look(found: Survey, task: str) -> FirstLook | None:
    """The first look at these rows, None for tasks without a simple model; kept in the cache: it is paid for once."""
    mark = f"{found.fingerprint}{'' if found.exact else '-sample'}-{FIRST_LOOK_VERSION}"
    path = cache_root() / "first-looks" / f"{mark}.json"
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return saved and FirstLook(**{**saved, "sizes": tuple(saved["sizes"]), "losses": tuple(saved["losses"])})
    except (OSError, ValueError, TypeError, KeyError):  # not there, or cut off: looked at anew
        form = find_form(task)
        seen = look(found.splits, len(found.labels)) if form.one_class or form.packed else None
        write_file(path, json.dumps(seen.to_json() if seen else None).encode(), PRIVATE)
        return seen


def _rows(found: Survey) -> Iterator[Finding]:
    counts = found.counts
    dropped, read = counts["dropped"], max(1, counts["read"])
    lost = {reason: dropped[reason] for reason in ("bad_row", "empty", "duplicate")}
    more = counts["bad_row_lines"] - lost["bad_row"]  # that were read as parts of rows
    text = (
        f"{counts['read']:,} read, {lost['duplicate']:,} duplicates, {lost['empty']:,} without text, "
        f"{lost['bad_row']:,} that cannot be used" + (f" ({counts['bad_row_lines']:,} lines)" if more else "")
    )
    many = sum(lost.values()) + more > 0.1 * (read + more)
    mend = "more than a tenth is lost: see where it comes from" + (f", first at {_first_bad(found)}" if more else "")
    yield Finding("rows", "warn" if many else "ok", text, mend * many)
    if conflicts := counts["conflicting_labels"]:
        text = f"{conflicts:,} of the dropped duplicates carry another label than the row that stayed"
        yield Finding("contradictions", "warn", text, "decide on one label for each text; no model can learn both")
    fewest = min(found.rows_validation, found.rows_test)
    if found.labels and fewest < FEW_HELD_OUT:
        off = 1.96 * math.sqrt(0.16 / fewest)
        text = f"{found.rows_validation:,} validation and {found.rows_test:,} test rows"
        yield Finding("held-out rows", "warn", f"{text}: an accuracy of 0.8 is known within {off:.2f}",
                      "give a larger test file, or a larger fraction")  # fmt: skip


def _first_bad(found: Survey) -> str:
    """Where the first of the rows is that take several lines."""
    several = (each for each in found.bad_rows if " lines" in each)
    return _FOLDERS.sub("", next(several, "bad_rows.txt")).partition(": ")[0]


def _scored(found: Survey, task: str) -> Iterator[Finding]:
    """By what BLEU and F1 count where text has no spaces; nothing where it is words, as usual."""
    if task not in ("seq2seq", "question-answering"):
        return
    texts = [str(text) for text in found.splits["test"]["label"].slice(0, LOOKED_AT).to_pylist()]
    if task == "question-answering":
        answers = [answer for text in texts for answer, _ in json.loads(text)]
        if share_unspaced(answers) > 0:
            told = "F1 counts characters where text has no spaces between words, as CMRC 2018 and DRCD do"
            yield Finding("scores", "ok", told, "")
    elif (tokenizer := bleu_tokenizer(texts)) != "13a":
        yield Finding("scores", "ok", f"BLEU is that of sacrebleu's tokenizer {tokenizer}, as its script asks for", "")


def _labels(found: Survey, task: str) -> Iterator[Finding]:
    form, named = find_form(task), len(found.labels)
    if form.classes is None:
        return
    column = found.splits["train"]["label"]
    if form.one_class:
        sizes = np.bincount(column.to_numpy(), minlength=named)
    else:
        counted = Counter(name for label in column.slice(0, LOOKED_AT).to_pylist() for name in form.classes(label))
        sizes = np.array([counted[name] for name in found.labels])
    what = "training rows" if form.one_class else f"places in {min(LOOKED_AT, len(column)):,} training rows"
    low, high = int(sizes.argmin()), int(sizes.argmax())
    text = (
        f"{named} labels; '{_short(found.labels[high])}' has {sizes[high]:,} {what} "
        f"({sizes[high] / sizes.sum():.2g} of them), '{_short(found.labels[low])}' {sizes[low]:,}"
    )
    mends = []
    if sizes[low] < FEW_ROWS:
        few = [found.labels[place] for place in np.argsort(sizes, kind="stable") if sizes[place] < FEW_ROWS]
        shown = ", ".join(map(_short, few[:5])) + (", ..." if len(few) > 5 else "")
        mends.append(f"give more rows of {shown}: {FEW_ROWS} or more can be learnt from")
    if sizes[high] > UNEVEN * max(1, sizes[low]):
        mends.append("judge by f1_macro (target: f1_macro), since accuracy hides the rare ones")
    numbers = [name for name in found.labels if name.removeprefix("-").isdecimal()]
    if numbers and len(numbers) < named:
        others = ", ".join(f"'{_short(name)}'" for name in found.labels if name not in numbers)
        mends.append(f"some labels are numbers and some are names ({others[:100]}): mend them if one was meant")
    if alike := _alike(dict(zip(found.labels, sizes.tolist(), strict=True))):
        text += f"; alike but for case, blanks or signs that do not show: {alike}"
        mends.append("write each label in one way: these count as different ones")
    if written := found.counts["label_spellings"]:
        shown = ", ".join(
            f"{_exactly(raw)} ({number:,} rows) as {_exactly(label)}" for label, raw, number in written[:5]
        )
        text += f"; read without their blanks: {shown}{', ...' * (len(written) > 5)}"
    yield Finding("labels", "warn" if mends else "ok", text, "; ".join(mends))
    if task == "token-classification":
        yield Finding("tags", "ok", scheme_text(found.labels))


def _alike(sizes: Mapping[str, int]) -> str:
    """Labels that a person would take for the same, with their rows; empty if there are none."""
    groups: dict[str, list[str]] = {}
    for name in sizes:
        groups.setdefault(_folded(name), []).append(name)
    shown = [
        " and ".join(f"{_exactly(name)} ({sizes[name]:,})" for name in names)
        for names in groups.values()
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


def _leaks(found: Survey) -> Finding:
    dropped = found.counts["dropped"]
    exact = dropped["in_test"] + dropped["in_validation"]
    nearly = dropped.get("near_test", 0) + dropped.get("near_validation", 0)
    text = f"{exact:,} training rows are a held-out text, {nearly:,} nearly one; all are kept out"
    if found.near_duplicates:
        text += f" ({_FOLDERS.sub('', found.near_duplicates[0])})"
    many = exact + nearly > MANY_LEAKS * (found.rows_train + exact + nearly)
    mend = "results on this split that did not leave them out were too good; near_duplicates.txt of a run lists them"
    return Finding("leakage", "warn" if many else "ok", text, mend * many)


def _lengths(found: Survey) -> Finding:
    lengths = np.array(_characters(_some(found, "train", 5 * LOOKED_AT)))
    low, middle, high = np.quantile(lengths, (0.05, 0.5, 0.95))
    text = f"half of the training texts have {middle:,.0f} characters or fewer, 90% {low:,.0f} to {high:,.0f}"
    return Finding("lengths", "ok", f"{text}; the longest has {lengths.max():,}")


def _characters(texts: Sequence[str]) -> list[int]:
    """Characters of each text; where words have no spaces, the ones between tokens or words do not count."""
    if share_unspaced(texts[:LOOKED_AT]) < FEW_UNSPACED:
        return [len(text) for text in texts]
    return [sum(map(len, text.split())) for text in texts]


def _encoding(found: Survey) -> Finding:
    texts = _some(found, "train", LOOKED_AT) + _some(found, "test", LOOKED_AT // 4)
    signs = find_trouble(texts)
    if not signs:
        return Finding("encoding", "ok", f"no sign of trouble in {len(texts):,} texts")
    many = any(sign.texts > max(2, MANY_GARBLED * len(texts)) for sign in signs)
    said = "; ".join(f"{sign.kind} in {sign.texts:,} (such as {sign.example!r})" for sign in signs)
    mends = {
        "markup": "take markup out of the texts (html.unescape)",
        "control characters": "take control characters out",
    }
    rest = "write the file again from its source, read in the encoding it has; what is mixed already, `ftfy` mends"
    told = dict.fromkeys(mends.get(sign.kind, rest) for sign in signs)
    return Finding("encoding", "warn" if many else "ok", f"of {len(texts):,} texts: {said}", "; ".join(told) * many)


def of_tokenizers(
    study: Study, found: Survey, specs: Sequence[TokenizerSpec], prepared: Mapping[str, Prepared]
) -> Iterator[Finding]:
    """How each tokenizer takes the training texts: tokens, share cut off, how well its vocabulary covers them."""
    form = find_form(study.task.type)
    texts = {
        name: [" ".join(form.texts(text))[:MOST_LETTERS] for text in _some(found, name, TOKENISED)]
        for name in found.splits
    }
    limit = None if form.packed or study.task.kind.windowed else study.task.length
    for spec in dict.fromkeys(specs):
        ready = prepared.get(spec.name)
        try:
            folder = ready.tokenizer_folder if ready else tokenizer_folder(spec) if spec.kind == "pretrained" else None
        except DataError:
            folder = None  # of the hub, not fetched yet
        if folder is not None:
            yield _measured(spec, read_tokenizer(folder)[0], texts, limit, ready)
        elif (trained := _trained(spec, found, study)) is not None:
            yield _measured(spec, trained, texts, limit, None)
        else:
            yield _expected(spec, texts["train"], limit)


def _trained(spec: TokenizerSpec, found: Survey, study: Study) -> Tokenizer | None:
    """The tokenizer that preparing will train, where there is so little text that this takes no time; else None."""
    if spec.kind != "trained" or not found.exact or found.bytes["train"] > LITTLE_TEXT:
        return None
    try:
        return make_vocabulary(
            spec, training_texts(found.splits["train"], study.task.type), study.task.type, study.task.length
        ).tokenizer
    except DataError:  # too small a vocabulary: preparing tells it
        return None


def _expected(spec: TokenizerSpec, texts: Sequence[str], limit: int | None) -> Finding:
    """A tokenizer that is not there yet, by the length of the texts: a guess, right for running text."""
    letters = np.array([len(text) for text in texts]) * worth_in_letters(texts)
    lengths = letters / letters_per_token(spec.vocabulary or 30_000)
    text = f"about {np.median(lengths):,.0f} tokens a text (median), by its length"
    if limit is None:
        return Finding(f"{_TOKENS}{spec.name}", "ok", text)
    cut = float((lengths + 2 > limit).mean())
    mend = f"raise task.max_length to about {_round_up(np.quantile(lengths, 0.99) + 2)}" if cut > MANY_CUT else ""
    text += f"; about {cut:.2g} of the texts are longer than {limit} and will be cut"
    return Finding(f"{_TOKENS}{spec.name}", "warn" if mend else "ok", text, mend)


def _measured(
    spec: TokenizerSpec, tokenizer: Tokenizer, texts: Mapping[str, Sequence[str]], limit: int | None,
    ready: Prepared | None,
) -> Finding:  # fmt: skip
    """What a tokenizer makes of the `texts` of each split; lengths are those of the training texts."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = {
        name: [each.ids for each in tokenizer.encode_batch_fast(list(some), add_special_tokens=False)]
        for name, some in texts.items()
    }
    train = texts["train"]
    lengths = np.array([len(each) for each in ids["train"]])
    special = tokenizer.num_special_tokens_to_add(is_pair=False)
    a_piece = sum(_characters(train)) / max(1, lengths.sum())
    letters = sum(map(len, train)) * worth_in_letters(train) / max(1, lengths.sum())
    text = f"{np.median(lengths):,.0f} tokens a text (median), "
    if share_unspaced(train) < FEW_UNSPACED:  # a word has no end to see, otherwise
        text += f"{lengths.sum() / max(1, sum(len(text.split()) for text in train)):.2f} a word, "
    text += f"{a_piece:.2g} {'character' if f'{a_piece:.2g}' == '1' else 'characters'} each"
    named = {number for name in ("[UNK]", "<unk>") if (number := tokenizer.token_to_id(name)) is not None}
    fallback = {number for piece, number in tokenizer.get_vocab().items() if _BYTE_PIECE.fullmatch(piece)}
    strange = unseen = 0.0
    for what, chosen in (("unknown", named), *([("single bytes", fallback)] if fallback else [])):
        shares = {name: _share(some, chosen) for name, some in ids.items() if some}
        strange, unseen = strange + shares["train"], unseen + max(shares.values())
        told = ", ".join(f"{share:.2g} of {name}" for name, share in shares.items())
        text += f"; {what}: {told}" if any(shares.values()) else f"; none {what}"
    mends = []
    if limit is not None:
        whole = ready.manifest["splits"]["train"] if ready else {}
        cut = float(whole.get("truncated_share", (lengths + special > limit).mean()))
        text += f"; {cut:.2g} of the texts are longer than {limit} and {'are' if ready else 'will be'} cut"
        if cut > MANY_CUT:
            mends.append(f"raise task.max_length to about {_round_up(np.quantile(lengths, 0.99) + special)}")
    if strange > MANY_UNKNOWN or letters < FEW_LETTERS_A_PIECE:
        mends.append("its vocabulary does not suit this text: a checkpoint of the text's language and field, or models "
                     "from scratch with a larger vocabulary, would read it better")  # fmt: skip
    elif unseen > MANY_UNSEEN:
        mends.append("held-out texts have characters that the training texts lack: see whether they are of one source")
    return Finding(f"{_TOKENS}{spec.name}", "warn" if mends else "ok", text, "; ".join(mends))


def _why_no_look(study: Study) -> str:
    """Why no simple model can say whether more of this text pays; empty where one can."""
    form = find_form(study.task.type)
    if not (form.one_class or form.packed):
        return "there is no simple model for this task"
    if study.task.text_pair is not None:
        return "counts of words do not say how two texts go together"
    return ""


def _curve(seen: FirstLook | None, why_none: str) -> Iterator[Finding]:
    if seen is None:
        yield Finding("first look", "ok", f"none: {why_none or 'too little text'}")
        return
    pays = seen.fall > LITTLE_GAIN
    way, ends = ("falls", (seen.low, seen.high)) if seen.fall >= 0 else ("rises", (-seen.high, -seen.low))
    text = (
        f"{'more data pays' if pays else 'more data hardly pays'}: the loss of {seen.model} {way} "
        f"{abs(100 * seen.fall):.2g}% per doubling ({100 * ends[0]:.2g} to {100 * ends[1]:.2g}%), from "
        f"{seen.losses[0]:.3g} at {seen.sizes[0]:,} {seen.unit} to {seen.losses[-1]:.3g} at {seen.sizes[-1]:,}"
    )
    mend = "look at labels and columns: a simple model learns nothing more from more of this text"
    yield Finding("first look", "ok" if pays else "warn", text, "" if pays else mend)


def _some(found: Survey, split: str, most: int) -> list[str]:
    return found.splits[split]["text"].slice(0, most).to_pylist()


def _share(texts: Sequence[Sequence[int]], chosen: set[int]) -> float:
    """Share of the pieces of these texts that are among the chosen ones."""
    return sum(number in chosen for ids in texts for number in ids) / max(1, sum(map(len, texts)))


def _round_up(length: float) -> int:
    return 32 * math.ceil(length / 32)


def _short(text: str) -> str:
    return text if len(text) <= 30 else text[:27] + "..."
