"""The laws that ship, each a value: formula, parameters with bounds, starts and units, inputs and source.

A formula is Python over the inputs' and parameters' names (exp, log, minimum as in numpy): what the function computes.
Long because it is one table: each law with its function, parameters and source.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from rayscale.laws.law import Law, Parameter, Values


def _exp(z: Any) -> Any:
    """exp of a real z, or of one whose imaginary part is the step of a derivative, about 1e-20: its sine is itself."""
    if not np.iscomplexobj(z):
        return np.exp(z)
    grown = np.exp(z.real)  # a fifth of the time of a complex exp
    return grown + 1j * (grown * z.imag)


def _power(size: Any, exponent: Any) -> Any:
    """size ** exponent for real sizes, 0 among them, and exponents as `_exp` takes them."""
    # exp of a log, not a power: a real base to a complex exponent is many times slower in numpy.
    if np.all(size > 0):
        return _exp(exponent * np.log(size))
    return np.where(size > 0, _exp(exponent * np.log(np.where(size > 0, size, 1.0))), 0.0)


def _softplus(z: Any) -> Any:
    """log(1 + exp(z)) without overflow, for real and complex z."""
    return np.where(z.real > 0, z, 0.0) + np.log1p(np.exp(np.where(z.real > 0, -z, z)))


def power(inputs: Values, parameters: Values) -> Any:
    """E + B / D^beta, in the target's unit (Kaplan et al. 2020, arXiv 2001.08361, with an asymptote)."""
    return parameters["E"] + parameters["B"] * _power(inputs["data"], -parameters["beta"])


def chinchilla(inputs: Values, parameters: Values) -> Any:
    """E + A / N^alpha + B / D^beta, in the target's unit (Hoffmann et al. 2022, arXiv 2203.15556)."""
    by_params = parameters["A"] * _power(inputs["params"], -parameters["alpha"])
    return parameters["E"] + by_params + parameters["B"] * _power(inputs["data"], -parameters["beta"])


def chinchilla_tied(inputs: Values, parameters: Values) -> Any:
    """E + A / N^alpha + B / D^alpha: chinchilla with one exponent (as in Muennighoff et al. 2023, arXiv 2305.16264)."""
    return chinchilla(inputs, {**parameters, "beta": parameters["alpha"]})


def multiplicative(inputs: Values, parameters: Values) -> Any:
    """E + A / (N^alpha D^beta), the joint law of fine-tuning (Zhang et al. 2024, arXiv 2402.17193)."""
    shrunk = _power(inputs["params"], -parameters["alpha"]) * _power(inputs["data"], -parameters["beta"])
    return parameters["E"] + parameters["A"] * shrunk


def rectified(inputs: Values, parameters: Values) -> Any:
    """E + B / (D0 + D^beta): the pretrained model is worth D0 of data before any (Lin et al. 2024, 2402.02314)."""
    return parameters["E"] + parameters["B"] / (parameters["D0"] + _power(inputs["data"], parameters["beta"]))


def shifted(inputs: Values, parameters: Values) -> Any:
    """E + B / (D + D0)^beta (after Alabdulmohsin et al. 2022, arXiv 2209.06640)."""
    grown = np.log(inputs["data"] + parameters["D0"])
    return parameters["E"] + parameters["B"] * np.exp(-parameters["beta"] * grown)


def bnsl(inputs: Values, parameters: Values) -> Any:
    """E + A D^-c0 (1 + (D/d1)^(1/f1))^(-c1 f1), a power law with one smooth break (Caballero et al. 2022, 2210.14891).

    The slope in log-log is -c0 before the break at d1 and -(c0 + c1) after it; f1 is the width of the break.
    """
    size, width = np.log(inputs["data"]), parameters["f1"]
    bend = width * _softplus((size - np.log(parameters["d1"])) / width)
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


def transfer(inputs: Values, parameters: Values) -> Any:
    """k D^a N^b: what pretraining is worth in fine-tuning data, beside D (Hernandez et al. 2021, arXiv 2102.01293)."""
    grown = _power(inputs["data"], parameters["a"]) * _power(inputs["params"], parameters["b"])
    return parameters["k"] * grown


