"""Attributes have another value for a while, and then their own again, whatever happened meanwhile."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rayscale.system.overrides import overridden


def fail_within(owner: SimpleNamespace) -> None:
    with overridden(owner, one=10, two=20):
        assert (owner.one, owner.two) == (10, 20)
        owner.one = 11
        raise KeyError


def test_attributes_come_back_also_after_an_error() -> None:
    owner = SimpleNamespace(one=1, two=2)
    with pytest.raises(KeyError):
        fail_within(owner)
    assert (owner.one, owner.two) == (1, 2)


def test_what_is_not_there_is_not_made() -> None:
    owner = SimpleNamespace(two=2)
    with pytest.raises(AttributeError):
        fail_within(owner)
    assert vars(owner) == {"two": 2}
