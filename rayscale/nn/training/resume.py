"""What a trial must know to resume after a step as if it had never stopped, as bytes and back.

Weights and the optimizer's state as safetensors, all else as JSON: nothing that is unpickled, and Python's numbers
survive JSON exactly.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from rayscale.nn.models.weights import read_weights
from rayscale.nn.ranks import Group
from rayscale.nn.training.course import SpeedWindow
from rayscale.runs.savepoints import DamagedError
from rayscale.runs.trial import TRAINING_VERSION, Trial, identity

if TYPE_CHECKING:
    from rayscale.nn.training.course import Course

WEIGHTS, OPTIMIZER, STATE = "weights.safetensors", "optimizer.safetensors", "state.json"
BEST = "best.safetensors"  # with early stopping: the weights of the lowest validation loss


@dataclass(frozen=True)
class Position:
    """Where training is: after `step` steps. `loss_sum` is this rank's since the last point of the curve, in nats,
    `target_sum` the number of all ranks' targets since then."""

    step: int
    loss_sum: float = 0.0
    target_sum: float = 0.0


@dataclass(frozen=True)
class SavedState:
    """A savepoint read back: tensors by name, `best` empty without early stopping, and the values of state.json."""

    weights: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]
    state: Mapping[str, Any]
    best: Mapping[str, torch.Tensor]


def owner_of(trial: Trial, world_size: int) -> dict[str, Any]:
    """Whose savepoints these are: another trial, version or number of ranks cannot resume from them."""
    return {
        "trial_id": trial.trial_id,
        "training_version": TRAINING_VERSION,
        "settings": identity(trial),
        "ranks": world_size,
    }


def capture(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    group: Group,
    at: Position,
    values: Mapping[str, Any],
    best: Mapping[str, torch.Tensor],
) -> dict[str, bytes]:
    """The files of a savepoint, on rank 0; empty on the others, which give their generators and loss. All must call.

    `values` are further ones for state.json, the same on every rank or rank 0's.
    """
    mine = json.dumps({"loss_sum": at.loss_sum, **_read_generators(group.device)}).encode()
    ranks = group.gather(mine)
    if group.rank:
        return {}
    state = {**values, "step": at.step, "target_sum": at.target_sum, "ranks": [json.loads(rank) for rank in ranks]}
    files = {
        WEIGHTS: safetensors.torch.save(_on_cpu(read_weights(model))),
        OPTIMIZER: safetensors.torch.save(_on_cpu(_slots(model, optimizer))),
        STATE: json.dumps(state).encode(),
    }
    return files | ({BEST: safetensors.torch.save(_on_cpu(best))} if best else {})


def parse(files: Mapping[str, bytes]) -> SavedState:
    """The savepoint that `capture` made. Raises DamagedError."""
    try:
        state = json.loads(files[STATE])
        best = safetensors.torch.load(files[BEST]) if BEST in files else {}
        return SavedState(safetensors.torch.load(files[WEIGHTS]), safetensors.torch.load(files[OPTIMIZER]), state, best)
    except (KeyError, ValueError, safetensors.SafetensorError) as error:
        raise DamagedError(f"{type(error).__name__}: {error}") from None


def put_optimizer(saved: SavedState, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give a fresh optimizer the state that it had."""
    parameters = dict(model.named_parameters())
    for key, stored in saved.optimizer.items():
        name, _, slot = key.rpartition("/")
        parameter = parameters[name]
        if stored.dtype == torch.float64:  # a plain number; see _slots
            optimizer.state[parameter][slot] = stored.item()
            continue
        # Memory laid out as the optimizer's own would be: kernels may differ in the last bit between layouts.
        kept = torch.zeros_like(parameter) if stored.shape == parameter.shape else torch.zeros_like(stored)
        optimizer.state[parameter][slot] = kept.to(dtype=stored.dtype, device=parameter.device).copy_(stored)


def put_generators(saved: SavedState, group: Group) -> None:
    """Set every generator of random numbers; the last thing to be done before the next step."""
    states = saved.state["ranks"][group.rank]
    version, values, following = states["python"]
    random.setstate((version, tuple(values), following))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(_tensor(states["torch"]))
    if group.device.type == "cuda":
        torch.cuda.set_rng_state(_tensor(states["cuda"]), group.device)


def restore_course(saved: SavedState, course: Course, device: torch.device) -> None:
    """Give a fresh course what was measured up to the savepoint."""
    state = saved.state["course"]
    course.watch = replace(course.watch, **state["watch"], weights={n: t.to(device) for n, t in saved.best.items()})
    course.decay = state["decay"]
    course.curve, course.sums = list(state["curve"]), [(loss, targets) for loss, targets in state["sums"]]
    course.steps, course.train_seconds, course.eval_seconds = saved.state["step"], state["train"], state["eval"]
    course.speed = SpeedWindow(**state["speed"])


def tell_course(course: Course, train_seconds: float) -> dict[str, Any]:
    """What `restore_course` reads, as plain values."""
    speed = {"rows": course.speed.rows, "tokens": course.speed.tokens, "seconds": course.speed.so_far}
    watch = {name: value for name, value in vars(course.watch).items() if name != "weights"}
    return {
        "curve": course.curve, "sums": course.sums, "train": train_seconds, "eval": course.eval_seconds, "speed": speed,
        "watch": watch, "decay": course.decay,
    }  # fmt: skip


def _slots(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state; numbers that it keeps outside of tensors become tensors of float64."""
    return {
        f"{name}/{slot}": value if isinstance(value, torch.Tensor) else torch.tensor(value, dtype=torch.float64)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        for slot, value in optimizer.state[parameter].items()
        if value is not None
    }


def _on_cpu(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _read_generators(device: torch.device) -> dict[str, Any]:
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "torch": _text(torch.get_rng_state()),
        "cuda": _text(torch.cuda.get_rng_state(device)) if device.type == "cuda" else None,
    }


def _text(state: torch.Tensor) -> str:
    return base64.b64encode(state.numpy().tobytes()).decode()


def _tensor(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
