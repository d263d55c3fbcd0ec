"""`rayscale doctor`: all findings about this machine, a study's plan on it, and a cluster if one is named."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rayscale.errors import RayscaleError
from rayscale.plan.resources import crowd
from rayscale.study.study import Pretrained, Study, load_study
from rayscale.system import doctor, doctor_devices
from rayscale.system.doctor import Finding
from rayscale.system.machine import (
    Machine,
    cache_root,
    driver_version,
    free_bytes,
    installed,
    nearest_folder,
    nvidia_gpus,
    physical_cores,
    this_machine,
)


def check_up(study_file: str | Path | None = None, address: str | None = None) -> list[Finding]:
    """Look at everything a run would need. Raises StudyError for a study file that is wrong."""
    study = load_study(study_file) if study_file else None
    findings = list(_here())
    machine = None
    if address:
        from rayscale.on_ray.doctor import examine_cluster

        of_cluster, machine = examine_cluster(address, study)
        findings += of_cluster
    findings += _plan_and_storage(study, machine)
    return findings + list(_hub(study)) if study else findings


def as_lines(findings: list[Finding]) -> list[str]:
    """A line for each finding, its fix beneath."""
    lines = []
    for finding in map(Finding.to_json, findings):
        lines.append(f"{finding['level']:<5}{finding['name']}: {finding['found']}")
        lines += [f"     fix: {finding['mend']}"] if finding["mend"] else []
    return [*lines, verdict(findings)]


def verdict(findings: list[Finding]) -> str:
    """How many fail and how many warn."""
    from rayscale.report.numbers import plural

    levels = [finding.level for finding in findings]
    return f"{plural(len(findings), 'finding')}: {levels.count('fail')} fail, {levels.count('warn')} warn."


def _here() -> Iterator[Finding]:
    least = doctor.wanted()
    yield from doctor.judge_versions(least, installed(least))
    yield doctor.judge_torch(doctor.cuda_of_torch(), len(nvidia_gpus()), driver_version())
    yield from doctor_devices.examine_devices()
    yield from doctor.judge_settings(os.environ, physical_cores())
    yield doctor.watch_clock()
    yield doctor.find_token(os.environ)
    yield from doctor.judge_listening(doctor.open_ports(), doctor.has_token_auth(os.environ))


def _plan_and_storage(study: Study | None, machine: Machine | None) -> Iterator[Finding]:
    """The study's plan on the cluster, or on this machine (None), and the places that it writes to."""
    from rayscale.plan.draft import draft_plan, run_store

    place = "runs"
    needed = None
    if study:
        place = study.run.storage
        try:
            store = run_store(study, None)
            plan = draft_plan(study, machine or this_machine(study.run.accelerator, study.run.trials_per_gpu), store)
            needed = float(plan.disk_bytes)
            yield Finding("plan", "ok", f"{len(plan.trials)} trials of {study.name} fit {plan.machine.origin}")
            if crowding := crowd(plan.trials, plan.machine):
                needed_memory, fix = crowding
                yield Finding("GPU memory", "warn" if fix else "ok", needed_memory, fix)
            yield from (Finding(**finding) for finding in plan.doctor["findings"])
        except RayscaleError as error:
            yield Finding("plan", "fail", str(error), "correct this; `rayscale plan STUDY` shows the whole plan")
    yield from doctor_devices.examine_storage(place)
    if "://" not in place:
        folder = nearest_folder(Path(place).expanduser().absolute())
        yield doctor_devices.judge_room("disk", str(folder), free_bytes(folder), needed)
    yield from doctor_devices.examine_storage(str(cache_root()), "cache")
    temporary = Path(tempfile.gettempdir())
    yield doctor_devices.judge_probe("temporary files", str(temporary), doctor_devices.probe(temporary))


def _hub(study: Study) -> Iterator[Finding]:
    """Hub ids of the study: whether they are here, or can be fetched."""
    asked = [model for model in study.models if isinstance(model, Pretrained) and not Path(model.pretrained).is_dir()]
    if not asked:
        return
    from huggingface_hub import constants, try_to_load_from_cache

    missing = [
        model.pretrained
        for model in asked
        if not isinstance(try_to_load_from_cache(model.pretrained, "config.json", revision=model.revision), str)
    ]
    online = bool(missing) and not constants.HF_HUB_OFFLINE and doctor.reaches(constants.ENDPOINT)
    yield doctor.judge_hub(missing, constants.HF_HUB_OFFLINE, constants.ENDPOINT, online)
