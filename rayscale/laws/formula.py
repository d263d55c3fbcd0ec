"""A user's own law: a formula such as `E + B * data ** -beta` → a Law with the same powers as those that ship.

Names of inputs are the roles params, data, unique, compute, gpus and loss; every other name is a parameter. One that
stands in an exponent is an exponent, the others are positive coefficients. Their units and which of them are linear
are worked out, so starts, derivatives and changes of units are as for a built-in law. Bounds may follow the formula:
`E + B * data ** -beta; beta in [0.1, 1]; E = 1.69`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from rayscale.errors import InputError, nearest
from rayscale.laws.dimensions import Dimensions, generic
from rayscale.laws.grammar import Node, compute, parse, refuse
from rayscale.laws.law import Law, Parameter, Values, find_registered
from rayscale.system.registry import entries

ROLES = ("params", "data", "unique", "compute", "gpus", "loss")
MAX_PARAMETERS = 12
MAX_STARTS = 200  # product of the starts of the parameters that a fit cannot solve for
UNSCALED = ("gpus",)  # one GPU means something; one token does not

# Names that would silently become parameters, though their writer meant an input.
_MEANT = {"N": "params", "D": "data", "G": "gpus", "tokens": "data", "examples": "data", "flops": "compute"}
_BOUND = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:=\s*(\S+)|in\s*\[\s*([^,\]]+),\s*([^,\]]+)\])\s*")
_WIDE = (1e-30, 1e30)

# Bounds and starts of a parameter that the user left open, as in the catalogue: an exponent beyond 0.01 to 4 is a
# constant or a step; a coefficient is a multiple of the median target; a pure number is 1 where a unit is one input.
EXPONENT = (0.01, 4.0, (0.1, 0.25, 0.5, 1.0, 2.0))
# What is far above all rows may be the top of a curve that rises.
_ASYMPTOTE = (1e-4, 1e4, (0.5, 0.1, 0.8))
_COEFFICIENT = (1e-5, 1e4, (0.2, 1.0, 5.0))
_PURE = (1e-4, 1e4, (0.3, 1.0, 0.03, 5.0))
_UNKNOWN_SIZE = (*_WIDE, (1.0, 1e3, 1e-3, 1e6, 1e9))

Bounds = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class _Computed:
    """The function of a law: its tree, and the parameters that are fixed numbers. Picklable, unlike a closure."""

    tree: Node
    fixed: tuple[tuple[str, float], ...]

    def __call__(self, inputs: Values, parameters: Values) -> Any:
        return compute(self.tree, {**inputs, **parameters, **dict(self.fixed)})


@dataclass(frozen=True)
class _Power:
    """The power of an input's unit that a parameter carries, as a function of the exponents."""

    dimensions: Dimensions
    row: int
    column: int
    fixed: tuple[tuple[str, float], ...]

    def __call__(self, parameters: Values) -> Any:
        return self.dimensions.powers({**parameters, **dict(self.fixed)})[..., self.row, self.column]


def read_formula(text: str, name: str = "formula", bounds: Mapping[str, Any] | None = None) -> Law:
    """The law that a formula says; `bounds` parameter -> (low, high) in the table's units, equal ones fix it.

    Bounds may also stand in the text, after semicolons; `Law.formula` is that text, which reads back to the same law.
    Raises InputError (code invalid_formula) naming the position and the mend, also where the law would depend on the
    unit of an input, as `log(data)` and `1 + data` do.
    """
    body, *clauses = text.split(";")
    tree = parse(body)
    inputs = tuple(role for role in ROLES if role in tree.names)
    names = tuple(each for each in tree.names if each not in ROLES)
    _check_names(body, tree, inputs, names)
    limits = {**_clauses(text, clauses), **dict(bounds or {})}
    powered = {each for node in tree.walk() if node.kind == "**" for each in node.parts[1].names}
    exponents = tuple(each for each in names if each in powered)
    limited = {each: _limit(text, each, pair, names, each in exponents) for each, pair in limits.items()}
    fixed = tuple((each, low) for each, (low, high) in limited.items() if low == high)
    open_names = tuple(each for each in names if each not in dict(fixed))
    if not open_names:
        raise refuse(text, 1, "every parameter is fixed; leave at least one open")
    dimensions = _dimensions(body, tree, inputs, names, exponents, dict(fixed))
    units = _units(dimensions, inputs, dict(fixed))
    # A bound in the table's units holds as it is only where the input is left in the table's units.
    bounded = {role for each in limited if each in units for role in units[each] if role in ROLES}
    unscaled = tuple(role for role in inputs if role in UNSCALED or role in bounded)
    if {"data", "unique"} & bounded:
        unscaled = tuple(role for role in inputs if role in (*unscaled, "data", "unique"))
    function = _Computed(tree, fixed)
    linear = _linear(function, inputs, open_names, exponents)
    parameters = [_parameter(each, units.get(each), limited.get(each), unscaled) for each in open_names]
    parameters = _thin(parameters, linear)
    suffix = "".join(f"; {each} = {low!r}" if low == high else f"; {each} in [{low!r}, {high!r}]"
                     for each, (low, high) in limited.items())  # fmt: skip
    return Law(
        name,
        " ".join(body.split()) + suffix,
        function,
        tuple(parameters),
        inputs,
        "loss",
        "the user's own formula",
        linear=linear,
        zero=_zero(function, inputs, open_names),
        unscaled=unscaled,
        units="as in the table",
    )


