"""A run's checkpoints from the driver's side: where trials are saved, which nodes see it, and what is deleted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rayscale.errors import InputError
from rayscale.plan.estimate import Planned
from rayscale.runs.savepoints import Saving, forget_all_but, mark, sees
from rayscale.study.study import Study
from rayscale.system.storage import Store

SAVE_SHARE = 0.25  # of what a worker may be silent: the longest that training waits for a checkpoint to be written


def begin_saving(store: Store, study: Study, share: float = 1.0) -> Saving | None:
    """Mark the run's folder as this driver's, for its workers; None where the study wants no checkpoints."""
    run = study.run
    if run.checkpoint_seconds is None:
        return None
    return Saving(store, mark(store), run.checkpoint_seconds, run.hang_seconds * SAVE_SHARE, share=share)


def clear(store: Store, trial_ids: Iterable[str]) -> str | None:
    """Delete all checkpoints but those of these trials; returns why that failed, if it did."""
    try:
        forget_all_but(store, trial_ids)
    except OSError as error:
        return f"checkpoints below {store.location}/checkpoints could not be deleted: {error}"
    return None


def blind_nodes(saving: Saving, worker_resources: Mapping[str, float]) -> list[str]:
    """Hosts of the living nodes that take workers and do not see the run's folder."""
    import ray

    from rayscale.on_ray.cluster import living_nodes, run_on

    if saving.store.local is None:
        return []
    resources = [name for name, amount in worker_resources.items() if amount]
    nodes = [node for node in living_nodes() if all(name in node["Resources"] for name in resources)]
    sights = ray.get([run_on(node["NodeID"], sees, saving.store, saving.token) for node in nodes])
    return [node["NodeManagerHostname"] for node, sight in zip(nodes, sights, strict=True) if not sight]


def check_seen(blind: Sequence[str], study: Study, pending: Sequence[Planned], store: Store) -> str | None:
    """What to say where nodes do not see the run's folder: their trials are trained without checkpoints.

    Raises InputError where a trial is long enough to need them.
    """
    every = study.run.checkpoint_seconds
    if not blind or every is None:
        return None
    hosts = f"{len(blind)} node{'s' * (len(blind) > 1)} ({', '.join(blind[:3])}{', ...' if len(blind) > 3 else ''})"
    long = [planned for planned in pending if planned.seconds > every]
    if not long:
        return f"{store.location} is not seen by {hosts}: trials there are trained without checkpoints."
    example = f"{long[0].trial.trial_id} with about {long[0].seconds:.0f} s"
    text = f"{store.location} is not seen by {hosts}; {len(long)} of the trials, such as {example}"
    text += f", take longer than run.checkpoint_seconds ({every:g}) and could not resume after a fault"
    storage = "give a storage that all nodes see, such as s3://bucket/folder or a shared disk"
    fix = f"{storage}, or write checkpoint_seconds: null"
    raise InputError(text, fix=fix, code="storage_not_shared", where=study.where("run", "storage"))
