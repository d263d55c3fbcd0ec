"""The law of Farseer (Li et al. 2025, arXiv 2506.10972, equation 3): floor, amount and exponent of D depend on N.

    exp(a3 N^gamma + b3) + exp(a2 N^beta + b2) * D^(-exp(a1 N^alpha + b1))

Each of its three curves a N^c + b is straight in log N as c goes to 0, with a and b beyond all bounds and of opposite
signs. A fit therefore looks for each curve's value and slope at the middle of the data, and for its bend c; a and b
follow from these. In the paper N is without embeddings. The unit of N changes a1, a2 and a3 only; that of D is part of
the law, since an exponent that depends on N makes every unit of D another curve over N: the paper's is one token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rayscale.laws.law import Frame, Law, Parameter, Values

SMALLEST_BEND = 1e-6  # of a curve, so that a and b stay numbers


def farseer(inputs: Values, parameters: Values) -> Any:
    """The law as its paper writes it, in the target's unit; sizes as in the table."""

    def curve(slope: str, power: str, rest: str) -> Any:
        return parameters[slope] * np.exp(parameters[power] * np.log(inputs["params"])) + parameters[rest]

    exponent = np.exp(curve("a1", "alpha", "b1"))
    return np.exp(curve("a3", "gamma", "b3")) + np.exp(curve("a2", "beta", "b2") - exponent * np.log(inputs["data"]))


def _bend(size: Any, power: Any) -> Any:
    """(n^c - 1) / c of log n, which is log n at c = 0: slope 1 at n = 1 (Box & Cox 1964)."""
    step = power * size
    small = np.abs(np.real(step)) < 1e-5
    safe = np.where(small, 1.0, step)
    return size * np.where(small, 1 + step / 2 + step**2 / 6, np.expm1(safe) / safe)


def _fitted(inputs: Values, parameters: Values) -> Any:
    """The law by its values and slopes (in log N) at the middle of the data.

    b3 is the floor there and b2 the data term, both in the target's unit, b1 the exponent of D; a1, a2 and a3 are the
    slopes of their logarithms, alpha, beta and gamma the bends.
    """
    size, data, middle = np.log(inputs["params"]), np.log(inputs["data"]), inputs.get("data_centre", 0.0)
    exponent = parameters["b1"] * np.exp(parameters["a1"] * _bend(size, parameters["alpha"]))
    # The formula's own curve of log B is at one unit of data, so far from the data that the exponent decides its slope.
    slope = parameters["a2"] + middle * parameters["b1"] * parameters["a1"]
    amount = slope * _bend(size, parameters["beta"]) - middle * (exponent - parameters["b1"]) - exponent * data
    floor = parameters["a3"] * _bend(size, parameters["gamma"])
    return parameters["b3"] * np.exp(floor) + parameters["b2"] * np.exp(amount)


def _natural(fitted: Values, centre: Mapping[str, float]) -> dict[str, Any]:
    """The paper's parameters of those that are fitted."""
    middle = centre.get("data", 0.0)
    curves = {
        "1": ("alpha", np.log(fitted["b1"]), fitted["a1"]),
        "2": (
            "beta",
            np.log(fitted["b2"]) + middle * fitted["b1"],
            fitted["a2"] + middle * fitted["b1"] * fitted["a1"],
        ),
        "3": ("gamma", np.log(fitted["b3"]), fitted["a3"]),
    }
    formula: dict[str, Any] = {}
    for number, (name, value, slope) in curves.items():
        power = np.where(np.abs(fitted[name]) < SMALLEST_BEND, SMALLEST_BEND, fitted[name])
        formula |= {
            f"a{number}": slope / power * np.exp(-power * centre.get("params", 0.0)),
            f"b{number}": value - slope / power,
            name: power,
        }
    return formula


_BEND = (-1.5, 1.5)
FARSEER = Law(
    "farseer",
    "exp(a3 * params ** gamma + b3) + exp(a2 * params ** beta + b2) * data ** -exp(a1 * params ** alpha + b1)",
    farseer,
    (
        Parameter("a1", "exponent", -2.0, 2.0, (-0.1, 0.05)),
        Parameter("b1", "positive", 0.01, 4.0, (0.2, 0.4, 0.8)),
        Parameter("alpha", "exponent", *_BEND, (0.1,)),
        Parameter("a2", "exponent", -3.0, 3.0, (-0.3, 0.1)),
        Parameter("b2", "coefficient", 1e-5, 100.0, (0.2,)),
        Parameter("beta", "exponent", *_BEND, (0.1,)),
        Parameter("a3", "exponent", -2.0, 2.0, (-0.2, -0.05)),
        Parameter("b3", "coefficient", 1e-4, 10.0, (0.8,)),
        Parameter("gamma", "exponent", *_BEND, (-0.3, 0.2)),
    ),
    ("params", "data"),
    "loss",
    "Li et al. 2025, arXiv 2506.10972",
    linear=("b2", "b3"),
    units="loss in nats per token or bits per character; params: parameters without embeddings; data: tokens",
    frame=Frame(_fitted, _natural),
    enough=(5, 27),
)
