"""What is told of an exception, as plain values: secrets are taken out."""

from __future__ import annotations

from typing import Any

from rayscale.errors import RayscaleError
from rayscale.system.redaction import redact


def describe(failure: BaseException) -> dict[str, Any]:
    """An exception as plain values: message, code, whether a retry is pointless, traceback. Secrets are taken out."""
    ours = isinstance(failure, RayscaleError)
    message = str(failure).strip() or type(failure).__name__ if ours else f"{type(failure).__name__}: {failure}"
    return {
        "message": redact(message),
        "code": getattr(failure, "code", "exception"),
        "type": type(failure).__name__,
        "micro_batch": getattr(failure, "micro_batch", None),
        "permanent": bool(getattr(failure, "permanent", False)) or getattr(failure, "exit_code", 1) == 2,
        "traceback": traceback_of(failure),
        **({"step": failure.step} if hasattr(failure, "step") else {}),  # put there by `train_trial`
    }


def traceback_of(failure: BaseException) -> str:
    """The traceback as text, without secrets."""
    import traceback

    return redact("".join(traceback.format_exception(failure)))


def error_json(error: RayscaleError) -> dict[str, Any]:
    """The `error` object of `--json`."""
    return {"code": error.code, "message": redact(str(error)), "where": error.where and redact(error.where)}
