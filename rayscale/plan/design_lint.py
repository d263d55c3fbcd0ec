"""What a design cannot show, and what the text and the GPUs may not give: the notes of a plan."""

from __future__ import annotations

from collections.abc import Sequence

from rayscale.plan.estimate import Planned, Supply
from rayscale.plan.parameters import count_mixture, has_head
from rayscale.plan.resources import crowd
from rayscale.report.numbers import plural
from rayscale.study.checkpoints import read_config
from rayscale.study.cross_checks import repeated
from rayscale.study.study import Study
from rayscale.system.machine import Machine


def lint(study: Study, planned: Sequence[Planned], supply: Supply, machine: Machine) -> list[tuple[str, str]]:
    """What this design cannot show, and what the text and the GPUs may not give."""
    notes = []
    if (crowding := crowd(planned, machine)) and crowding.mend:
        notes.append(("little_gpu_memory", f"{crowding.found}: {crowding.mend}"))
    available = supply.train_tokens
    if study.grid.axis == "tokens" and available is not None and supply.estimated and study.grid.sizes[-1] > available:
        text = (
            f"{study.grid.sizes[-1]:,} tokens requested, about {available:,.0f} expected; tokenising gives the exact "
            "number before training starts"
        )
        notes.append(("few_tokens", text))
    sizes = sorted({p.trial.data_requested for p in planned})
    params = sorted({p.params for p in planned})
    if len(sizes) < 3:
        notes.append(("few_points", f"{plural(len(sizes), 'data size')}: a curve needs 3, a held-out check 4"))
    elif len(sizes) == 3:
        notes.append(("few_points", "3 data sizes: a curve can be fitted, but not checked on a held-out size"))
    if study.run.trials_per_gpu > 1 and all(p.trial.device == "cpu" for p in planned):
        notes.append(("no_gpu_to_share", "run.trials_per_gpu has no effect: trials run on CPUs, one on each core"))
    if len(params) == 1:
        notes.append(("one_size", "one model size: the effect of a larger model stays unknown"))
    for what, values in ((study.grid.axis, sizes), ("model sizes", params)):
        if len(values) > 1 and values[-1] < 8 * values[0]:
            text = f"{what} span a factor of {values[-1] / values[0]:.2g}: a reliable exponent needs 8 or more"
            notes.append(("few_sizes", text))
    if len({p.trial.model.lora for p in planned if p.trial.model.kind == "pretrained"}) > 1:
        text = "models that differ only in lora have one size: a law over sizes fits one curve through both"
        notes.append(("mixed_lora", text))
    for spec in dict.fromkeys(p.trial.model for p in planned if p.trial.model.path):
        if has_head(str(spec.path), study.task.type, supply.n_labels):
            notes.append(("reused_head", f"{spec.name}: {_stored_classes(str(spec.path), supply.n_labels)}"))
    for spec, whole in {p.trial.model: p.params for p in planned if p.trial.model.lora}.items():
        if spec.path and (experts := count_mixture(spec.path, spec.layers)):
            text = (
                f"{spec.name}: its experts, {experts:,} of {whole:,} parameters, get no adapters and stay "
                "frozen; only the other layers learn"
            )
            notes.append(("frozen_experts", text))
    if {p.trial.augment for p in planned} and not any(p.trial.augment == "none" for p in planned):
        notes.append(("no_plain_cells", "no cell without augmentation: the effect of copies stays unknown; add none"))
    if len(study.training.rates) > 1:
        rates, cells = len(study.training.rates), len({p.cell for p in planned})
        text = f"{rates} learning rates: {cells} cells take {len(planned)} trials; validation rows choose the best"
        notes.append(("sweep", text))
    notes += [("duplicate_cells", text) for text in repeated(study.grid, study.models)]
    if not any(p.trial.seed for p in planned):
        notes.append(("no_replicates", "one seed everywhere: seed noise is estimated from residuals, not measured"))
    return notes


def _stored_classes(folder: str, n_labels: int) -> str:
    """The note on a checkpoint whose head has as many classes as the task."""
    names = read_config(folder).get("id2label") or {}
    listed = [str(names.get(str(number), "")) for number in range(min(n_labels, 4))]
    of = f" ({', '.join(listed)}{', ...' if n_labels > 4 else ''})" if all(listed) else ""
    return (
        f"training starts from the checkpoint's own head, which has as many classes{of}; the study's labels take "
        "them in the order of their names. For a new head give the body alone: "
        "AutoModel.from_pretrained(folder).save_pretrained(another)"
    )
