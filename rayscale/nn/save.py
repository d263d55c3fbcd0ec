"""A trained model as a folder that loads by `from_pretrained`: weights, config with label names, tokenizer."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from rayscale.errors import TrialError


def save_model(model: PreTrainedModel, tokenizer: Path, folder: Path) -> None:
    """Writes `folder` as a whole or not at all: safetensors, config.json, and the files of the `tokenizer` folder.

    Raises TrialError if the tokenizer is missing or the disk refuses.
    """
    if not tokenizer.is_dir():
        raise TrialError(f"no tokenizer at {tokenizer}; prepare the data again", code="no_tokenizer", permanent=True)
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        shutil.copytree(tokenizer, part)
        transformers_logging.disable_progress_bar()  # its bars would break the lines of an inline run
        model.save_pretrained(part)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(part, folder)
    except OSError as error:
        raise TrialError(f"the model cannot be saved to {folder}: {error}", code="not_saved") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
