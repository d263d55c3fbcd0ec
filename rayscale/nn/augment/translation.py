"""Back-translation by two Marian models: batched, bucketed by length, each row with chance of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, LogitsProcessor, LogitsProcessorList, MarianMTModel

from rayscale.nn.augment.batches import BATCH_TOKENS, buckets, draw, pick_device
from rayscale.nn.loading import load
from rayscale.study.augmenters import Example, Step
from rayscale.text.augment.model_steps import BackTranslationSettings
from rayscale.text.normalise import mix


def open_back_translation(settings: BackTranslationSettings) -> Step:
    """Load both models; the step leaves a row as it is where it is longer than a model reads."""
    device = pick_device()
    legs = [_Translator(folder, settings, device) for folder in (settings.there, settings.back)]

    def translate(rows: Sequence[Example]) -> list[Example]:
        texts, seeds = [row.text for row in rows], np.array([row.seed for row in rows], dtype=np.uint64)
        translated: Sequence[str | None] = texts
        for number, leg in enumerate(legs):
            translated = leg(translated, mix(seeds, number))
        return [row if text is None else row.saying(text) for row, text in zip(rows, translated, strict=True)]

    return translate


class _Translator:
    def __init__(self, folder: str, settings: BackTranslationSettings, device: torch.device) -> None:
        self._tokenizer = load(AutoTokenizer.from_pretrained, folder)
        self._model = load(MarianMTModel.from_pretrained, folder, use_safetensors=True).eval()
        self._model.to(device=device)
        self._settings, self._device = settings, device
        self._longest = int(self._model.config.max_position_embeddings)

    def __call__(self, texts: Sequence[str | None], seeds: np.ndarray) -> list[str | None]:
        """The translations; None for what is None, empty or too long."""
        translations: list[str | None] = [None] * len(texts)
        given = [place for place, text in enumerate(texts) if text]
        if not given:
            return translations
        ids = self._tokenizer([texts[place] for place in given])["input_ids"]
        able = [number for number in range(len(given)) if len(ids[number]) <= self._longest]
        lengths = [len(ids[number]) for number in able]
        for batch in buckets(lengths, BATCH_TOKENS[self._device.type]):
            places = [given[able[number]] for number in batch]
            batch_texts = self._batch([ids[able[number]] for number in batch], seeds[places])
            for place, text in zip(places, batch_texts, strict=True):
                translations[place] = text
        return translations

    @torch.inference_mode()
    def _batch(self, ids: list[list[int]], seeds: np.ndarray) -> list[str]:
        inputs = self._tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self._device)
        settings = self._settings
        samples = settings.search == "sample"
        out = self._model.generate(
            **inputs,
            do_sample=False,
            num_beams=1 if samples else settings.beams,
            max_length=min(self._longest, 2 * inputs["input_ids"].shape[1] + 8),
            logits_processor=LogitsProcessorList([_Sampler(seeds, settings)] if samples else []),
        )
        return self._tokenizer.batch_decode(out, skip_special_tokens=True)


class _Sampler(LogitsProcessor):
    """Turns greedy search into sampling: only the token that was drawn for a row is left to be taken."""

    def __init__(self, seeds: np.ndarray, settings: BackTranslationSettings) -> None:
        self._seeds, self._settings = seeds, settings

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        scaled = scores / self._settings.temperature
        chosen = draw(scaled, self._seeds, input_ids.shape[1], self._settings.top_k)
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen[:, None], 0.0)