def find_law(law: str | Law) -> Law:
    """The law itself, the one registered under that name, or the one that a formula or NAME=FORMULA says."""
    if isinstance(law, Law):
        return law
    name, equals, rest = law.partition("=")
    registered = [entry.name for entry in entries("rayscale.laws")]
    if law in registered:
        return find_registered(law)
    if equals and ";" not in name:
        name = name.strip()
        if name in (*registered, "auto") or not re.fullmatch(r"[A-Za-z_]\w{0,63}", name):
            why = "is the name of a built-in law" if name.isidentifier() else "is not a valid name"
            raise InputError(f"'{name}' {why}; give your law another name, as in my_law={rest.strip()}", where="law")
        return read_formula(rest, name)
    if re.search(r"[-+*/()\s;]", law.strip()) and ":" not in law:
        return read_formula(law)
    return find_registered(law)


def find_saved(name: str, formula: str | None) -> Law:
    """The law that a saved fit names: the registered one, else the user's own, read from its formula."""
    known = ":" in name or formula is None or name in [entry.name for entry in entries("rayscale.laws")]
    return find_registered(name) if known else read_formula(str(formula), name)


def read_laws(value: Any) -> tuple[Law, ...] | None:
    """The laws of a study's key `laws`: None for auto; else a name, a list of names, or name -> {formula, bounds}.

    Raises InputError for the first that is wrong.
    """
    if value == "auto":
        return None
    if isinstance(value, Mapping):
        return tuple(find_user_law(name, each) for name, each in value.items())
    return tuple(find_law(each) for each in ([value] if isinstance(value, str) else value))


def find_user_law(name: str, said: Mapping[str, Any]) -> Law:
    """The law of one entry of a study's mapping `laws`."""
    if name in [entry.name for entry in entries("rayscale.laws")] or name == "auto":
        raise InputError(f"'{name}' is the name of a built-in law; give your law another name", code="invalid_formula")
    return read_formula(said["formula"], name, said.get("bounds"))


def _check_names(text: str, tree: Node, inputs: tuple[str, ...], names: tuple[str, ...]) -> None:
    for node in tree.walk():
        if node.name in _MEANT:
            raise refuse(text, node.at, f"'{node.name}' is not an input; write {_MEANT[node.name]}")
        if len(node.name) > 32:
            raise refuse(text, node.at, "the name is longer than 32 characters")
    if not inputs:
        hints = [hint for each in names if (hint := nearest(each, list(ROLES)))]
        raise refuse(text, 1, f"it has none of the inputs {', '.join(ROLES)}{hints[0] if hints else ''}")
    if not names:
        raise refuse(text, 1, "it has no parameter to fit; write E + B * data ** -beta, for example")
    if len(names) > MAX_PARAMETERS:
        raise refuse(text, 1, f"it has {len(names)} parameters; a fit takes at most {MAX_PARAMETERS}")


def _clauses(text: str, clauses: list[str]) -> dict[str, tuple[Any, Any]]:
    bounds: dict[str, tuple[Any, Any]] = {}
    for number, clause in enumerate(clauses):
        if not clause.strip():
            continue
        match = _BOUND.fullmatch(clause)
        at = sum(len(each) + 1 for each in text.split(";")[: number + 1]) + 1
        if match is None:
            raise refuse(text, at, f"'{clause.strip()}' is not a bound; write beta in [0.1, 1] or beta = 0.5")
        if match[1] in bounds:
            raise refuse(text, at, f"{match[1]} has two bounds; keep one")
        bounds[match[1]] = (match[2], match[2]) if match[2] else (match[3], match[4])
    return bounds


