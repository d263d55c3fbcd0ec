"""How a fit ended: five outcomes, each with what it means and what to do about it."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """The outcome of a fit, in JSON its value; `sentence` says what it means, `advice` what to do (empty: nothing)."""

    sentence: str
    advice: str

    CONVERGED = "converged", "converged"
    FLAT = (
        "flat",
        "flat: the data barely constrain one parameter",
        "Use the predictions, but do not quote the parameters: many combinations fit equally well.",
    )
    AT_BOUND = (
        "at_bound",
        "at a bound: a parameter reached its search limit",
        "Widen the range of sizes, or choose a law with fewer parameters.",
    )
    NOT_IDENTIFIABLE = "not_identifiable", "not identifiable: this design cannot separate the law's parameters"
    FAILED = "failed", "failed: no minimum was found"

    def __new__(cls, value: str, sentence: str = "", advice: str = "") -> Outcome:
        """The member whose JSON value is `value`."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        member.advice = advice
        return member

    @property
    def usable(self) -> bool:
        """Whether the fit has parameters and predicts."""
        return self not in (Outcome.NOT_IDENTIFIABLE, Outcome.FAILED)
