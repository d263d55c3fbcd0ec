"""Texts through a model in batches of similar length, and chance that belongs to the row, not to its batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from rayscale.text.augment.seeded_random import uniforms

#: Padded tokens of one batch. On a CPU small batches stay in the cache.
BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}


def pick_device() -> torch.device:
    """The GPU that this process may use, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def buckets(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Places of rows, the shortest first, cut so that a batch padded to its longest row has at most `tokens` tokens."""
    batch: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda number: (lengths[number], number)):
        if batch and lengths[place] * (len(batch) + 1) > tokens:
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch


def draw(scores: torch.Tensor, seeds: np.ndarray, step: int, top_k: int) -> torch.Tensor:
    """One place for each row of scores (rows, places), in proportion to exp(score) among the `top_k` highest.

    By the highest of score plus Gumbel noise from the row's seed (uint64, (rows,)) and `step`: a row draws the same
    whatever rows are in its batch.
    """
    best, places = scores.float().topk(min(top_k, scores.shape[-1]), dim=-1)
    noise = -np.log(-np.log(uniforms(seeds, step, best.shape[-1])))
    chosen = (best + torch.from_numpy(noise).to(best)).argmax(dim=-1, keepdim=True)
    return places.gather(-1, chosen)[:, 0]
