"""Fixtures shared by all tests."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# Before torch and numpy are imported: tests run side by side on few cores, where the threads of tiny products wait for
# each other (a model of a test was trained in 77 s by two threads, in 4 s by one). Trials set their own number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("shared machine", deadline=None)  # no test asserts a time
settings.load_profile("shared machine")


@pytest.hookimpl(tryfirst=True)  # before pytest itself chooses where its files go
def pytest_configure(config: pytest.Config) -> None:
    """Put all files of the tests, Ray's included, below one temporary folder, and give Ray a token of the tests' own.

    The token must be there before Ray looks for one: it keeps the first it finds in this process. Else it writes
    ~/.ray/auth_token, and a later Ray of the same process wants another token than the first had.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So a shell begins what runs in its background, and all that the tests start would ignore SIGINT as well.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="rt-"))  # short: Ray's sockets lie below it
    atexit.register(shutil.rmtree, folder, ignore_errors=True)  # the first one registered is called last
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    config.option.basetemp = config.option.basetemp or str(folder / "p")
    caches = config.rootpath / ".pytest_cache" / "home"  # what libraries keep from run to run, such as lists of fonts
    os.environ.update({"XDG_CACHE_HOME": str(caches), "MPLCONFIGDIR": str(caches / "matplotlib")})
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        path = folder / "auth_token"
        path.write_text(secrets.token_hex(32))
        path.chmod(0o600)
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where a test failed its files may tell why: keep them."""
    if session.testsfailed:
        atexit.unregister(shutil.rmtree)
        print(f"\nfiles of the tests: {tempfile.gettempdir()}")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real tables and texts beside the repository; tests that need it skip where it is absent."""
    return _shared("data", "real data folder")


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The folder of small inputs that once failed; tests that need it skip where it is absent."""
    return _shared("cases", "folder of cases")


def _shared(name: str, what: str) -> Path:
    folder = Path(__file__).parents[2] / "shared" / name
    if not folder.is_dir():
        pytest.skip(f"{what} not found: {folder}")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test session has its own cache: no test reads what an earlier run left."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("RAYSCALE_CACHE", str(cache))
    return cache