def _limit(text: str, name: str, pair: Any, names: tuple[str, ...], exponent: bool) -> tuple[float, float]:
    """The bounds of a parameter, checked: two finite numbers in order, and above 0 unless it is an exponent."""
    if name not in names:
        known = f"{nearest(name, list(names))} (it has: {', '.join(names)})"
        raise refuse(text, 1, f"bounds for '{name}', which is not one of its parameters{known}")
    example = f"write {name}: [low, high]"
    if isinstance(pair, str) or not hasattr(pair, "__len__") or len(pair) != 2:
        raise refuse(text, 1, f"the bounds of {name} are {pair!r}; {example}")
    if any(isinstance(each, bool) for each in pair):
        raise refuse(text, 1, f"the bounds of {name} are {pair!r}; {example}, two numbers")
    try:
        low, high = (float(each) for each in pair)
    except (TypeError, ValueError, OverflowError):
        raise refuse(text, 1, f"the bounds of {name} are {pair!r}; {example}, two numbers") from None
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise refuse(text, 1, f"the bounds of {name} are {low:g} and {high:g}; {example}, the lower one first")
    if exponent or low == high:
        return low, high
    if low < 0 or high <= 0:
        mend = "a coefficient is positive: write its sign into the formula"
        raise refuse(text, 1, f"the bounds of {name} are {low:g} and {high:g}; {mend}")
    return (low if low > 0 else high * 1e-9), high  # fitted as a logarithm, which has no 0


def _dimensions(
    text: str, tree: Node, inputs: tuple[str, ...], names: tuple[str, ...], exponents: tuple[str, ...],
    fixed: Mapping[str, float],
) -> Dimensions:  # fmt: skip
    """The equations of its units; raises InputError where no choice of parameters makes up for a change of units."""
    # Data and unique data count the same thing, so they change units together.
    roles = [role for role in inputs if role not in UNSCALED and not (role == "unique" and "data" in inputs)]
    unknown = tuple(each for each in names if each not in exponents)
    tree = _as_data(tree) if {"data", "unique"} <= set(inputs) else tree
    for known in ((*roles, "target"), tuple(roles)):
        dimensions = Dimensions(tree, unknown, known, exponents)
        trials = [dimensions.dependence({**generic(exponents, turn), **fixed}) for turn in (1, 2)]
        wrong = next((each for each in trials if each is not None), None)
        if wrong is None:
            return dimensions
        if wrong[0] == "target":
            continue  # a number beside the terms, as in 1 - A * params ** -alpha: the target is a pure number
        role, place = wrong
        if not role:
            raise refuse(text, place.at, f"an exponent in '{place.text}' is too large to be computed")
        mend = (
            f"divide {role} by a parameter ({role} / {role[0].upper()}0), or make a number a parameter (bounds fix it)"
        )
        raise refuse(text, place.at, f"the value of '{place.text}' depends on the unit of {role}; {mend}")
    raise refuse(text, 1, "its units cannot be derived; simplify it")


def _as_data(node: Node) -> Node:
    return Node(node.kind, node.at, node.text, tuple(map(_as_data, node.parts)), node.value,
                "data" if node.name == "unique" else node.name)  # fmt: skip


def _units(
    dimensions: Dimensions, inputs: tuple[str, ...], fixed: Mapping[str, float]
) -> dict[str, dict[str, str | float | Callable[[Values], Any]]]:
    """Coefficient -> {role (or target): the power it carries}: a number, an exponent's name, or a function of them."""
    units: dict[str, dict[str, str | float | Callable[[Values], Any]]] = {}
    values = [{**generic(dimensions.exponents, turn), **fixed} for turn in (1, 2)]
    first, second = (dimensions.powers(each) for each in values)
    free = [each for each in dimensions.exponents if each not in fixed]
    for i, name in enumerate(dimensions.unknown):
        units[name] = {}
        for j, role in enumerate(dimensions.known):
            pair = np.array([first[i, j], second[i, j]])
            if np.ptp(pair) < 1e-9:
                if abs(pair[0]) > 1e-9:
                    units[name][role] = float(np.round(pair[0], 9))
                continue
            signed = [(sign + each, factor * np.array([value[each] for value in values]))
                      for each in free for sign, factor in (("", 1), ("-", -1))]  # fmt: skip
            simple = next((name_of for name_of, expected in signed if np.allclose(pair, expected, atol=1e-9)), None)
            units[name][role] = simple or _Power(dimensions, i, j, tuple(fixed.items()))
    return units


