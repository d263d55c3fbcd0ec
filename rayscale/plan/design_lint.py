"""What a design cannot show, and what the text and the GPUs may not give: the notes of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rayscale.plan.estimate import Planned, Supply
from rayscale.plan.parameters import count_mixture, has_head
from rayscale.plan.resources import crowd
from rayscale.report.numbers import plural
from rayscale.study.checkpoints import read_config
from rayscale.study.cross_checks import repeated
from rayscale.study.study import Study
from rayscale.system.machine import Machine


def lint(study: Study, planned: Sequence[Planned], supply: Supply, machine: Machine) -> Iterator[tuple[str, str]]:
    """What this design cannot show, and what the text and the GPUs may not give: codes and texts."""
    needed, fix = crowd(planned, machine) or ("", "")
    if fix:
        yield "little_gpu_memory", f"{needed}: {fix}"
    available = supply.train_tokens
    largest = study.grid.sizes[-1]
    if study.grid.axis == "tokens" and available is not None and supply.estimated and largest > available:
        text = f"{largest:,} tokens requested, about {available:,.0f} expected; tokenising gives the exact number"
        yield "few_tokens", f"{text} before training starts"
    sizes = tuple(sorted({p.trial.data_requested for p in planned}))
    params = sorted({p.params for p in planned})
    if len(sizes) < 3:
        yield "few_points", f"{plural(len(sizes), 'data size')}: a curve needs 3, a held-out check 4"
    elif len(sizes) == 3:
        yield "few_points", "3 data sizes: a curve can be fitted, but not checked on a held-out size"
    if study.run.trials_per_gpu > 1 and all(p.trial.device == "cpu" for p in planned):
        yield "no_gpu_to_share", "run.trials_per_gpu has no effect: trials run on CPUs, one on each core"
    if len(params) == 1:
        yield "one_size", "one model size: the effect of a larger model stays unknown"
    for what, values in ((study.grid.axis, sizes), ("model sizes", params)):
        if len(values) > 1 and values[-1] < 8 * values[0]:
            span = f"{what} span a factor of {values[-1] / values[0]:.2g}"
            yield "few_sizes", f"{span}: a reliable exponent needs 8 or more"
    if len({p.trial.model.lora for p in planned if p.trial.model.kind == "pretrained"}) > 1:
        yield "mixed_lora", "models that differ only in lora have one size: a law over size fits one curve to both"
    for spec in dict.fromkeys(p.trial.model for p in planned if p.trial.model.path):
        if has_head(str(spec.path), study.task.type, supply.n_labels):
            yield "reused_head", f"{spec.name}: {_stored_classes(str(spec.path), supply.n_labels)}"
    for spec, whole in {p.trial.model: p.params for p in planned if p.trial.model.lora}.items():
        if spec.path and (experts := count_mixture(spec.path, spec.layers)):
            part = f"{spec.name}: its experts, {experts:,} of {whole:,} parameters"
            yield "frozen_experts", f"{part}, get no adapters and stay frozen; only the other layers learn"
    augments = {p.trial.augment for p in planned}
    if augments and "none" not in augments:
        yield "no_plain_cells", "no cell without augmentation: the effect of copies stays unknown; add none"
    if len(study.training.rates) > 1:
        rates, cells = len(study.training.rates), len({p.cell for p in planned})
        text = f"{rates} learning rates: {cells} cells take {len(planned)} trials; validation rows choose the best"
        yield "sweep", text
    yield from (("duplicate_cells", text) for text in repeated(study.grid, study.models))
    if not any(p.trial.seed for p in planned):
        yield "no_replicates", "one seed everywhere: seed noise is estimated from residuals, not measured"


def _stored_classes(folder: str, n_labels: int) -> str:
    """The note on a checkpoint whose head has as many classes as the task."""
    names = read_config(folder).get("id2label") or {}
    listed = [str(names.get(str(number), "")) for number in range(min(n_labels, 4))]
    of = f" ({', '.join(listed)}{', ...' if n_labels > 4 else ''})" if all(listed) else ""
    text = f"training starts from the checkpoint's own head, which has as many classes{of}"
    fix = "For a new head give the body alone: AutoModel.from_pretrained(folder).save_pretrained(another)"
    return f"{text}; the study's labels take them in the order of their names. {fix}"
