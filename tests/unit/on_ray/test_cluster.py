"""Tasks on one node of the cluster, without a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from rayscale.on_ray import cluster, doctor
from rayscale.on_ray.lanes import processes

Options = list[dict[str, Any]]


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Options:
    """With which options tasks are begun: none runs."""
    begun: Options = []

    class Task:
        def options(self, **options: Any) -> Task:
            begun.append(options)
            return self

        def remote(self, *values: Any) -> None: ...

    monkeypatch.setattr(cluster, "_task", lambda function: Task())
    return begun


def test_a_process_of_another_node_is_killed_once(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    class Context:
        def get_node_id(self) -> str:
            return "here"

    monkeypatch.setattr(processes.ray, "get_runtime_context", Context)
    processes.kill_workers([processes.Member(None, "a" * 56, 1, "there")])
    assert [option["max_retries"] for option in options] == [0]


def test_a_node_that_does_not_answer_the_doctor_is_not_asked_again(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"versions": {}, "time": 0.0, "sees": True, "raylet": 1}
    node = {"NodeID": "a" * 56, "NodeManagerHostname": "there", "Resources": {}}
    monkeypatch.setattr(cluster, "living_nodes", lambda: [node])
    monkeypatch.setattr("ray.get", lambda reference, timeout: answer)
    assert [report.name for report in doctor._ask_nodes(None)] == ["there"]
    assert [option["max_retries"] for option in options] == [0, 0]