def _parameter(
    name: str, carried: Mapping[str, Any] | None, bounds: tuple[float, float] | None, unscaled: tuple[str, ...]
) -> Parameter:
    """The parameter with its kind, bounds, starts and units; `carried` is None for an exponent."""
    if carried is None:
        low, high, starts = (*bounds, _spread(*bounds)) if bounds else EXPONENT
        return Parameter(name, "exponent", low, high, starts)
    unit = tuple((role, power) for role, power in carried.items() if role in ROLES and role not in unscaled)
    if bounds:
        low, high = bounds
        middle = tuple(math.exp(each) for each in _spread(math.log(low), math.log(high)))
        return Parameter(name, "positive", low, high, middle, unit)
    if any(role in unscaled and role not in UNSCALED for role in carried):
        return Parameter(name, "positive", *_UNKNOWN_SIZE, unit)
    if carried.get("target") == 1.0:
        alone = not any(role in ROLES for role in carried)
        return Parameter(name, "coefficient", *(_ASYMPTOTE if alone else _COEFFICIENT), unit)
    return Parameter(name, "positive", *_PURE, unit)


def _spread(low: float, high: float) -> tuple[float, ...]:
    return tuple(low + (high - low) * share for share in (0.5, 1 / 6, 5 / 6))


def _thin(parameters: list[Parameter], linear: tuple[str, ...]) -> list[Parameter]:
    """Fewer starts for each, evenly, until those that a fit has to try are at most MAX_STARTS; the first one stays."""
    counts = {each.name: 1 if each.name in linear and linear else len(each.starts) for each in parameters}
    while math.prod(counts.values()) > MAX_STARTS:
        most = max(counts, key=lambda name: counts[name])
        counts[most] -= 1
    return [
        Parameter(each.name, each.kind, each.low, each.high, tuple(sorted(each.starts[: counts[each.name]])), each.unit)
        for each in parameters
    ]


def _linear(
    function: _Computed, inputs: tuple[str, ...], names: tuple[str, ...], exponents: tuple[str, ...]
) -> tuple[str, ...]:
    """The most parameters, taken in order, in which the law is a sum of terms, each one of them times the rest."""
    sizes = {role: np.random.default_rng(5).uniform(0.4, 2.5, 7) for role in inputs}

    def value(base: Mapping[str, float], **changed: float) -> Any:
        with np.errstate(all="ignore"):
            return np.asarray(function(sizes, {**base, **changed}))

    def is_sum(chosen: tuple[str, ...]) -> bool:
        for turn in (3, 4):
            base = {**generic(names, turn), **dict.fromkeys(chosen, 0.0)}
            single = {each: value(base, **{each: 1.0}) for each in chosen}
            if not np.allclose(value(base), 0.0, atol=1e-12):
                return False
            pairs = [value(base, **{one: 1.0, other: 1.0}) - single[one] - single[other]
                     for one, other in combinations(chosen, 2)]  # fmt: skip
            scaled = [value(base, **{each: 2.5}) - 2.5 * single[each] for each in chosen]
            if not all(np.allclose(each, 0.0, atol=1e-9) for each in (*pairs, *scaled)):
                return False
        return True

    candidates = [each for each in names if each not in exponents]
    for count in range(len(candidates), 0, -1):
        for chosen in combinations(candidates, count):
            if is_sum(chosen):
                return chosen
    return ()


def _zero(function: _Computed, inputs: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    """The inputs at 0 of which the law has a finite value other than 0, as E + B / (D0 + data ** beta) has."""

    def is_finite(role: str) -> bool:
        sizes = {**dict.fromkeys(inputs, np.ones(1)), role: np.zeros(1)}
        with np.errstate(all="ignore"):
            values = [np.asarray(function(sizes, generic(names, turn))) for turn in (1, 2)]
        return all(bool((np.isfinite(value) & (value != 0)).all()) for value in values)

    return tuple(role for role in inputs if role in ("data", "unique") and is_finite(role))
