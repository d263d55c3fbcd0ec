"""One trial: build the model, train it on its share of every global batch, evaluate, measure.

The gradient of a step is the sum of the losses of all targets in the global batch divided by their number, which every
rank knows from the row lengths. Accumulation, ragged batches and the number of ranks therefore change the speed of a
trial and the order of floating-point sums, nothing else.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rayscale.errors import MemoryTrialError, TrialError, first_line
from rayscale.nn import devices
from rayscale.nn.attention.dropout import may_drop
from rayscale.nn.determinism import seed_everything, settled
from rayscale.nn.metrics import METRICS
from rayscale.nn.models import layers
from rayscale.nn.models.lora import merge
from rayscale.nn.models.objectives import Score
from rayscale.nn.models.used_rows import wake_unused
from rayscale.nn.models.weights import read_weights, write_weights
from rayscale.nn.ranks import Group
from rayscale.nn.training import batches
from rayscale.nn.training.course import Course
from rayscale.nn.training.cuda_graphs import Pass, Recorder
from rayscale.nn.training.early_stopping import EarlyStopping
from rayscale.nn.training.evaluate import evaluate
from rayscale.nn.training.heartbeat import Heartbeat
from rayscale.nn.training.job import Job, prepare_job
from rayscale.nn.training.keeper import SavepointKeeper
from rayscale.nn.training.kept_model import KeptModel
from rayscale.nn.training.optimizers import make_optimizer
from rayscale.nn.training.save import save_model
from rayscale.nn.training.step import can_record, make_pass, order_buckets, take_step
from rayscale.plan.learning_rates import schedule_factor
from rayscale.runs.savepoints import Saving

if TYPE_CHECKING:
    from rayscale.runs.trial import Trial
    from rayscale.text.prepared import Prepared

CURVE_POINTS = 50
VALIDATIONS = 5
# Validation during training is on part of the split, sized by the trial, so that its cost stays below a tenth.
VALIDATION_SHARE = 1 / 50
VALIDATION_ROWS = (16, 512)
DECIDING_VALIDATIONS = 10  # where the rate or the end depends on them; then of the most rows


def train_trial(
    trial: Trial,
    prepared: Prepared,
    *,
    checkpoint: str | None = None,
    rank: int = 0,
    world_size: int = 1,
    device: str = "cpu",
    progress: Callable[[dict[str, Any]], None] | None = None,
    save_to: Path | None = None,
    saving: Saving | None = None,
    micro_batch: int | None = None,
    kept: KeptModel | None = None,
) -> dict[str, Any]:
    """Trains and evaluates one cell; returns its measured columns of the trial table, its `curve` and its `classes`
    (see `Score`), equal on all ranks.

    With `world_size` > 1 every rank of an existing process group calls it with the same trial. `progress` gets {phase,
    step, steps, train_loss, micro_batch} about twice a second, and may raise to stop this rank. `save_to` is the folder
    of the trained model (rank 0 writes it). With `saving` the trial resumes from its last savepoint, and ends as if it
    had never stopped: bit for bit on a CPU, times aside. `micro_batch` is the most rows at once. With `kept`, one for
    all trials of a process, a lone worker takes over the model of the trial before where that is the same, which
    changes no bit of the result.

    Losses are in nats per target. `status` is ok, or diverged: a loss that is no longer a number is a result, with its
    reason in `error`. `train_loss` is the mean over the last tenth of the steps; `flops` counts real tokens, not
    padding. The `validation_loss` of the curve is on the first rows of the validation split (a fiftieth of the training
    rows, 16 to 512), that of the result on all of it, null where it has no rows. With `early_stopping` the model is
    that of the lowest validation loss.

    Raises InputError and TrialError as `build_model` does, DataError for a subset or split without rows,
    MemoryTrialError where memory does not suffice for the micro-batch, TrialError where it does not for the model.
    """
    group = Group.join(rank, world_size, device)
    if world_size > 1:
        kept = None  # DDP hooks itself into the parameters
    with settled(trial.seed, trial.threads, group.device):
        tells_memory = devices.restart_memory_peak(group.device)
        pulse = Heartbeat(progress)
        pulse.enter("load")
        try:
            job = prepare_job(trial, prepared, checkpoint, group, micro_batch, kept)
        except Exception as error:
            if devices.is_out_of_memory(error):
                text = f"out of memory while the model was built ({first_line(error)})"
                raise TrialError(text, fix="use a smaller model, or larger workers", code="out_of_memory") from error
            raise
        course, pulse.steps = Course(EarlyStopping.of(trial.settings)), job.steps
        keeper = SavepointKeeper(saving, job)
        ready, model = job.ready, job.ready.model
        try:
            job = keeper.find(model)
            if rank == 0 and getattr(model, "begins_with_stored_head", False):
                keeper.tell({"event": "head_reused", "trial_id": trial.trial_id, "classes": prepared.labels})
            devices.let_multiply(group.device, ready.precision)
            pulse.micro_batch = job.micro_batch
            result = _run(job, course, pulse, keeper)
        except Exception as error:
            error.step = course.steps  # type: ignore[attr-defined] # an error that comes back at its step is no accident
            if devices.is_out_of_memory(error):
                raise MemoryTrialError(first_line(error), job.micro_batch) from error
            explained = layers.explain(error) if trial.settings.compile else None
            if explained is not None:
                raise explained from error
            raise
        finally:
            keeper.close()
        result |= _describe(job, course)
        # The last collective comes before saving: a long write must not run into the others' time-out.
        recorded = ready.recorder.peak_bytes if ready.recorder is not None else 0
        peak = group.largest([max(recorded, devices.read_memory_peak(group.device)) if tells_memory else -1])[0]
        if save_to is not None and rank == 0 and result["status"] == "ok":
            pulse.enter("save")
            save_model(job, model, checkpoint, Path(save_to))
        if kept is not None:
            kept.keep(ready)
        return {**result, "peak_memory_bytes": int(peak) if peak >= 0 else None, "curve": course.curve}


def _run(job: Job, course: Course, pulse: Heartbeat, keeper: SavepointKeeper) -> dict[str, Any]:
    """Trains, then evaluates if training did not diverge: status, losses, metrics."""
    seed_everything(job.trial.seed, job.group.rank)  # building a model may draw any number of random values
    _train(job, course, pulse, keeper)
    # What is evaluated is what is saved: bf16 sees other adapters beside a weight than within it.
    model = job.ready.model
    wake_unused(model, course.decay)
    merge(model)
    losses: dict[str, float | None] = {"validation_loss": None, "eval_loss": None}
    score = None
    for split, column in (("validation", "validation_loss"), ("test", "eval_loss")):
        if course.error is not None or not len(job.prepared.split(split)):
            continue
        pulse.enter(split)
        started = time.perf_counter()
        loss, score = evaluate(model, job, split, beat=pulse.beat, scored=split == "test", as_saved=True)
        course.eval_seconds += time.perf_counter() - started
        losses[column] = loss
        if not math.isfinite(loss):
            course.error = f"the {split} loss is {loss} after training; {_advice(job)}"
    status = "ok"
    if losses["eval_loss"] is None or course.error is not None or score is None:
        status, losses, score = "diverged", dict.fromkeys(losses), Score({})
    metrics = {**dict.fromkeys(METRICS), **score.metrics, "metric_signature": score.signature, "classes": score.classes}
    return {"status": status, "error": course.error, **losses, **metrics}


def _train(job: Job, course: Course, pulse: Heartbeat, keeper: SavepointKeeper) -> None:
    model, group, settings = job.ready.model, job.group, job.settings
    parallel: nn.Module = model
    if group.world_size > 1:
        parallel = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
    optimizer = make_optimizer(model, job)
    compute: Pass = make_pass(parallel, job)
    if can_record(job, model.config.model_type):
        compute = job.ready.record(compute)
    every = max(1, math.ceil(job.steps / CURVE_POINTS))
    validations, monitor = _validation_steps(job, course.watch), _monitor_rows(job, course.watch)
    targets_of = job.objective.targets(job.prepared.split("train"))
    model.train()
    if keeper.resumes and isinstance(parallel, DistributedDataParallel):
        order_buckets(parallel, job, next(_global_batches(job)))
    at = keeper.begin(model, optimizer, course, pulse)
    if not job.drops_by_row and may_drop(model):
        keeper.tell({"event": "dropout_by_worker", "trial_id": job.trial.trial_id, "workers": group.world_size})
    watch = course.watch
    loss_sum, target_sum = torch.full((), at.loss_sum, dtype=torch.float64, device=group.device), at.target_sum
    group.add([0.0])  # all ranks are here: nobody's clock runs while another still builds
    pulse.enter("train")
    started, pause_seconds = time.perf_counter() - course.train_seconds, 0.0
    course.speed.start(job.steps - at.step)

    def clock() -> float:
        return time.perf_counter() - started - pause_seconds

    def mine(batch: np.ndarray) -> np.ndarray:
        return np.concatenate([part.rows for part in job.share(batch)])

    left = itertools.islice(_global_batches(job), at.step, None)
    for step, batch in enumerate(job.prepared.split("train").ahead(left, mine), at.step):
        targets = float(targets_of[batch].sum())
        rate = _rate(job, step) * watch.factor
        loss_sum += take_step(compute, parallel, optimizer, job, step, batch, targets, rate, pulse)
        target_sum += targets
        course.decay *= 1 - rate * settings.weight_decay
        if course.speed.warms_up_next:
            loss_sum.item()  # waits for the device
        course.speed.add(len(batch), int(job.train_lengths[batch].sum()))
        last = step + 1 == job.steps
        if (step + 1) % every == 0 or last or step + 1 in validations:
            total = float(group.add([loss_sum.item()])[0])
            course.sums.append((total, target_sum))
            pulse.train_loss = total / target_sum if target_sum else None
            point: dict[str, float | int | None] = {
                "step": step + 1,
                "train_loss": pulse.train_loss,
                "validation_loss": None,
                "learning_rate": rate,
            }
            if not math.isfinite(total):
                point["train_loss"] = None
                course.error = f"the training loss is {total} by step {step + 1} of {job.steps}; {_advice(job)}"
            elif step + 1 in validations:
                paused = time.perf_counter()
                pulse.enter("validation")
                validated = evaluate(model, job, "validation", rows=monitor, beat=pulse.beat)[0]
                point["validation_loss"] = validated
                watch.see(validated, read_weights(model), course.decay)
                pulse.enter("train")
                model.train()
                paused = time.perf_counter() - paused
                course.eval_seconds += paused
                pause_seconds += paused
                course.speed.pause(paused)
            course.curve.append(point)
            loss_sum.zero_()
            target_sum = 0.0
        course.steps = step + 1
        if course.error is not None or watch.stops:
            break
        pulse.beat(step + 1)
        saved = keeper.after_step(step + 1, loss_sum, target_sum, clock)
        pause_seconds += saved
        course.speed.pause(saved)
    course.speed.close()
    course.train_seconds = clock()
    if isinstance(compute, Recorder) and compute.failure is not None:
        keeper.tell({"event": "steps_not_recorded", "trial_id": job.trial.trial_id, "reason": compute.failure})
    if watch.weights and course.error is None:
        write_weights(watch.weights, model)
        course.decay = watch.decay


def _describe(job: Job, course: Course) -> dict[str, Any]:
    """The measured columns that do not depend on the task."""
    lengths = job.train_lengths[job.rows].astype(np.int64)
    tokens = int(lengths.sum())
    clocks = [course.train_seconds, course.eval_seconds, course.speed.seconds]
    train_seconds, eval_seconds, window = (float(seconds) for seconds in job.group.largest(clocks))
    per_second = [count / window if window else None for count in (course.speed.rows, course.speed.tokens)]
    size, share = job.ready.size, course.steps / job.steps  # 1 unless it diverged or stopped early
    once = job.objective.pass_flops(size, job.prepared.split("train"), job.rows)
    epochs = share * job.settings.epochs
    flops = epochs * once
    peak = devices.peak_flops(job.group.device, job.ready.precision)
    return {
        "params": size.params,
        "params_non_embedding": size.params_non_embedding,
        "examples": len(lengths),
        "tokens": tokens,
        "epochs": epochs,
        "steps": course.steps,
        "global_batch": job.settings.global_batch,
        "micro_batch": job.micro_batch,
        "learning_rate": job.learning_rate,
        "optimizer": job.settings.optimizer,
        "schedule": job.settings.schedule,
        "precision": job.ready.precision,
        "flops": flops,
        "train_loss": _last_tenth(course),
        "train_seconds": train_seconds,
        "eval_seconds": eval_seconds,
        "examples_per_second": per_second[0],
        "tokens_per_second": per_second[1],
        # Speed in tokens times the mean cost of a token.
        "mfu": per_second[1] * once / tokens / (peak * job.group.world_size) if peak and per_second[1] else None,
    }


def _last_tenth(course: Course) -> float | None:
    tail = course.sums[-max(1, len(course.sums) // 10) :]
    loss, targets = sum(s for s, _ in tail), sum(n for _, n in tail)
    return loss / targets if targets and math.isfinite(loss) else None


def _global_batches(job: Job) -> Iterator[np.ndarray]:
    size, seed = job.settings.global_batch, job.trial.seed
    for epoch in range(job.settings.epochs):
        ordered = batches.order_rows(job.rows, seed, epoch)
        if job.settings.batching == "bucketed":
            yield from batches.cut_bucketed_batches(ordered, job.train_lengths, size, seed, epoch)
        else:
            yield from batches.cut_global_batches(ordered, size)


def _rate(job: Job, step: int) -> float:
    settings = job.settings
    factor = schedule_factor(settings.schedule, step, job.steps, settings.warmup, settings.cooldown)
    return job.learning_rate * factor


def _validation_steps(job: Job, watch: EarlyStopping) -> set[int]:
    """Steps after which to validate: the ends of epochs, or five evenly spaced ones in a single epoch; where the
    validations decide, the ends of all epochs, with as many between them as make ten."""
    if not len(job.prepared.split("validation")):
        return set()
    epochs = job.settings.epochs
    parts = VALIDATIONS if epochs == 1 else min(epochs, 2 * VALIDATIONS)
    if watch.decides:
        parts = epochs * math.ceil(DECIDING_VALIDATIONS / epochs)
    return {math.ceil(job.steps * part / parts) for part in range(1, parts + 1)}


def _monitor_rows(job: Job, watch: EarlyStopping) -> np.ndarray:
    # Rows lie in the order of the hash of their text, so the first ones are a random sample.
    low, high = VALIDATION_ROWS
    wanted = high if watch.decides else min(high, max(low, math.ceil(len(job.rows) * VALIDATION_SHARE)))
    return np.arange(min(wanted, len(job.prepared.split("validation"))))


def _advice(job: Job) -> str:
    return f"training.learning_rate was {job.learning_rate:.3g}: a smaller one may help"