def metric_sigmoid(inputs: Values, parameters: Values) -> Any:
    """floor + (top - floor) / (1 + exp(k (loss - L0))): an accuracy or F1 from a loss, the second of two stages.

    The stages join by prediction: a law of the loss over N and D (chinchilla, say) is fitted first; this one is fitted
    to (loss, metric) of the same runs; the metric at a new size is this law at the loss that the first predicts there.
    An interval needs both: draws of the first put through draws of the second (Llama 3, arXiv 2407.21783; the OLMo
    ladder, Bhagia et al. 2024, arXiv 2412.04403).
    """
    fallen = np.exp(-_softplus(parameters["k"] * (inputs["loss"] - parameters["L0"])))
    return parameters["floor"] * (1 - fallen) + parameters["top"] * fallen


def logit_power(inputs: Values, parameters: Values) -> Any:
    """A metric in (0, 1) whose log odds are T - B / D^beta; T is the log odds of its ceiling."""
    return np.exp(-_softplus(parameters["B"] * _power(inputs["data"], -parameters["beta"]) - parameters["T"]))


def logit_chinchilla(inputs: Values, parameters: Values) -> Any:
    """A metric in (0, 1) whose log odds are T - A / N^alpha - B / D^beta; T is the log odds of its ceiling."""
    by_params = parameters["A"] * _power(inputs["params"], -parameters["alpha"])
    by_data = parameters["B"] * _power(inputs["data"], -parameters["beta"])
    return np.exp(-_softplus(by_params + by_data - parameters["T"]))


def speedup(inputs: Values, parameters: Values) -> Any:
    """X1 G / (1 + sigma (G - 1) + kappa G (G - 1)), examples a second over workers (Gunther 1993).

    sigma is what they wait for (contention), kappa what they tell each other (coherence); Amdahl's law is kappa = 0.
    """
    workers = inputs["gpus"]
    lost = (parameters["sigma"] + parameters["kappa"] * workers) * (workers - 1)
    return parameters["X1"] * workers / (1 + lost)


def amdahl(inputs: Values, parameters: Values) -> Any:
    """X1 G / (1 + sigma (G - 1)), examples a second over workers when a share sigma of the work is serial."""
    return speedup(inputs, {**parameters, "kappa": 0.0})


def ratio(inputs: Values, parameters: Values) -> Any:
    """k D / G: a quality proportional to the data over the machines. A claim to be tested, shipped as a null."""
    return parameters["k"] * inputs["data"] / inputs["gpus"]


# Beyond 0.01 and 4 an exponent is a constant or a step, no scaling law; the fit then says at_bound.
_SLOPES = (0.01, 4.0, (0.1, 0.25, 0.5, 1.0, 2.0))
_ASYMPTOTE = Parameter("E", "coefficient", 1e-4, 10.0, (0.1, 0.5, 0.8))
_A = Parameter("A", "coefficient", 1e-5, 100.0, (0.2,), (("params", "alpha"),))
_B = Parameter("B", "coefficient", 1e-5, 100.0, (0.2,), (("data", "beta"),))
_ALPHA = Parameter("alpha", "exponent", *_SLOPES)
_BETA = Parameter("beta", "exponent", *_SLOPES)
_NATS = "loss in nats per token (or any positive target); "

