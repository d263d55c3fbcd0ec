"""What is kept of an exception, as plain values: secrets are taken out."""

from __future__ import annotations

import traceback
from typing import TypedDict

from rayscale.errors import RayscaleError
from rayscale.system.redaction import redact


class Failure(TypedDict, total=False):
    """Why an attempt failed. `permanent`: a retry cannot help. `micro_batch`: rows at once, where memory did not
    suffice. `rank` and `host` are those of the worker, `size` the slots that were held for `seconds`; `gave_up` says
    why there is no further attempt."""

    message: str
    code: str
    type: str
    micro_batch: int | None
    permanent: bool
    traceback: str
    step: int | None
    rank: int
    host: str | None
    seconds: float
    size: int
    gave_up: str


def describe(failure: BaseException) -> Failure:
    """An exception as plain values. Secrets are taken out."""
    ours = isinstance(failure, RayscaleError)
    message = str(failure).strip() or type(failure).__name__ if ours else f"{type(failure).__name__}: {failure}"
    described: Failure = {
        "message": redact(message),
        "code": getattr(failure, "code", "exception"),
        "type": type(failure).__name__,
        "micro_batch": getattr(failure, "micro_batch", None),
        "permanent": bool(getattr(failure, "permanent", False)) or getattr(failure, "exit_code", 1) == 2,
        "traceback": traceback_of(failure),
    }
    if hasattr(failure, "step"):  # put there by `train_trial`
        described["step"] = failure.step
    return described


def traceback_of(failure: BaseException) -> str:
    """The traceback as text, without secrets."""
    return redact("".join(traceback.format_exception(failure)))


def error_json(error: RayscaleError) -> dict[str, str | None]:
    """The `error` object of `--json`."""
    return {"code": error.code, "message": redact(str(error)), "where": error.where and redact(error.where)}
