"""What is said of a cluster's nodes, from their answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rayscale.on_ray.doctor import PACKAGES, NodeReport, judge_nodes

HERE = dict.fromkeys(PACKAGES, "1.0")
GOOD = NodeReport("a", {"CPU": 2.0}, HERE, clock_seconds=0.1, trip_seconds=0.01)


def told(*nodes: NodeReport, storage: Path | None = None) -> dict[str, tuple[str, str]]:
    return {each.name: (each.level, each.found) for each in judge_nodes(nodes, HERE, storage)}


def test_nodes_that_agree_are_one_finding_each() -> None:
    assert told(GOOD, replace(GOOD, name="b"), storage=Path("/runs")) == {
        "node a": ("ok", "offers 2 CPU"), "node b": ("ok", "offers 2 CPU")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("package", "version", "level"),
    [("python", "0.9", "fail"), ("ray", "0.9", "fail"), ("torch", "0.9", "warn"), ("torch", None, "fail")],
)
def test_other_versions_are_named(package: str, version: str | None, level: str) -> None:
    found = told(replace(GOOD, versions={**HERE, package: version}))
    assert found[f"node a {package}"] == (level, f"{version or 'not installed'}, here 1.0")


@pytest.mark.parametrize(
    ("off", "trip", "level"),
    [(1.0, 0.1, None), (-30.0, 0.1, "warn"), (86400.0, 1.0, "fail"), (3.0, 4.0, None)],
)
def test_a_clock_is_off_by_more_than_the_way_there_explains(off: float, trip: float, level: str | None) -> None:
    found = told(replace(GOOD, clock_seconds=off, trip_seconds=trip))
    assert found.get("node a clock", (None,))[0] == level


def test_a_node_without_an_answer_and_one_that_does_not_see_the_storage() -> None:
    found = told(replace(GOOD, versions=None), replace(GOOD, name="b", sees_storage=False), storage=Path("/runs"))
    assert found["node a"][0] == "fail"
    assert found["storage on nodes"] == ("warn", "/runs is not seen from b")
    assert "storage on nodes" not in told(replace(GOOD, sees_storage=False))
