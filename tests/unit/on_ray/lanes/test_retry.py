"""Which failures are tried again: a table."""

from __future__ import annotations

from typing import Any

import pytest

from rayscale.on_ray.lanes.retry import classify, why_not_again


def failure(code: str = "exception", message: str = "broke", step: int | None = 7, **more: Any) -> dict[str, Any]:
    return {"code": code, "message": message, "step": step, "type": "RuntimeError", **more}


@pytest.mark.parametrize(
    ("failures", "retries", "reason"),
    [
        ([failure()], 2, None),
        ([failure()], 0, "the first attempt failed"),
        ([failure(permanent=True)], 9, "a retry cannot help"),
        ([failure(step=3), failure(step=7)], 2, None),
        ([failure(), failure()], 2, "the same error came twice at step 7"),
        ([failure(step=None), failure(step=None)], 2, None),
        ([failure(), failure(message="other")], 2, None),
        ([failure(), failure(type="ValueError")], 2, None),
        ([failure("worker_died"), failure("worker_died")], 2, None),
        ([failure("hang"), failure("hang"), failure("hang")], 2, "all 3 attempts failed"),
        ([failure(), failure("worker_died"), failure()], 3, None),
        ([failure(message="gloo: Connection closed by peer")] * 2, 2, None),
        ([failure("out_of_memory", "micro-batches of 8"), failure("out_of_memory", "micro-batches of 4")], 2, None),
    ],
)
def test_a_failure_is_tried_again_or_not(failures: list[dict[str, Any]], retries: int, reason: str | None) -> None:
    assert why_not_again(failures, retries) == reason


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"code": "too_long", "message": "NCCL"}, "too_long"),
        (
            {"code": "exception", "type": "RuntimeError", "message": "[gloo/transport/tcp] Timed out waiting"},
            "collective",
        ),
        ({"code": "exception", "type": "DistBackendError", "message": "NCCL error"}, "collective"),
        ({"code": "exception", "type": "RuntimeError", "message": "Connection reset by peer"}, "collective"),
        ({"code": "exception", "type": "ObjectLostError", "message": "gone"}, "object_lost"),
        ({"code": "exception", "type": "OwnerDiedError", "message": "gone"}, "object_lost"),
        ({"code": "exception", "type": "ValueError", "message": "shapes differ"}, "exception"),
        ({"message": "no code at all"}, "exception"),
    ],
)
def test_what_an_exception_means(error: dict[str, Any], code: str) -> None:
    assert classify(error) == code
