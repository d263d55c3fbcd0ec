"""The laws that ship: a table of formulas, with the bounds and starts of their parameters and their sources.

Function, units and linear parameters of a law are read from its formula, as those of a user's own law are. Two laws
have functions of their own: that of `bnsl` does not overflow where its formula would, and `repeated_data` uses a size
that is defined by the other parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from rayscale.laws.formula import EXPONENT, read_formula
from rayscale.laws.law import Law, Parameter, Values


def bnsl(inputs: Values, parameters: Values) -> Any:
    """E + A D^-c0 (1 + (D/d1)^(1/f1))^(-c1 f1), a power law with one smooth break (Caballero et al. 2022, 2210.14891).

    The slope in log-log is -c0 before the break at d1 and -(c0 + c1) after it; f1 is the width of the break.
    """
    size, width = np.log(inputs["data"]), parameters["f1"]
    step = (size - np.log(parameters["d1"])) / width
    # log(1 + exp(step)) without overflow, for real and complex steps.
    bend = width * (np.where(step.real > 0, step, 0.0) + np.log1p(np.exp(np.where(step.real > 0, -step, step))))
    return parameters["E"] + parameters["A"] * np.exp(-parameters["c0"] * size - parameters["c1"] * bend)


def repeated_data(inputs: Values, parameters: Values) -> Any:
    """chinchilla of the effective data and parameters under repetition (Muennighoff et al. 2023, arXiv 2305.16264).

    Of U distinct tokens seen D/U times, each repetition is worth less, by exp(-repetitions / RD); likewise the
    parameters beyond those that the law itself calls optimal for U tokens, with RN.
    """
    unique = np.minimum(inputs["unique"], inputs["data"])
    data = unique + unique * parameters["RD"] * -np.expm1(-(inputs["data"] / unique - 1) / parameters["RD"])
    alpha, beta = parameters["alpha"], parameters["beta"]
    # Where the slopes of both terms in log size are equal, alpha A N^-alpha = beta B D^-beta, N is optimal for D.
    best = np.exp((np.log(alpha * parameters["A"] / (beta * parameters["B"])) + beta * np.log(unique)) / alpha)
    size = inputs["params"]
    base = np.where(best.real < size, best, size)
    params = base + base * parameters["RN"] * -np.expm1(-(size / base - 1) / parameters["RN"])
    by_params = parameters["A"] * np.exp(-alpha * np.log(params))
    return parameters["E"] + by_params + parameters["B"] * np.exp(-beta * np.log(data))


def _law(
    name: str, formula: str, parameters: tuple[Parameter, ...], source: str, units: str, *, target: str = "loss",
    link: str = "log", function: Callable[[Values, Values], Any] | None = None,
) -> Law:  # fmt: skip
    """The law of a formula, whose parameters have these kinds, bounds and starts, in this order."""
    law = read_formula(formula, name)
    carried = {parameter.name: parameter.unit for parameter in law.parameters}
    return replace(
        law,
        function=function or law.function,
        parameters=tuple(replace(parameter, unit=carried[parameter.name]) for parameter in parameters),
        linear=tuple(parameter.name for parameter in parameters if parameter.name in law.linear),
        target=target,
        source=source,
        link=link,
        units=units,
    )


_E = Parameter("E", "coefficient", 1e-4, 10.0, (0.1, 0.5, 0.8))
_A = Parameter("A", "coefficient", 1e-5, 100.0, (0.2,))
_B = Parameter("B", "coefficient", 1e-5, 100.0, (0.2,))
_B_SHIFTED = Parameter("B", "coefficient", 1e-5, 1e4, (0.2,))
# At D0 of 0.001 (data at its geometric mean being 1) rectified and shifted are the power law, at 1000 nearly straight.
_D0 = Parameter("D0", "positive", 1e-3, 1e3, (0.03, 0.3, 1.0, 5.0))
_ALPHA = Parameter("alpha", "exponent", *EXPONENT)
_BETA = Parameter("beta", "exponent", *EXPONENT)
_NATS = "loss in nats per token (or any positive target); "
_NATS_OF_BOTH = _NATS + "params: parameters; data: tokens or examples"

POWER = _law(
    "power",
    "E + B * data ** -beta",
    (_B, _E, _BETA),
    "Kaplan et al. 2020, arXiv 2001.08361",
    _NATS + "data: examples or tokens (or parameters, or FLOP)",
)
CHINCHILLA = _law(
    "chinchilla",
    "E + A * params ** -alpha + B * data ** -beta",
    (_A, _B, _E, _ALPHA, _BETA),
    "Hoffmann et al. 2022, arXiv 2203.15556",
    _NATS_OF_BOTH,
)
CHINCHILLA_TIED = _law(
    "chinchilla_tied",
    "E + A * params ** -alpha + B * data ** -alpha",
    (_A, _B, _E, _ALPHA),
    "Muennighoff et al. 2023, arXiv 2305.16264",
    _NATS_OF_BOTH,
)
CHINCHILLA_RECTIFIED = _law(
    "chinchilla_rectified",
    "E + A * params ** -alpha + B / (D0 + data ** beta)",
    (_A, _B_SHIFTED, _E, _D0, _ALPHA, _BETA),
    "Hoffmann et al. 2022, arXiv 2203.15556, with the data term of Lin et al. 2024, arXiv 2402.02314",
    _NATS_OF_BOTH,
)
# A smooth minimum of data and D1: what comes after D1 brings nothing more. With D1 below the data it is the last value.
_D1 = Parameter("D1", "positive", 1e-3, 1e4, (0.3, 3.0, 30.0, 300.0))
SATURATING = _law(
    "saturating",
    "E + B * (data ** -4 + D1 ** -4) ** (beta / 4)",
    (_B, _E, _D1, _BETA),
    "a power law until D1 and a plateau from there on",
    _NATS + "data: examples or tokens",
)
CHINCHILLA_SATURATING = _law(
    "chinchilla_saturating",
    "E + A * params ** -alpha + B * (data ** -4 + D1 ** -4) ** (beta / 4)",
    (_A, _B, _E, _D1, _ALPHA, _BETA),
    "chinchilla until D1 and a plateau from there on",
    _NATS_OF_BOTH,
)
MULTIPLICATIVE = _law(
    "multiplicative",
    "E + A * params ** -alpha * data ** -beta",
    (_A, _E, _ALPHA, _BETA),
    "Zhang et al. 2024, arXiv 2402.17193",
    _NATS + "params: parameters; data: fine-tuning examples or tokens",
)
# The pretrained model is worth D0 of data before it has seen any.
RECTIFIED = _law(
    "rectified",
    "E + B / (D0 + data ** beta)",
    (_B_SHIFTED, _E, _D0, _BETA),
    "Lin et al. 2024, arXiv 2402.02314",
    _NATS + "data: fine-tuning examples or tokens",
)
SHIFTED = _law(
    "shifted",
    "E + B * (data + D0) ** -beta",
    (_B_SHIFTED, _E, _D0, _BETA),
    "Alabdulmohsin et al. 2022, arXiv 2209.06640",
    _NATS + "data: examples or tokens",
)
BNSL = _law(
    "bnsl",
    "E + A * data ** -c0 * (1 + (data / d1) ** (1 / f1)) ** (-c1 * f1)",
    (
        Parameter("A", "coefficient", 1e-5, 1e4, (0.2,)),
        _E,
        # A slope of 0 before the break is a plateau; a negative c1 is a law that slows down after it.
        Parameter("c0", "exponent", 0.0, 4.0, (0.02, 0.2, 0.6)),
        Parameter("c1", "exponent", -2.0, 20.0, (-0.2, 0.2, 1.0)),
        Parameter("d1", "positive", 1e-4, 1e4, (0.1, 1.0, 10.0)),
        Parameter("f1", "positive", 0.02, 10.0, (0.2, 1.0)),
    ),
    "Caballero et al. 2022, arXiv 2210.14891",
    _NATS + "data: examples, tokens, parameters or FLOP",
    function=bnsl,
)
REPEATED_DATA = Law(
    "repeated_data",
    # The seen data U (1 + RD (1 - exp(-(D/U - 1) / RD))), and the parameters likewise beyond those optimal for U.
    "E + A * (best * (1 + RN * (1 - exp((1 - params / best) / RN)))) ** -alpha"
    " + B * (unique * (1 + RD * (1 - exp((1 - data / unique) / RD)))) ** -beta,"
    " best = minimum(params, (alpha * A / (beta * B) * unique ** beta) ** (1 / alpha))",
    repeated_data,
    (
        Parameter("A", "coefficient", 1e-5, 100.0, (0.05, 0.2), (("params", "alpha"),)),
        Parameter("B", "coefficient", 1e-5, 100.0, (0.05, 0.2), (("data", "beta"),)),
        _E,
        Parameter("alpha", "exponent", 0.01, 4.0, (0.25, 0.6)),
        Parameter("beta", "exponent", 0.01, 4.0, (0.25, 0.6)),
        Parameter("RD", "positive", 0.01, 1e4, (5.0, 30.0)),
        Parameter("RN", "positive", 0.01, 1e4, (2.0, 15.0)),
    ),
    ("params", "data", "unique"),
    "loss",
    "Muennighoff et al. 2023, arXiv 2305.16264",
    linear=("E",),
    units=_NATS + "params: parameters; data: tokens seen, repetitions counted; unique: distinct ones among them",
)
# What pretraining is worth in fine-tuning data.
TRANSFER = _law(
    "transfer",
    "k * data ** a * params ** b",
    (
        Parameter("k", "coefficient", 1e-5, 1e5, (1.0,)),
        Parameter("a", "exponent", -2.0, 4.0, (0.2, 0.6)),
        Parameter("b", "exponent", -2.0, 4.0, (0.2, 0.6)),
    ),
    "Hernandez et al. 2021, arXiv 2102.01293",
    "effective data transferred, in the unit of data; params: parameters; data: fine-tuning examples or tokens",
    target="effective_data",
)
# The second of two stages: first a law of the loss over N and D is fitted, then this one to (loss, metric) of the same
# runs; the metric at a new size is this law at the loss predicted there. Its interval needs the draws of both.
METRIC_SIGMOID = _law(
    "metric_sigmoid",
    "floor + (top - floor) / (1 + exp(k * (loss - L0)))",
    (
        Parameter("floor", "positive", 1e-4, 0.999, (0.1,)),
        Parameter("top", "positive", 1e-3, 1.0, (0.9,)),
        Parameter("k", "positive", 0.05, 200.0, (1.0, 4.0, 15.0)),
        Parameter("L0", "positive", 0.05, 20.0, (0.7, 1.0, 1.4)),
    ),
    "Llama 3, arXiv 2407.21783; Bhagia et al. 2024, arXiv 2412.04403",
    "metric: a fraction between 0 and 1; loss: nats per token",
    target="accuracy",
    link="logit",
)
_T = Parameter("T", "exponent", -10.0, 15.0, (0.0, 2.0, 5.0))  # the log odds of the ceiling
_LOGIT_SLOPE = (0.01, 4.0, (0.15, 0.4, 0.9))
_LOGIT_TERM = (1e-3, 100.0, (0.3, 2.0))
LOGIT_POWER = _law(
    "logit_power",
    "1 / (1 + exp(B * data ** -beta - T))",
    (Parameter("B", "positive", *_LOGIT_TERM), _T, Parameter("beta", "exponent", *_LOGIT_SLOPE)),
    "a power law of the log odds, for metrics that are bounded",
    "metric: a fraction between 0 and 1; data: examples or tokens",
    target="accuracy",
    link="logit",
)
LOGIT_CHINCHILLA = _law(
    "logit_chinchilla",
    "1 / (1 + exp(A * params ** -alpha + B * data ** -beta - T))",
    (
        Parameter("A", "positive", *_LOGIT_TERM),
        Parameter("B", "positive", *_LOGIT_TERM),
        _T,
        Parameter("alpha", "exponent", *_LOGIT_SLOPE),
        Parameter("beta", "exponent", *_LOGIT_SLOPE),
    ),
    "chinchilla of the log odds, for metrics that are bounded",
    "metric: a fraction between 0 and 1; params: parameters; data: examples or tokens",
    target="accuracy",
    link="logit",
)
# sigma is what workers wait for (contention), kappa what they tell each other (coherence).
_X1 = Parameter("X1", "coefficient", 1e-5, 100.0, (0.2,))
_SIGMA = Parameter("sigma", "positive", 1e-6, 10.0, (0.003, 0.03, 0.3))
SPEEDUP = _law(
    "speedup",
    "X1 * gpus / (1 + sigma * (gpus - 1) + kappa * gpus * (gpus - 1))",
    (_X1, _SIGMA, Parameter("kappa", "positive", 1e-8, 1.0, (1e-5, 1e-3, 0.03))),
    "Gunther 1993, universal scalability",
    "examples per second; gpus: workers",
    target="examples_per_second",
)
AMDAHL = _law(
    "amdahl",
    "X1 * gpus / (1 + sigma * (gpus - 1))",
    (_X1, _SIGMA),
    "Amdahl 1967",
    "examples per second; gpus: workers",
    target="examples_per_second",
)
RATIO = _law(
    "ratio",
    "k * data / gpus",
    (Parameter("k", "coefficient", 1e-5, 1e5, (1.0,)),),
    "a claim made in a tutorial, to be tested",
    "any quality; data: examples; gpus: workers",
    target="accuracy",
)

# The laws with an asymptote E also come without it, as rivals: few points cannot distinguish a small E from zero.
SUFFIX = "_without_E"


def without_asymptote(law: Law) -> Law:
    """The law with E = 0 and no parameter for it; its name ends in `_without_E`. The law must have an E."""

    def function(inputs: Values, parameters: Values) -> Any:
        return law.function(inputs, {**parameters, "E": 0.0})

    function.__doc__ = f"{law.name} without its asymptote."
    return replace(
        law,
        name=law.name + SUFFIX,
        formula=law.formula.removeprefix("E + "),
        function=function,
        parameters=tuple(parameter for parameter in law.parameters if parameter.name != "E"),
        linear=tuple(name for name in law.linear if name != "E"),
    )


POWER_WITHOUT_E = without_asymptote(POWER)
RECTIFIED_WITHOUT_E = without_asymptote(RECTIFIED)
SHIFTED_WITHOUT_E = without_asymptote(SHIFTED)
BNSL_WITHOUT_E = without_asymptote(BNSL)
CHINCHILLA_WITHOUT_E = without_asymptote(CHINCHILLA)
MULTIPLICATIVE_WITHOUT_E = without_asymptote(MULTIPLICATIVE)
