"""Which Ray an address means, without one."""

from __future__ import annotations

import pytest
from ray.util import get_node_ip_address

from rayscale.on_ray.session.session import is_same

HERE = get_node_ip_address()


@pytest.mark.parametrize(
    ("address", "there", "same"),
    [
        ("10.0.0.1:6379", "10.0.0.1:6379", True),
        ("10.0.0.2:6379", "10.0.0.1:6379", False),  # the usual port of another cluster
        ("10.0.0.1:6380", "10.0.0.1:6379", False),
        ("localhost:6379", "127.0.0.1:6379", True),
        ("localhost:6379", f"{HERE}:6379", True),
        ("no-such-host.invalid:6379", "no-such-host.invalid:6379", True),
        ("localhost:6379", "a-head:6379", False),
        ("localhost:6379", "10.255.255.1:6379", False),
        ("no-such-host.invalid:6379", "10.0.0.1:6379", False),
    ],
)
def test_a_callers_ray_is_known_by_host_and_port(address: str, there: str, same: bool) -> None:
    assert is_same(address, there) is same
