"""A formula as text → a small tree that can be computed; nothing in it is ever run as Python.

Allowed are numbers, names, + - * / **, a leading minus, parentheses, and exp, log, sqrt, min, max. Everything works on
complex numbers too, so that fits can take derivatives by a complex step (comparisons look at the real part only).
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayscale.errors import InputError

# A law of twelve parameters fits in a line; the limits keep a hostile study file from costing memory or stack.
MAX_LENGTH = 500
MAX_DEPTH = 40

_OPERATORS = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**"}
_FUNCTIONS = {"exp": 1, "log": 1, "sqrt": 1, "min": 2, "max": 2}
# Words that people write out of habit, with what to write instead.
_MENDS = {"ln": "log", "pow": "**", "abs": "sqrt(x ** 2)", "minimum": "min", "maximum": "max"}


@dataclass(frozen=True)
class Node:
    """One step of a formula: `kind` is number, name, minus, an operator or a function; `at` its position from 1."""

    kind: str
    at: int
    text: str
    parts: tuple[Node, ...] = ()
    value: float = 0.0
    name: str = ""

    def walk(self) -> Iterator[Node]:
        """This node and all below it, in the order of the text."""
        yield self
        for part in self.parts:
            yield from part.walk()

    @property
    def names(self) -> tuple[str, ...]:
        """The names in it, each once, in the order of the text."""
        return tuple(dict.fromkeys(node.name for node in self.walk() if node.kind == "name"))


def refuse(text: str, at: int, message: str) -> InputError:
    """The error for a formula: quotes it, names the position (from 1) and the mend."""
    shown = text if len(text) <= 80 else text[:77] + "..."
    return InputError(f"formula '{shown}', position {at}: {message}", code="invalid_formula")


def parse(text: str) -> Node:
    """The tree of a formula; raises InputError (code invalid_formula) naming position and mend."""
    if len(text) > MAX_LENGTH:
        raise refuse(text, MAX_LENGTH, f"it has {len(text)} characters; write it with at most {MAX_LENGTH}")
    strange = re.search(r"[^\x20-\x7e]", text)
    if strange:
        raise refuse(text, strange.start() + 1, f"{strange[0]!r} is not allowed in a formula; use plain ASCII")
    stripped = text.strip()
    lead = len(text) - len(text.lstrip())
    if not stripped:
        raise refuse(text, 1, "it is empty; write one such as E + B * data ** -beta")
    try:
        tree = ast.parse(stripped, mode="eval").body
    except SyntaxError as error:
        hint = "; an = belongs before the formula (name = formula)" if re.search(r"(?<![=<>!])=(?!=)", text) else ""
        at = min(error.offset or len(stripped), len(stripped)) + lead  # 0 where it ends too early
        raise refuse(text, at, f"cannot be read: {error.msg}{hint}") from None
    except (ValueError, MemoryError, RecursionError):
        raise refuse(text, 1, "cannot be read: it is nested too deeply") from None
    return _build(tree, text, lead, 0)


def _build(node: ast.expr, text: str, lead: int, depth: int) -> Node:
    at = node.col_offset + 1 + lead
    source = text[at - 1 : (node.end_col_offset or 0) + lead]
    if depth > MAX_DEPTH:
        raise refuse(text, at, f"it is nested more than {MAX_DEPTH} deep; simplify it")

    def inner(part: ast.expr) -> Node:
        return _build(part, text, lead, depth + 1)

    if isinstance(node, ast.Constant):
        return Node("number", at, source, value=_number(node, text, at))
    if isinstance(node, ast.Name):
        if node.id in _FUNCTIONS:
            raise refuse(text, at, f"{node.id} needs its argument in parentheses: {node.id}(...)")
        return Node("name", at, source, name=node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        part = inner(node.operand)
        return Node("minus", at, source, (part,)) if isinstance(node.op, ast.USub) else part
    if isinstance(node, ast.BinOp):
        kind = _OPERATORS.get(type(node.op))
        if kind is None:
            after = (node.left.end_col_offset or 0) + lead
            between = text[after : node.right.col_offset + lead].strip()
            mend = "; write ** for a power" if isinstance(node.op, ast.BitXor) else ""
            at = text.index(between, after) + 1
            raise refuse(text, at, f"'{between}' is not an operator of a formula (+ - * / **){mend}")
        return Node(kind, at, source, (inner(node.left), inner(node.right)))
    if isinstance(node, ast.Call):
        _check_call(node, text, at, source)
        return Node(source.partition("(")[0].strip(), at, source, tuple(inner(part) for part in node.args))
    allowed = "numbers, names, + - * / **, parentheses, exp, log, sqrt, min, max"
    raise refuse(text, at, f"'{source}' is not allowed in a formula (allowed: {allowed})")


def _number(node: ast.Constant, text: str, at: int) -> float:
    if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
        raise refuse(text, at, f"{node.value!r} is not a real number")
    try:
        value = float(node.value)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise refuse(text, at, "the number is too large")
    return value


def _check_call(node: ast.Call, text: str, at: int, source: str) -> None:
    name = source.partition("(")[0].strip()
    if name not in _FUNCTIONS:
        mend = f"; write {_MENDS[name]}" if name in _MENDS else f" (known: {', '.join(_FUNCTIONS)})"
        raise refuse(text, at, f"there is no function {name or source}{mend}")
    wanted = _FUNCTIONS[name]
    if node.keywords or len(node.args) != wanted:
        raise refuse(text, at, f"{name} takes {wanted} argument{'s' if wanted > 1 else ''}")


def compute(node: Node, values: Mapping[str, Any]) -> Any:
    """The formula's value; `values` name -> number or array, real or complex, of any broadcastable shapes."""
    if node.kind == "number":
        return np.float64(node.value)
    if node.kind == "name":
        return values[node.name]
    return _OPERATIONS[node.kind](*[compute(part, values) for part in node.parts])


def _exp(z: Any) -> Any:
    """exp of a real z, or of one whose imaginary part is the step of a derivative, about 1e-20: its sine is itself."""
    if not np.iscomplexobj(z):
        return np.exp(z)
    grown = np.exp(z.real)  # a fifth of the time of a complex exp
    return grown + 1j * (grown * z.imag)


def _raise(base: Any, exponent: Any) -> Any:
    if np.ndim(exponent) == 0 and np.isrealobj(exponent) and float(exponent).is_integer() and abs(exponent) <= 16:
        # A whole power of a negative number is real, which exp(e * log(b)) would not find.
        whole = base ** abs(int(exponent))
        return whole if exponent >= 0 else np.divide(1.0, whole)
    # exp of a log, not a power: a real base to a complex exponent is many times slower in numpy.
    zero = np.real(base) == 0
    if not np.any(zero):
        return _exp(exponent * np.log(base))
    grown = _exp(exponent * np.log(np.where(zero, 1.0, base)))
    return np.where(zero, np.where(np.real(exponent) > 0, 0.0, np.inf), grown)


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": np.divide,  # of 0, where that of Python raises
    "**": _raise,
    "minus": operator.neg,
    "exp": _exp,
    "log": np.log,
    "sqrt": np.sqrt,
    # By the real parts: a complex step must not decide.
    "min": lambda one, other: np.where(np.real(one) <= np.real(other), one, other),
    "max": lambda one, other: np.where(np.real(one) >= np.real(other), one, other),
}
