"""The probability of reaching a target after the cheapest of many candidates was chosen."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from rayscale.verdict.selection import chances, optimism


def draws(middle: np.ndarray, scatter: float, rng: np.random.Generator, count: int = 400) -> np.ndarray:
    return middle + scatter * rng.normal(size=(count, len(middle)))


def test_chances_are_those_of_a_new_run() -> None:
    ahead = draws(np.array([-1.0, 0.0, 1.0]), 0.5, np.random.default_rng(0), 20_000)
    truth = norm.cdf(np.array([-1.0, 0.0, 1.0]) / np.hypot(0.5, 0.3))
    assert np.allclose(chances(ahead, np.full(3, 0.3)), truth, atol=0.01)


def test_what_is_realised_never_falls_with_what_is_stated_and_stays_a_probability() -> None:
    rng = np.random.default_rng(1)
    for middle in (np.full(8, -9.0), np.full(8, 9.0), np.linspace(-2, 2, 8), np.zeros(1)):
        stated, realised = optimism(draws(middle, 1.0, rng), np.full(len(middle), 0.2), np.arange(len(middle)))
        assert np.all(np.diff(stated) > 0)
        assert np.all(np.diff(realised) >= 0)
        assert 0 <= realised.min() <= realised.max() <= 1


def test_candidates_alike_are_over_optimistic_and_one_alone_is_not() -> None:
    """With errors of their own, the cheapest of ten that seem good enough is the one that erred."""
    rng = np.random.default_rng(2)
    many, one = draws(np.zeros(10), 1.0, rng), draws(np.zeros(1), 1.0, rng)
    curse = [0.8 - np.interp(0.8, *optimism(ahead, np.full(ahead.shape[1], 0.2), np.arange(ahead.shape[1])))
             for ahead in (many, one)]  # fmt: skip
    assert curse[0] > 0.05
    assert curse[0] > curse[1]


def test_the_choice_comes_true_as_often_as_stated() -> None:
    """300 studies: four candidates of nearly equal promise, estimated with errors of their own."""
    rng, noise, scatter = np.random.default_rng(3), np.full(4, 0.2), 0.5
    own, corrected = [], []
    for _ in range(300):
        truth = rng.normal(0.2, 0.3, 4)
        ahead = draws(truth + scatter * rng.normal(size=4), scatter, rng, 200)
        real = norm.cdf(truth / noise)
        before = chances(ahead, noise)
        stated, realised = optimism(ahead, noise, np.arange(4))
        for probability, results in ((before, own), (np.interp(before, stated, realised), corrected)):
            if (sure := probability >= 0.7).any():
                chosen = int(sure.argmax())
                results.append(real[chosen] - probability[chosen])
    assert abs(np.mean(corrected)) < abs(np.mean(own))
