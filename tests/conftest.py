"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

import pytest


def pytest_configure() -> None:
    """Give Ray a token of the tests' own, before it looks for one: it keeps the first it finds in this process.

    Else it writes ~/.ray/auth_token, and a later Ray of the same process wants another token than the first had.
    """
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        path = Path(tempfile.mkdtemp(prefix="rayscale-tests-")) / "auth_token"
        path.write_text(secrets.token_hex(32))
        path.chmod(0o600)
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real tables and texts beside the repository; tests that need it skip where it is absent."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data folder not found: {folder}")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test session has its own cache: no test reads what an earlier run left."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("RAYSCALE_CACHE", str(cache))
    return cache
