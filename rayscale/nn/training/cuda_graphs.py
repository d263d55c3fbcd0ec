"""Forward and backward passes on a GPU, recorded as CUDA graphs once their shape comes back, and replayed from then on.

Launching the kernels of a small model's step one by one takes many times as long as the GPU needs to run them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, is_dataclass, replace
from functools import cache
from typing import Any

import torch

from rayscale.errors import first_line
from rayscale.nn.models.objectives import WINDOWS, Inputs
from rayscale.system.overrides import no_garbage_collected

#: A pass of a micro-batch: gradients are added to the parameters', multiplied by a factor; returns the summed loss.
Pass = Callable[[Inputs, float | torch.Tensor], torch.Tensor]

MOST = 64  # recordings of one trial
MOST_SHAPES = 512  # that are remembered


@dataclass(frozen=True)
class Recording:
    """A graph with the tensors that it reads (those of `inputs`, `factor`) and writes (`loss`).

    While it was recorded, at most `more_bytes` were allocated in addition to all else.
    """

    graph: Any  # torch.cuda.CUDAGraph
    inputs: Inputs
    factor: torch.Tensor
    loss: torch.Tensor
    more_bytes: int

    def play(self, inputs: Inputs, factor: float | torch.Tensor) -> torch.Tensor:
        """Run the pass once more, on these inputs."""
        self.factor.fill_(factor)
        for recorded, given in zip(_tensors(self.inputs), _tensors(inputs), strict=True):
            recorded.copy_(given)
        self.graph.replay()
        return self.loss.clone()


class CudaGraphs:
    """Records passes on a GPU. Graphs share their memory, as they never run at once."""

    def __init__(self) -> None:
        self._pool: Any = torch.cuda.graph_pool_handle()

    @contextmanager
    def stream(self, device: torch.device) -> Iterator[None]:
        """What is within runs on the stream of passes, after what came before and before what comes next."""
        here, passes = torch.cuda.current_stream(), _passes(device)
        passes.wait_stream(here)
        with torch.cuda.stream(passes):
            yield
        here.wait_stream(passes)

    def allocated_bytes(self, device: torch.device) -> int:
        """Bytes of memory that are allocated now."""
        return torch.cuda.memory_allocated(device)

    def peak_bytes(self, device: torch.device) -> int:
        """The most bytes that were allocated since the last recording, or since the trial began."""
        return torch.cuda.max_memory_allocated(device)

    def record(self, run: Pass, inputs: Inputs) -> Recording:
        """Record a pass on copies of these inputs; raises RuntimeError where that fails."""
        copies, device = _copied(inputs), inputs.ids.device
        factor = torch.zeros((), device=device)
        graph, draws = torch.cuda.CUDAGraph(), torch.cuda.get_rng_state(device)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # what such a pass left behind can hold its recording
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        # What is freed while a graph is recorded may ask the device something, which ends the recording.
        with no_garbage_collected():
            try:
                # Only this thread must not wait: others write savepoints.
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    loss = run(copies, factor)
                except BaseException:
                    with suppress(RuntimeError):  # says only that something failed before
                        graph.capture_end()
                    raise
                graph.capture_end()
            except BaseException:
                _clear_up(device, self._pool, draws)
                raise
        return Recording(graph, copies, factor, loss, torch.cuda.max_memory_allocated(device) - before)


class Recorder:
    """Does what `run` does; gradients must stay the same tensors between calls (zeroed, not dropped).

    A shape that comes for the first time is run as it is, which prepares what PyTorch prepares once; at the second time
    it is recorded. Nothing is computed while recording, so where that fails, `failure` says why, and this trial's
    passes are run one by one from then on. All passes are on one stream: libraries, autograd and torch.compile prepare
    themselves for each anew, which no recording can hold.

    A further trial of the same model may `begin` with the recordings of those before. Which of its passes are replayed
    is decided as if there were none, so that it is the same trial as in a new process.
    """

    def __init__(self, run: Pass, graphs: CudaGraphs) -> None:
        self._graphs = graphs
        self._recordings: dict[Any, Recording] = {}
        self.failure: str | None = None
        self._run: Pass | None = run
        self._run_shapes: set[Any] = set()
        self._played_shapes: set[Any] = set()
        self.peak_bytes = 0  # of allocated memory, had this trial made its recordings itself

    def begin(self, run: Pass) -> None:
        """A further trial begins; `run` computes its passes, which differ from those before in their inputs alone."""
        self._run = run

    def end(self) -> None:
        """The trial is over: keep nothing of it but recordings."""
        self._run, self.peak_bytes = None, 0
        self._run_shapes.clear()
        self._played_shapes.clear()

    def __call__(self, inputs: Inputs, factor: float | torch.Tensor) -> torch.Tensor:
        """One pass."""
        with self._graphs.stream(inputs.ids.device):
            return self._pass(inputs, factor)

    def _pass(self, inputs: Inputs, factor: float | torch.Tensor) -> torch.Tensor:
        assert self._run is not None
        shape = tuple((tuple(tensor.shape), tensor.dtype) for tensor in _tensors(inputs))
        again = shape in self._run_shapes and shape not in self._played_shapes
        if self.failure is None and again and len(self._played_shapes) < MOST:
            self._try(shape, inputs)
        if shape in self._played_shapes:
            return self._recordings[shape].play(inputs, factor)
        # Windows differ from batch to batch in number and width: such shapes do not come back.
        if self.failure is None and len(self._run_shapes) < MOST_SHAPES and WINDOWS not in inputs.extra:
            self._run_shapes.add(shape)
            # What is recorded are copies, too: torch.compile looks at where in its memory a tensor begins.
            return self._run(_copied(inputs), factor)
        return self._run(inputs, factor)

    def _try(self, shape: Any, inputs: Inputs) -> None:
        assert self._run is not None
        device = inputs.ids.device
        try:
            if shape not in self._recordings:
                if len(self._recordings) >= MOST:  # one that this trial does not play makes room
                    del self._recordings[next(key for key in self._recordings if key not in self._played_shapes)]
                self._see_peak(self._graphs.peak_bytes(device))  # recording begins another one
                self._recordings[shape] = self._graphs.record(self._run, inputs)
            self._played_shapes.add(shape)
            self._see_peak(self._graphs.allocated_bytes(device) + self._recordings[shape].more_bytes)
        except RuntimeError as error:  # the type of CUDA's errors, a lack of memory among them
            self.failure = first_line(error)
            self._recordings.clear()
            self._played_shapes.clear()

    def _see_peak(self, allocated: int) -> None:
        self.peak_bytes = max(self.peak_bytes, allocated)


def _clear_up(device: torch.device, pool: Any, draws: torch.Tensor) -> None:
    """After a recording that CUDA broke off allocator and generator take it for going on: end it for them, too.

    `draws` is the state of the generator before it.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    try:
        torch._C._cuda_endAllocateToPool(index, pool)
    except RuntimeError:  # it came to its end
        pass
    else:
        torch._C._cuda_releasePool(index, pool)
    generator = torch.Generator(device)
    generator.set_state(draws)
    torch.cuda.default_generators[index].graphsafe_set_state(generator)


@cache
def _passes(device: torch.device) -> torch.cuda.Stream:
    """Their stream, one for the whole process: libraries keep memory for each that they were used on."""
    return torch.cuda.Stream(device)


def _copied(value: Any) -> Any:
    """Inputs, or a part of them, with a copy of every tensor."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: _copied(part) for name, part in value.items()}
    if is_dataclass(value):
        return replace(value, **{name: _copied(part) for name, part in vars(value).items()})  # type: ignore[type-var]
    return value


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """All tensors of inputs, or of a part of them, in the same order each time."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict) or is_dataclass(value):
        for part in (value if isinstance(value, dict) else vars(value)).values():
            yield from _tensors(part)
