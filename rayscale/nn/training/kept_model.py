"""The model of the trial before, for a next trial of the same model, which finds its first weights in the same memory.

Recorded steps read parameters and write gradients where these lie, so they serve the next trial, too. A trial is the
same in all bits as on a model that was built for it: every weight and buffer is written anew, new weights are drawn by
the same code from the same seed, and nothing else of a model changes while it is trained.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedModel

from rayscale.nn.determinism import free_memory
from rayscale.nn.devices import restart_memory_peak
from rayscale.nn.models.build import build_model, draw_again
from rayscale.nn.models.size import Size
from rayscale.nn.models.used_rows import UsedRows, find_used, input_table
from rayscale.nn.training.cuda_graphs import CudaGraphs, Pass, Recorder

if TYPE_CHECKING:
    from rayscale.runs.trial import ModelSpec
    from rayscale.study.sections import Task
    from rayscale.text.prepared import Prepared

#: Settings of training that change neither a model nor a recorded pass. Any other one asks for a model of its own.
FREE = {
    "epochs", "global_batch", "batching", "learning_rate", "schedule", "warmup", "cooldown", "weight_decay",
    "momentum", "early_stopping", "plateau_patience", "plateau_factor",
}  # fmt: skip


@dataclass(frozen=True)
class ModelRecipe:
    """What a model is built and made ready by, besides the seed and the tokens of its texts; see `build_model`.

    `settings` are those of training, without FREE ones; `needs` what else `build_model` is given.
    """

    spec: ModelSpec
    task: Task
    settings: Mapping[str, Any]
    needs: Mapping[str, Any]
    device: torch.device

    def build(self, seed: int) -> PreTrainedModel:
        """The model on the CPU, as `build_model` makes it."""
        return build_model(self.spec, self.task.type, seed=seed, **self.needs)


class ReadyModel:
    """A model on its device, ready to train: of this `size`, `unpadded` or not, in this precision; and its recorded
    passes."""

    def __init__(self, recipe: ModelRecipe, model: PreTrainedModel, size: Size, unpadded: bool, precision: str) -> None:
        self.recipe, self.model, self.size, self.unpadded, self.precision = recipe, model, size, unpadded, precision
        self.recorder: Recorder | None = None
        table = input_table(model)
        self._rows = table if isinstance(table, UsedRows) else None  # saving a model takes them out of it
        self._first: PreTrainedModel | None = None  # a checkpoint as it was read, on the CPU

    def record(self, run: Pass) -> Recorder:
        """What runs this trial's passes and records them, or has done so already."""
        if self.recorder is None:
            self.recorder = Recorder(run, CudaGraphs())
        else:
            self.recorder.begin(run)
        return self.recorder

    def fits(self, recipe: ModelRecipe, prepared: Prepared) -> bool:
        """Whether a model that is built by this recipe for these texts would be made of the same parts."""
        if recipe != self.recipe:
            return False
        if recipe.settings["optimizer"] != "adamw":
            return True
        whole = self._rows.table[0] if self._rows is not None else input_table(self.model)
        used = find_used(self.model, whole, prepared)
        if used is None or self._rows is None:
            return used is None and self._rows is None
        return used.tolist() == self._rows.used.tolist()  # type: ignore[operator]

    def begin_anew(self, seed: int) -> None:
        """Back to what it was when it was made ready, with the new weights of another seed."""
        model, rows = self.model, self._rows
        if rows is not None:
            model.set_input_embeddings(rows.table[0])
        first = self._draw(seed)
        tensors = (itertools.chain(source.parameters(), source.buffers()) for source in (model, first))
        with torch.no_grad():
            for kept, given in zip(*tensors, strict=True):
                kept.copy_(given)
            if rows is not None:
                torch.index_select(rows.table[0].weight, 0, rows.used, out=rows.weight.data)  # type: ignore[arg-type]
                model.set_input_embeddings(rows)
        model.zero_grad(set_to_none=self.recorder is None)
        model.train()

    def _draw(self, seed: int) -> PreTrainedModel:
        """The model as it is built for this seed. A checkpoint is read once more, and from then on kept."""
        if self._first is not None:
            draw_again(self._first, seed)
            return self._first
        built = self.recipe.build(seed)
        if self.recipe.spec.kind == "pretrained":
            self._first = built
        return built


class KeptModel:
    """At most one model, kept from one trial to the next."""

    def __init__(self) -> None:
        self.ready: ReadyModel | None = None

    def take(self, recipe: ModelRecipe, seed: int, prepared: Prepared) -> ReadyModel | None:
        """The kept model where it fits, begun anew; None otherwise, and then its memory is free again.

        It is not kept any more, so that a trial which fails leaves none.
        """
        ready, self.ready = self.ready, None
        if ready is None:
            return None
        if ready.fits(recipe, prepared):
            ready.begin_anew(seed)
            return ready
        device = ready.recipe.device
        del ready
        free_memory(device)
        restart_memory_peak(device)  # of the trial that begins nothing is there yet
        return None

    def keep(self, ready: ReadyModel) -> None:
        """Keep a model whose trial came to its end. One with adapters is not: saving it merges them."""
        if ready.recipe.spec.lora is not None:
            return
        if ready.recorder is not None:
            if ready.recorder.failure is not None:
                return
            ready.recorder.end()
        self.ready = ready
