"""What transformers loads from a folder of this machine: silently, safetensors alone, no code of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from rayscale.errors import InputError, first_line


@contextmanager
def quiet() -> Iterator[None]:
    """Within, transformers shows no progress bars and no warnings."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def load(from_pretrained: Callable[..., Any], folder: str | Path, **options: Any) -> Any:
    """What `from_pretrained` makes of a folder. Raises InputError where the folder holds nothing that it can load."""
    try:
        with quiet():
            return from_pretrained(folder, trust_remote_code=False, local_files_only=True, **options)
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        text = f"{folder} cannot be loaded: {first_line(error)}; fetch the checkpoint again or give another"
        raise InputError(text, code="bad_checkpoint") from error
