"""The augmenters that run models, as far as a plan needs them: settings, checks, digests. The models run in nn/augment.

`back_translation`: into another language and back (Sennrich et al. 2016, arXiv 1511.06709); `contextual`: words
replaced by what a masked language model expects in their place (Kobayashi 2018, arXiv 1805.06201).
"""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, Strict

from rayscale.errors import InputError
from rayscale.study.augmenters import Augmenter, Settings
from rayscale.study.checkpoints import Checkpoint, find_checkpoint

#: Rises when the same checkpoints and rows would give other text.
MODEL_STEPS_VERSION = 1

Name = Annotated[str, Strict(), Field(min_length=1)]
Count = Annotated[int, Strict(), Field(ge=1, le=1000)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class BackTranslationSettings(Settings):
    """`there` and `back` are Marian checkpoints, folders or hub ids. `search: sample` draws each token from the `top_k`
    likeliest at `temperature`, so that copies differ; `beam` takes the best of `beams`, the same in every copy."""

    there: Name
    back: Name
    search: Literal["sample", "beam"] = "sample"
    top_k: Count = 20
    temperature: Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)] = 1.0
    beams: Count = 4


class ContextualSettings(Settings):
    """`model` is a masked language model, a folder or hub id. `share` of the words are masked, and each is drawn anew
    from the `top_k` words likeliest there, never the word that stood there."""

    model: Name
    share: Share = 0.15
    top_k: Count = 10


def languages(checkpoint: Checkpoint) -> tuple[str, str]:
    """Source and target language of a Marian checkpoint, by its settings or its name. Raises InputError for neither."""
    path = checkpoint.folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    source, target = config.get("source_lang"), config.get("target_lang")
    if source and target:
        return str(source), str(target)
    if named := re.search(r"-([a-z]{2,3})-([a-z]{2,3})$", checkpoint.name):
        return named[1], named[2]
    fix = f"write source_lang and target_lang into {path}"
    raise InputError(f"{checkpoint.name} does not say its languages", fix=fix, code="unknown_languages")


def _locate_translation(settings: BackTranslationSettings) -> BackTranslationSettings:
    pair = {name: _checkpoint(getattr(settings, name), "marian") for name in ("there", "back")}
    for name, checkpoint in pair.items():
        if not (checkpoint.folder / "source.spm").exists():
            text = f"{name}: {checkpoint.folder} has no source.spm; fetch the checkpoint again"
            raise InputError(text, code="bad_checkpoint")
    if find_spec("sentencepiece") is None:
        fix = "install it with `pip install 'rayscale[augment]'`"
        raise InputError("Marian's tokenizer needs sentencepiece", fix=fix, code="missing_package")
    (source, middle), (again, target) = languages(pair["there"]), languages(pair["back"])
    if (source, middle) != (target, again):
        pairs = f"{pair['there'].name} translates {source} to {middle}, {pair['back'].name} {again} to {target}"
        text = f"back_translation: {pairs}: the languages do not meet"
        raise InputError(text, fix=f"give a `back` that translates {middle} to {source}", code="languages_differ")
    return settings.model_copy(update={name: str(checkpoint.folder) for name, checkpoint in pair.items()})


def _locate_masked(settings: ContextualSettings) -> ContextualSettings:
    checkpoint = _checkpoint(settings.model, None)
    if not (checkpoint.folder / "tokenizer.json").exists():
        fix = "write one with `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`"
        raise InputError(f"contextual: {checkpoint.folder} has no tokenizer.json", fix=fix, code="no_tokenizer")
    heads = checkpoint.config.get("architectures") or []
    if heads and not any("MaskedLM" in str(head) or "PreTraining" in str(head) for head in heads):
        text = f"contextual: {checkpoint.name} is a {heads[0]}, which predicts no masked words"
        fix = "give a checkpoint with a masked language model's head, such as a BertForMaskedLM"
        raise InputError(text, fix=fix, code="bad_checkpoint")
    return settings.model_copy(update={"model": str(checkpoint.folder)})


def _checkpoint(place: str, kind: str | None) -> Checkpoint:
    checkpoint = find_checkpoint(place, None)
    model_type = checkpoint.config.get("model_type")
    if kind and model_type != kind:
        text = f"{checkpoint.name} is a {model_type}; back_translation takes {kind} checkpoints"
        raise InputError(text, code="bad_checkpoint")
    return checkpoint


def _digests(*places: str) -> Any:
    return [MODEL_STEPS_VERSION, *(find_checkpoint(str(Path(place)), None).digest for place in places)]


BACK_TRANSLATION = Augmenter(
    BackTranslationSettings,
    "rayscale.nn.augment.translation:open_back_translation",
    # Marian's tokenizer writes punctuation otherwise where sacremoses is installed.
    lambda settings: [*_digests(settings.there, settings.back), find_spec("sacremoses") is not None],
    paths=("there", "back"),
    locate=_locate_translation,
    on_models=True,
)
CONTEXTUAL = Augmenter(
    ContextualSettings,
    "rayscale.nn.augment.masked:Masked",
    lambda settings: _digests(settings.model),
    paths=("model",),
    locate=_locate_masked,
    on_models=True,
)
