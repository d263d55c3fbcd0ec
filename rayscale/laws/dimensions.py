"""Which powers of the inputs' units the parameters of a formula carry, as B of B * data ** -beta carries data ** beta.

A formula means the same in every unit when a change of units can be undone by its parameters. Writing log(unit) for
every name, each sum, comparison, exponent and argument of exp or log gives one linear equation; the equations are
solved for the parameters' powers, at given values of the exponents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayscale.laws.grammar import Node, compute
from rayscale.laws.law import Array


@dataclass(frozen=True)
class Dimensions:
    """The unit of a formula's names. `unknown`: parameters whose unit is sought; `known`: roles, and the target if it
    has a unit; `exponents`: parameters that are pure numbers."""

    tree: Node
    unknown: tuple[str, ...]
    known: tuple[str, ...]
    exponents: tuple[str, ...]

    def powers(self, values: Mapping[str, Any]) -> Array:
        """(..., unknown, known): how a parameter scales with each input, at values of the exponents, (...) each."""
        rows, _ = self._equations(values)
        m = len(self.unknown)
        # The least of all solutions: of A * B * data ** -beta, A and B carry half each.
        solved = -np.linalg.pinv(rows[..., :m], rcond=1e-10) @ rows[..., m:]
        return np.asarray(np.where(np.abs(solved) < 1e-12, 0.0, solved))

    def dependence(self, values: Mapping[str, float]) -> tuple[str, Node] | None:
        """The name and place where the formula depends on the unit of an input (or of the target), None if nowhere.

        The name is empty where an exponent is too large to be computed.
        """
        with np.errstate(all="ignore"):
            rows, places = self._equations(values)
        m = len(self.unknown)
        for row, place in zip(rows, places, strict=True):
            if not np.isfinite(row).all():
                return "", place
        for count in range(1, len(places) + 1):
            left, right = rows[:count, :m], rows[:count, m:]
            miss = np.abs(right - left @ (np.linalg.pinv(left, rcond=1e-10) @ right)).max(0)
            if (miss > 1e-7).any():
                return self.known[int(np.argmax(miss > 1e-7))], places[count - 1]
        return None

    def _equations(self, values: Mapping[str, Any]) -> tuple[Array, list[Node]]:
        """Rows (..., equations, unknown + known) whose products with the logs of the units must be 0; their places."""
        names = (*self.unknown, *self.known)
        values = {name: np.asarray(values[name], dtype=float) for name in self.exponents}
        shape = np.broadcast_shapes(*(value.shape for value in values.values()), ())
        rows: list[tuple[Array, Node]] = []

        def unit(node: Node) -> Array:
            powers = np.zeros((*shape, len(names)))
            if node.kind == "number":
                return powers
            if node.kind == "name":
                if node.name in names:
                    powers[..., names.index(node.name)] = 1.0
                return powers
            parts = [unit(part) for part in node.parts]
            match node.kind:
                case "*":
                    return parts[0] + parts[1]
                case "/":
                    return parts[0] - parts[1]
                case "minus":
                    return parts[0]
                case "sqrt":
                    return parts[0] / 2
                case "**":
                    rows.append((parts[1], node.parts[1]))
                    if set(node.parts[1].names) <= set(self.exponents):
                        power = np.asarray(compute(node.parts[1], values))
                        return np.asarray(parts[0] * power[..., None])
                    rows.append((parts[0], node.parts[0]))
                    return powers
                case "exp" | "log":
                    rows.append((parts[0], node))
                    return powers
            rows.append((parts[0] - parts[1], node))
            return parts[0]

        whole = unit(self.tree)
        if "target" in self.known:
            whole[..., names.index("target")] -= 1.0
        rows.append((whole, self.tree))
        return np.stack([np.broadcast_to(row, (*shape, len(names))) for row, _ in rows], -2), [at for _, at in rows]


def generic(names: Sequence[str], turn: int) -> dict[str, float]:
    """Values between 0.3 and 1.4 without any relation between them, another set for each turn."""
    drawn = np.random.default_rng(turn).uniform(0.3, 1.4, len(names))
    return dict(zip(names, drawn.tolist(), strict=True))
