"""Names → objects: what rayscale ships, what an installed plugin registers, or `package.module:attribute`.

A plugin is a package with an entry point in one of the GROUPS; it has the same powers as a built-in.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from rayscale.errors import InputError, nearest

BUILT_IN: dict[str, dict[str, str]] = {
    "rayscale.augmenters": {
        "back_translation": "rayscale.text.augment.model_steps:BACK_TRANSLATION",
        "contextual": "rayscale.text.augment.model_steps:CONTEXTUAL",
        "delete": "rayscale.text.augment.shuffle:DELETE",
        "swap": "rayscale.text.augment.shuffle:SWAP",
        "synonyms": "rayscale.text.augment.synonyms:SYNONYMS",
    },
    "rayscale.laws": {
        "amdahl": "rayscale.laws.catalogue:AMDAHL",
        "augmented_chinchilla": "rayscale.laws.augmented:CHINCHILLA",
        "augmented_chinchilla_by_size": "rayscale.laws.augmented:CHINCHILLA_BY_SIZE",
        "augmented_power": "rayscale.laws.augmented:POWER",
        "augmented_power_by_size": "rayscale.laws.augmented:POWER_BY_SIZE",
        "auto": "rayscale.laws.auto.blend:AUTO",
        "bnsl": "rayscale.laws.catalogue:BNSL",
        "bnsl_without_E": "rayscale.laws.catalogue:BNSL_WITHOUT_E",
        "chinchilla": "rayscale.laws.catalogue:CHINCHILLA",
        "chinchilla_without_E": "rayscale.laws.catalogue:CHINCHILLA_WITHOUT_E",
        "chinchilla_tied": "rayscale.laws.catalogue:CHINCHILLA_TIED",
        "isoflop": "rayscale.laws.fitting.isoflop:ISOFLOP",
        "logit_chinchilla": "rayscale.laws.catalogue:LOGIT_CHINCHILLA",
        "logit_power": "rayscale.laws.catalogue:LOGIT_POWER",
        "metric_sigmoid": "rayscale.laws.catalogue:METRIC_SIGMOID",
        "multiplicative": "rayscale.laws.catalogue:MULTIPLICATIVE",
        "multiplicative_without_E": "rayscale.laws.catalogue:MULTIPLICATIVE_WITHOUT_E",
        "power": "rayscale.laws.catalogue:POWER",
        "power_without_E": "rayscale.laws.catalogue:POWER_WITHOUT_E",
        "ratio": "rayscale.laws.catalogue:RATIO",
        "rectified": "rayscale.laws.catalogue:RECTIFIED",
        "rectified_without_E": "rayscale.laws.catalogue:RECTIFIED_WITHOUT_E",
        "repeated_data": "rayscale.laws.catalogue:REPEATED_DATA",
        "shifted": "rayscale.laws.catalogue:SHIFTED",
        "shifted_without_E": "rayscale.laws.catalogue:SHIFTED_WITHOUT_E",
        "speedup": "rayscale.laws.catalogue:SPEEDUP",
        "transfer": "rayscale.laws.catalogue:TRANSFER",
    },
    "rayscale.sources": {
        "builtin": "rayscale.text.sources.readers:read_builtin",
        "conll": "rayscale.text.sources.readers:read_conll",
        "csv": "rayscale.text.sources.readers:read_csv",
        "tsv": "rayscale.text.sources.readers:read_tsv",
        "jsonl": "rayscale.text.sources.readers:read_jsonl",
        "parquet": "rayscale.text.sources.parquet:read_parquet",
        "txt": "rayscale.text.sources.readers:read_txt",
    },
}
GROUPS = tuple(BUILT_IN)


@dataclass(frozen=True)
class Entry:
    """One registered name: where it is defined (`module:attribute`) and who registered it."""

    group: str
    name: str
    target: str
    origin: str  # "rayscale" or "distribution version"


def entries(group: str | None = None) -> list[Entry]:
    """All registered names, built-ins first, then plugins by name. A plugin may not take a built-in's name."""
    found = []
    for each in [group] if group else GROUPS:
        built_in = BUILT_IN[each]
        found += [Entry(each, name, target, "rayscale") for name, target in sorted(built_in.items())]
        for point in sorted(entry_points(group=each), key=lambda p: p.name):
            origin = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
            if point.name in built_in:
                raise InputError(
                    f"plugin {origin} registers '{point.name}', a built-in name of {each}; rename it in the plugin",
                    code="plugin_name_taken",
                )
            found.append(Entry(each, point.name, point.value, origin))
    return found


def resolve(group: str, name: str) -> Any:
    """The object registered as `name`, or the one that `package.module:attribute` names.

    Raises InputError: unknown name (with the known ones) or a target that cannot be imported.
    """
    known = {entry.name: entry.target for entry in entries(group)}
    target = known.get(name, name if ":" in name else None)
    if target is None:
        raise InputError(
            f"'{name}' is not registered in {group}{nearest(name, list(known))} (known: {', '.join(known)}; "
            f"or give package.module:attribute)",
            code="unknown_name",
        )
    module, _, attribute = target.partition(":")
    try:
        found = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise InputError(f"'{name}' of {group} points to {target}: {error}", code="broken_plugin") from error
    return found
