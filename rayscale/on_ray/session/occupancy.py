"""Who holds a cluster's worker slots: how many are left for a run, and what it says and does while it waits."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rayscale.errors import ClusterError
from rayscale.runs.events import Event

if TYPE_CHECKING:
    from rayscale.on_ray.session.capacity import Capacity

#: Ray tells what is free a moment later than who was placed; others hold what they held in so many looks.
LOOKS = 3
ROUNDING = 1e-6
SAY_SECONDS = 30.0  # between two notes of a run that waits
QUIET_SECONDS = 3.0  # slots change hands; a wait is worth a word from here on
ENTRY_LENGTH = 100  # characters of a job's command that are shown


@dataclass(frozen=True)
class Holder:
    """A job of the cluster that holds what `slots` workers would take; `entry` is its command."""

    job: str
    slots: int
    entry: str = ""
    place: str = ""
    namespace: str = ""

    @property
    def text(self) -> str:
        """As a person reads it."""
        facts = (self.entry and f"`{self.entry}`", self.place, self.namespace and f"namespace {self.namespace}")
        about = ", ".join(filter(None, facts))
        return f"job {self.job}{f' ({about})' if about else ''} holds {self.slots}"


@dataclass(frozen=True)
class Occupancy:
    """How the cluster stands: its slots, those that other jobs leave, the trainers whose workers have their places, and
    who the others are."""

    slots: int
    room: int
    placed: frozenset[str]
    holders: tuple[Holder, ...] = ()


def held_by_others(nodes: Iterable[tuple[Mapping[str, float], Mapping[str, float], int]], capacity: Capacity) -> int:
    """Of the slots of these nodes (resources, free ones, workers of this run) those neither free nor this run's."""
    need = capacity.worker[capacity.resource]
    held = 0
    for resources, left, ours in nodes:
        free = int(left.get(capacity.resource, 0.0) / need + ROUNDING)
        held += max(0, capacity.fit(resources) - free - ours)
    return held


def waiting_text(sizes: Mapping[int, int], slots: int, room: int, holders: Sequence[Holder], seconds: float) -> str:
    """What a run says while it waits; `sizes` counts its trials by the slots that each wants."""
    from rayscale.report.numbers import duration, plural

    wants = " and ".join(
        f"{plural(number, 'trial')} of {plural(size, 'slot')}" for size, number in sorted(sizes.items())
    )
    if holders:
        who = "; ".join(holder.text for holder in holders)
    elif room < slots:
        who = "Ray does not say who holds the others (tasks, or actors that are just starting)"
    else:
        who = "no job holds them: nodes may be starting, or another run takes its slots right now"
    since = f" for {duration(seconds)} so far" if seconds >= 1 else ""
    free = f"{wants} left to run, {room} of {slots} slots free"
    return f"Waiting{since} for free worker slots: {free}. Who holds them: {who}."


@dataclass
class Wait:
    """`most` is how many seconds a run may wait in one go, None for no limit; `log` takes events of the run."""

    most: float | None
    log: Callable[[Event], None]
    _spoke: float | None = None  # when

    def look(self, now: Mapping[str, Any], clock: float) -> bool:
        """Whether the run waits, by the pool's snapshot; says so every 30 s, and when it is over.

        Raises ClusterError at the limit: what is left is not run, and nothing is recorded of it.
        """
        waits = now["waits"]
        if waits is None:
            if self._spoke is not None:
                self.log({"event": "slots_free", "room": now["room"], "slots": now["slots"]})
            self._spoke = None
            return False
        text = waiting_text(waits["sizes"], now["slots"], now["room"], now["holders"], waits["seconds"])
        if self.most is not None and waits["seconds"] > self.most:
            advice = "Run the same command when they are free, or write wait_seconds: null to wait without a limit"
            reason = f"no slots came free in run.wait_seconds: {self.most:g}. {text} {advice}"
            raise ClusterError(reason, code="slots_busy")
        if waits["seconds"] >= QUIET_SECONDS and (self._spoke is None or clock - self._spoke >= SAY_SECONDS):
            self._spoke = clock
            sizes = {str(size): number for size, number in waits["sizes"].items()}
            self.log({"event": "waiting_for_slots", "reason": text, "sizes": sizes})
        return True


# ---- as Ray tells it


def look_at(capacity: Capacity, looks: deque[int]) -> Occupancy:
    """How the cluster of this process stands now; `looks` keeps what others held at the last LOOKS of them.

    Others hold the least of these: a place that has just been given back is not yet free.
    """
    import ray
    from ray._private.state import state

    from rayscale.on_ray.cluster import head_table, living_nodes

    groups = [group for group in head_table("PlacementGroup") if group.state == group.CREATED]
    job = ray.get_runtime_context().get_job_id()
    ours: Counter[str] = Counter()
    placed = set()
    for group in groups:
        bundles = [bundle for bundle in group.bundles if capacity.resource in bundle.unit_resources]
        if bundles and group.creator_job_id.hex() == job:
            placed.add(group.creator_actor_id.hex())
            ours.update(bundle.node_id.hex() for bundle in bundles)
    free = state.available_resources_per_node()
    resources = {node["NodeID"]: node["Resources"] for node in living_nodes()}
    looks.append(held_by_others([(resources[n], free.get(n, {}), ours[n]) for n in resources], capacity))
    slots, held = capacity.slots(), min(looks)
    holders = _holders(groups, job, capacity) if held else ()
    return Occupancy(slots, max(0, slots - held), frozenset(placed), tuple(holders))


def _holders(groups: Sequence[Any], ours: str, capacity: Capacity) -> list[Holder]:
    """The other jobs with places of their own: placement groups, and actors outside of these."""
    from rayscale.on_ray.cluster import head_table

    resource, need = capacity.resource, capacity.worker[capacity.resource]
    held: defaultdict[str, float] = defaultdict(float)
    for group in groups:
        held[group.creator_job_id.hex()] += sum(bundle.unit_resources.get(resource, 0.0) for bundle in group.bundles)
    for actor in head_table("Actor", None, "ALIVE"):
        if not actor.HasField("placement_group_id"):
            held[actor.job_id.hex()] += actor.required_resources.get(resource, 0.0)
    held.pop(ours, None)
    jobs = head_table("Job", skip_submission_job_info_field=True, skip_is_running_tasks_field=True)
    return _described(held, need, jobs)


def _described(held: Mapping[str, float], need: float, jobs: Collection[Any]) -> list[Holder]:
    """Holders, the largest first, each with what Ray's table of jobs knows of its driver."""
    drivers = {job.job_id.hex(): job for job in jobs}
    holders = []
    for job, amount in sorted(held.items(), key=lambda item: (-item[1], item[0])):
        slots = round(amount / need)
        if slots and job not in drivers:
            holders.append(Holder(job, slots))
        elif slots:
            driver = drivers[job]
            entry = " ".join(driver.entrypoint.split())
            entry = entry if len(entry) <= ENTRY_LENGTH else f"{entry[: ENTRY_LENGTH - 3]}..."
            place = f"process {driver.driver_pid} on {driver.driver_address.ip_address}" if driver.driver_pid else ""
            holders.append(Holder(job, slots, entry, place, driver.config.ray_namespace))
    return holders
