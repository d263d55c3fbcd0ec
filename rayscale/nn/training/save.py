"""A trained model as a folder that loads by `from_pretrained`: weights, config with label names, tokenizer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from transformers import GenerationConfig, PreTrainedModel

from rayscale.errors import TrialError
from rayscale.nn.loading import quiet
from rayscale.nn.models.kept_tokenizer import write_tokenizer
from rayscale.nn.models.objectives import TYPES, kinds_of
from rayscale.nn.training.job import Job
from rayscale.study.checkpoints import find_checkpoint
from rayscale.system.disk import write_folder
from rayscale.system.overrides import overridden

#: Settings of a checkpoint's way to write that mean nothing where the likeliest token is taken, and are refused there.
_OF_OTHER_WAYS = ("temperature", "top_p", "top_k", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
                  "early_stopping", "length_penalty", "num_beam_groups", "diversity_penalty", "max_length")  # fmt: skip


def save_model(job: Job, model: PreTrainedModel, checkpoint: str | None, folder: Path) -> None:
    """Writes `folder` as a whole or not at all: safetensors, config.json, how it writes, and the tokenizer.

    Loaded without this package, it gives the numbers of the record. `checkpoint` is the folder where the model comes
    from; None where that is what the model of the trial says. Raises TrialError if the tokenizer is missing or does not
    load as it was in training, or the disk refuses.
    """
    prepared, spec = job.prepared.tokenizer_folder, job.trial.model
    if not prepared.is_dir():
        raise TrialError(f"no tokenizer at {prepared}; prepare the data again", code="no_tokenizer", permanent=True)
    if checkpoint is None and spec.path is not None:
        checkpoint = str(find_checkpoint(spec.path, spec.revision).folder)
    types = TYPES in job.objective.extra(job.prepared.split("test"), np.arange(1), job.longest) and kinds_of(model) > 1
    windows = job.trial.task.kind.axis == "tokens"
    length = None if windows else job.trial.task.max_length or job.longest

    def write(part: Path) -> None:
        with _as_recorded(job, model), quiet():  # bars would break the lines of an inline run
            model.save_pretrained(part)
        write_tokenizer(prepared, Path(checkpoint) if checkpoint else None, model, types, length, part)

    try:
        write_folder(folder, write, lambda _: False)
    except OSError as error:
        raise TrialError(f"the model cannot be saved to {folder}: {error}", code="not_saved") from error


@contextlib.contextmanager
def _as_recorded(job: Job, model: PreTrainedModel) -> Iterator[None]:
    """Within, the model says how it wrote what its scores are of; without a cache it was only trained."""
    if not model.can_generate():
        yield
        return
    way = model.generation_config
    new = GenerationConfig.from_dict(way.to_dict()) if way is not None else GenerationConfig()
    new.use_cache = True
    if settings := job.objective.writing(job.prepared):
        new.update(**dict.fromkeys(_OF_OTHER_WAYS), **settings)
    cache = {} if getattr(model.config, "use_cache", None) is None else {"use_cache": True}
    with overridden(model.config, **cache), overridden(model, generation_config=new):
        yield