POWER = Law(
    "power",
    "E + B * data ** -beta",
    power,
    (_B, _ASYMPTOTE, _BETA),
    ("data",),
    "loss",
    "Kaplan et al. 2020, arXiv 2001.08361",
    linear=("B", "E"),
    units=_NATS + "data: examples or tokens (or parameters, or FLOP)",
)
CHINCHILLA = Law(
    "chinchilla",
    "E + A * params ** -alpha + B * data ** -beta",
    chinchilla,
    (_A, _B, _ASYMPTOTE, _ALPHA, _BETA),
    ("params", "data"),
    "loss",
    "Hoffmann et al. 2022, arXiv 2203.15556",
    linear=("A", "B", "E"),
    units=_NATS + "params: parameters; data: tokens or examples",
)
CHINCHILLA_TIED = Law(
    "chinchilla_tied",
    "E + A * params ** -alpha + B * data ** -alpha",
    chinchilla_tied,
    (_A, Parameter("B", "coefficient", 1e-5, 100.0, (0.2,), (("data", "alpha"),)), _ASYMPTOTE, _ALPHA),
    ("params", "data"),
    "loss",
    "Muennighoff et al. 2023, arXiv 2305.16264",
    linear=("A", "B", "E"),
    units=_NATS + "params: parameters; data: tokens or examples",
)
MULTIPLICATIVE = Law(
    "multiplicative",
    "E + A * params ** -alpha * data ** -beta",
    multiplicative,
    (
        Parameter("A", "coefficient", 1e-5, 100.0, (0.2,), (("params", "alpha"), ("data", "beta"))),
        _ASYMPTOTE,
        _ALPHA,
        _BETA,
    ),
    ("params", "data"),
    "loss",
    "Zhang et al. 2024, arXiv 2402.17193",
    linear=("A", "E"),
    units=_NATS + "params: parameters; data: fine-tuning examples or tokens",
)
# At D0 of 0.001 (data at its geometric mean being 1) rectified and shifted are the power law, at 1000 nearly straight.
RECTIFIED = Law(
    "rectified",
    "E + B / (D0 + data ** beta)",
    rectified,
    (
        Parameter("B", "coefficient", 1e-5, 1e4, (0.2,), (("data", "beta"),)),
        _ASYMPTOTE,
        Parameter("D0", "positive", 1e-3, 1e3, (0.03, 0.3, 1.0, 5.0), (("data", "beta"),)),
        _BETA,
    ),
    ("data",),
    "loss",
    "Lin et al. 2024, arXiv 2402.02314",
    linear=("B", "E"),
    zero=("data",),
    units=_NATS + "data: fine-tuning examples or tokens",
)
SHIFTED = Law(
    "shifted",
    "E + B * (data + D0) ** -beta",
    shifted,
    (
        Parameter("B", "coefficient", 1e-5, 1e4, (0.2,), (("data", "beta"),)),
        _ASYMPTOTE,
        Parameter("D0", "positive", 1e-3, 1e3, (0.03, 0.3, 1.0, 5.0), (("data", 1.0),)),
        _BETA,
    ),
    ("data",),
    "loss",
    "Alabdulmohsin et al. 2022, arXiv 2209.06640",
    linear=("B", "E"),
    zero=("data",),
    units=_NATS + "data: examples or tokens",
)
BNSL = Law(
    "bnsl",
    "E + A * data ** -c0 * (1 + (data / d1) ** (1 / f1)) ** (-c1 * f1)",
    bnsl,
    (
        Parameter("A", "coefficient", 1e-5, 1e4, (0.2,), (("data", "c0"),)),
        _ASYMPTOTE,
        # A slope of 0 before the break is a plateau; a negative c1 is a law that slows down after it.
        Parameter("c0", "exponent", 0.0, 4.0, (0.02, 0.2, 0.6)),
        Parameter("c1", "exponent", -2.0, 4.0, (-0.2, 0.2, 1.0)),
        Parameter("d1", "positive", 1e-4, 1e4, (0.1, 1.0, 10.0), (("data", 1.0),)),
        Parameter("f1", "positive", 0.02, 10.0, (0.2, 1.0)),
    ),
    ("data",),
    "loss",
    "Caballero et al. 2022, arXiv 2210.14891",
    linear=("A", "E"),
    units=_NATS + "data: examples, tokens, parameters or FLOP",
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
        _ASYMPTOTE,
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
TRANSFER = Law(
    "transfer",
    "k * data ** a * params ** b",
    transfer,
    (
        Parameter("k", "coefficient", 1e-5, 1e5, (1.0,), (("data", "-a"), ("params", "-b"))),
        Parameter("a", "exponent", -2.0, 4.0, (0.2, 0.6)),
        Parameter("b", "exponent", -2.0, 4.0, (0.2, 0.6)),
    ),
    ("params", "data"),
    "effective_data",
    "Hernandez et al. 2021, arXiv 2102.01293",
    linear=("k",),
    units="effective data transferred, in the unit of data; params: parameters; data: fine-tuning examples or tokens",
)
METRIC_SIGMOID = Law(
    "metric_sigmoid",
    "floor + (top - floor) / (1 + exp(k * (loss - L0)))",
    metric_sigmoid,
    (
        Parameter("floor", "positive", 1e-4, 0.999, (0.1,)),
        Parameter("top", "positive", 1e-3, 1.0, (0.9,)),
        Parameter("k", "positive", 0.05, 200.0, (1.0, 4.0, 15.0), (("loss", -1.0),)),
        Parameter("L0", "positive", 0.05, 20.0, (0.7, 1.0, 1.4), (("loss", 1.0),)),
    ),
    ("loss",),
    "accuracy",
    "Llama 3, arXiv 2407.21783; Bhagia et al. 2024, arXiv 2412.04403",
    linear=("floor", "top"),
    link="logit",
    units="metric: a fraction between 0 and 1; loss: nats per token",
)
_CEILING = Parameter("T", "exponent", -10.0, 15.0, (0.0, 2.0, 5.0))
_LOGIT_BETA = Parameter("beta", "exponent", 0.01, 4.0, (0.15, 0.4, 0.9))
LOGIT_POWER = Law(
    "logit_power",
    "1 / (1 + exp(B * data ** -beta - T))",
    logit_power,
    (Parameter("B", "positive", 1e-3, 100.0, (0.3, 2.0), (("data", "beta"),)), _CEILING, _LOGIT_BETA),
    ("data",),
    "accuracy",
    "a power law of the log odds, for metrics that are bounded",
    link="logit",
    units="metric: a fraction between 0 and 1; data: examples or tokens",
)
LOGIT_CHINCHILLA = Law(
    "logit_chinchilla",
    "1 / (1 + exp(A * params ** -alpha + B * data ** -beta - T))",
    logit_chinchilla,
    (
        Parameter("A", "positive", 1e-3, 100.0, (0.3, 2.0), (("params", "alpha"),)),
        Parameter("B", "positive", 1e-3, 100.0, (0.3, 2.0), (("data", "beta"),)),
        _CEILING,
        Parameter("alpha", "exponent", 0.01, 4.0, (0.15, 0.4, 0.9)),
        _LOGIT_BETA,
    ),
    ("params", "data"),
    "accuracy",
    "chinchilla of the log odds, for metrics that are bounded",
    link="logit",
    units="metric: a fraction between 0 and 1; params: parameters; data: examples or tokens",
)
_RATE = Parameter("X1", "coefficient", 1e-5, 100.0, (0.2,))
_SERIAL = Parameter("sigma", "positive", 1e-6, 10.0, (0.003, 0.03, 0.3))
SPEEDUP = Law(
    "speedup",
    "X1 * gpus / (1 + sigma * (gpus - 1) + kappa * gpus * (gpus - 1))",
    speedup,
    (_RATE, _SERIAL, Parameter("kappa", "positive", 1e-8, 1.0, (1e-5, 1e-3, 0.03))),
    ("gpus",),
    "examples_per_second",
    "Gunther 1993, universal scalability",
    linear=("X1",),
    unscaled=("gpus",),
    units="examples per second; gpus: workers",
)
AMDAHL = Law(
    "amdahl",
    "X1 * gpus / (1 + sigma * (gpus - 1))",
    amdahl,
    (_RATE, _SERIAL),
    ("gpus",),
    "examples_per_second",
    "Amdahl 1967",
    linear=("X1",),
    unscaled=("gpus",),
    units="examples per second; gpus: workers",
)
RATIO = Law(
    "ratio",
    "k * data / gpus",
    ratio,
    (Parameter("k", "coefficient", 1e-5, 1e5, (1.0,), (("data", -1.0),)),),
    ("data", "gpus"),
    "accuracy",
    "a claim made in a tutorial, to be tested",
    linear=("k",),
    unscaled=("gpus",),
    units="any quality; data: examples; gpus: workers",
)

# The laws with an asymptote E, without it: beside them as rivals, since few points cannot tell E from zero.
SUFFIX = "_without_E"


def without_asymptote(law: Law) -> Law:
    """The law with E = 0 and no parameter for it; its name ends in `_without_E`. The law must have an E."""

    def function(inputs: Values, parameters: Values) -> Any:
        return law.function(inputs, {**parameters, "E": 0.0})

    function.__doc__ = f"{law.name} without its asymptote: {law.function.__doc__}"

    return replace(
        law,
        name=law.name + SUFFIX,
        formula=law.formula.removeprefix("E + "),
        function=function,
        parameters=tuple(each for each in law.parameters if each.name != "E"),
        linear=tuple(name for name in law.linear if name != "E"),
    )


POWER_WITHOUT_E = without_asymptote(POWER)
RECTIFIED_WITHOUT_E = without_asymptote(RECTIFIED)
SHIFTED_WITHOUT_E = without_asymptote(SHIFTED)
BNSL_WITHOUT_E = without_asymptote(BNSL)
CHINCHILLA_WITHOUT_E = without_asymptote(CHINCHILLA)
MULTIPLICATIVE_WITHOUT_E = without_asymptote(MULTIPLICATIVE)
