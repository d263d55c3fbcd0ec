"""A trial on a checkpoint from the study's file to the kept model, and what that model says to those who load it by
transformers alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from made_architectures import ADDED, EOS, HEADS, WORDS, WRITERS, Case, save_checkpoint
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from rayscale.nn.training.train import train_trial
from rayscale.plan import heads
from rayscale.plan.estimate import Supply
from rayscale.plan.plan import _parameters, make_plan, model_specs
from rayscale.study.checkpoints import read_config
from rayscale.study.study import load_study
from rayscale.system.machine import Machine
from rayscale.text.preparation import Here, prepare
from rayscale.text.tokens.encode import spec_of

LABELS = ("cat", "dog", "owl")
LENGTH = 24
COUNTS = {"train": 60, "validation": 10, "test": 14}
COLUMNS = {
    "sequence-classification": "text: text, label: label",
    "multi-label": "text: text, labels: labels",
    "token-classification": "tokens: tokens, tags: tags",
    "question-answering": "question: question, context: context, answers: answers",
    "seq2seq": "source: source, target: target",
    "causal-lm": "text: text",
}


@dataclass(frozen=True)
class Outcome:
    """`planned` and `built` are all parameters and those without embedding tables; `plain` are the kept model's losses
    row by row, and in one padded batch where its tokenizer pads."""

    planned: tuple[int, int]
    built: tuple[int, int]
    record: float
    plain: dict[str, float]
    config: Any

    @property
    def difference(self) -> float:
        """The largest of the plain losses from the record, relative to it."""
        return max(abs(loss - self.record) / self.record for loss in self.plain.values())


def rows_of(task: str, split: str) -> list[dict[str, Any]]:
    """Rows of a task, the same at each call; of several lengths."""
    draw = np.random.default_rng([len(task), len(split), 5])
    found: list[dict[str, Any]] = []
    for number in range(COUNTS[split]):
        words = [str(word) for word in draw.choice(WORDS[9:], draw.integers(3, 11))]
        words[-1] = ADDED if number % 4 == 0 else words[-1]
        label = int(draw.integers(3))
        words[0] = WORDS[3 * label + int(draw.integers(3))]
        text = " ".join(words)
        place = int(draw.integers(len(words)))
        found.append(
            {
                "sequence-classification": {"text": text, "label": LABELS[label]},
                "multi-label": {"text": text, "labels": ",".join(LABELS[: label + 1])},
                "token-classification": {"tokens": words, "tags": [("O", "B-X", "B-Y")[len(w) % 3] for w in words]},
                "question-answering": {
                    "question": f"{words[0]} w{number % 40} {split[0]} {number}",
                    "context": text,
                    "answers": {"text": [words[place]], "answer_start": [len(" ".join(["", *words[:place]]))]},
                },
                "seq2seq": {"source": text, "target": " ".join(words[:3])},
                "causal-lm": {"text": text},
            }[task]
        )
    return found


def write_study(folder: Path, case: Case, checkpoint: Path) -> Path:
    """The study of one trial, beside its data."""
    for split in COUNTS:
        rows = "".join(json.dumps(row) + "\n" for row in rows_of(case.task, split))
        (folder / f"{split}.jsonl").write_text(rows)
    size = "tokens: [240]" if case.task == "causal-lm" else "examples: [48]"
    cut = f", layers: [{case.layers}]" if case.layers else ""
    path = folder / "study.yaml"
    path.write_text(
        f"name: matrix\ntask: {{type: {case.task}, {COLUMNS[case.task]}, max_length: {LENGTH}}}\n"
        "data: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl, near_duplicates: null}\n"
        f"models:\n  - {{pretrained: {checkpoint}{cut}}}\n"
        f"grid: {{{size}, gpus: [1]}}\n"
        "training: {epochs: 1, learning_rate: 2e-3, global_batch: 8}\nrun: {accelerator: cpu}\n"
    )
    return path


def try_case(case: Case, folder: Path) -> Outcome:
    """Plan, prepare, train, keep, load plainly. Raises what the plan refuses."""
    checkpoint = save_checkpoint(case, folder / "checkpoint")
    study = load_study(write_study(folder, case, checkpoint))
    specs = model_specs(study)
    labels = 0 if case.task in (*WRITERS, "question-answering") else len(LABELS)
    supply = Supply("f", COUNTS["train"], 8.0, labels, train_tokens=400.0, held_out_tokens=60.0)
    (planned,) = make_plan(study, Machine("cpu", 1, "a processor", "this machine"), supply, specs=specs).trials
    (prepared,) = prepare(study, [spec_of(specs[0])], [0], Here()).values()
    heads.check_positions(str(checkpoint), read_config(checkpoint), LENGTH)
    kept = folder / "kept"
    result = train_trial(planned.trial, prepared, checkpoint=str(checkpoint), save_to=kept)
    assert result["status"] == "ok", result["error"]
    model = HEADS[case.task].from_pretrained(kept).eval()
    return Outcome(
        _parameters(specs[0], study, labels)[:2],
        (result["params"], result["params_non_embedding"]),
        result["eval_loss"],
        plain_losses(case.task, model, kept, prepared),
        model.config,
    )


@torch.no_grad()
def plain_losses(task: str, model: Any, kept: Path, prepared: Any) -> dict[str, float]:
    """See `Outcome`; of language models that of the windows, which no tokenizer makes."""
    if task == "causal-lm":
        model.config.use_cache = False  # it asks for a layer of attention, which some tiny ones lack
        check_causal(model)
        split = prepared.split("test")
        windows = torch.tensor(np.array(split.rows(range(len(split)))), dtype=torch.long)
        return {"windows": float(model(input_ids=windows, labels=windows).loss)}
    kind = model.config.model_type
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        kept, padding_side="left" if kind in heads.PADDED_LEFT else "right"
    )
    rows = rows_of(task, "test")
    singles = [_summed(task, model, tokenizer, [row]) for row in rows]
    found = {"single": sum(loss for loss, _ in singles) / sum(count for _, count in singles)}
    if tokenizer.pad_token_id is not None and kind not in heads.READS_PADDING:
        loss, count = _summed(task, model, tokenizer, rows)
        found["batch"] = loss / count
    return found


def check_causal(model: Any) -> None:
    """No token has a say in what stands before it."""
    ids = torch.arange(6, 6 + LENGTH)[None]
    other = ids.clone()
    other[0, LENGTH // 2 :] = EOS
    one, two = (model(input_ids=each).logits[0, : LENGTH // 2] for each in (ids, other))
    assert torch.allclose(one, two, atol=1e-5), "it was given the words that it is to predict"


def _summed(task: str, model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> tuple[float, int]:
    """(summed loss, targets) of one batch."""
    columns = {
        "question-answering": ("question", "context"),
        "seq2seq": ("source",),
        "token-classification": ("tokens",),
    }
    given = [[row[column] for row in rows] for column in columns.get(task, ("text",))]
    if task == "token-classification":  # as they are trained: a text, so that bytes see the spaces between words
        given = [[" ".join(tokens) for tokens in given[0]]]
    inputs = tokenizer(
        *given,
        return_tensors="pt",
        padding=len(rows) > 1,
        truncation=True,
        return_token_type_ids=(getattr(model.config, "type_vocab_size", 0) or 0) > 1,
    )
    names = model.config.label2id
    if task == "question-answering":
        found, total = model(**inputs), 0.0
        for at, row in enumerate(rows):
            place = inputs.char_to_token(at, row["answers"]["answer_start"][0], sequence_index=1)
            for logits in (found.start_logits[at], found.end_logits[at]):
                real = logits.masked_fill(inputs["attention_mask"][at] == 0, -torch.inf)
                total += float(cross_entropy(real[None], torch.tensor([place]))) / 2
        return total, len(rows)
    if task == "seq2seq":
        targets = [tokenizer(row["target"])["input_ids"] for row in rows]
        longest = max(map(len, targets))
        wanted = torch.tensor([ids + [-100] * (longest - len(ids)) for ids in targets])
        told = {"labels": wanted}
        if model.config.model_type == "fsmt":  # its labels alone would not be read
            told = {"decoder_input_ids": model.prepare_decoder_input_ids_from_labels(wanted.clone())}
        logits = model(**inputs, **told).logits
    elif task == "token-classification":
        wanted = torch.full(inputs["input_ids"].shape, -100)
        for at, row in enumerate(rows):
            start = 0
            for word, tag in zip(row["tokens"], row["tags"], strict=True):
                if (place := inputs.char_to_token(at, start)) is not None:  # its first piece, if it was not cut
                    wanted[at, place] = names[tag]
                start += len(word) + 1
        logits = model(**inputs).logits
    elif task == "multi-label":
        borne = torch.tensor([[float(label in row["labels"].split(",")) for label in names] for row in rows])
        return float(binary_cross_entropy_with_logits(model(**inputs).logits, borne, reduction="sum")), len(rows)
    else:
        wanted = torch.tensor([names[row["label"]] for row in rows])
        told = model(**inputs, labels=wanted)
        assert abs(float(told.loss) - float(cross_entropy(told.logits, wanted))) < 1e-5, "a loss of another problem"
        logits = told.logits
    loss = cross_entropy(logits.flatten(0, -2), wanted.flatten(), ignore_index=-100, reduction="sum")
    return float(loss), int((wanted != -100).sum())
