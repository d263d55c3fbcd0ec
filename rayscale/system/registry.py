"""Names → objects: what rayscale ships, what an installed plugin registers, or `package.module:attribute`.

A plugin is a package with an entry point in one of the groups of BUILT_IN; it has the same powers as a built-in.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
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
        "chinchilla_rectified": "rayscale.laws.catalogue:CHINCHILLA_RECTIFIED",
        "chinchilla_saturating": "rayscale.laws.catalogue:CHINCHILLA_SATURATING",
        "chinchilla_tied": "rayscale.laws.catalogue:CHINCHILLA_TIED",
        "chinchilla_without_E": "rayscale.laws.catalogue:CHINCHILLA_WITHOUT_E",
        "farseer": "rayscale.laws.farseer:FARSEER",
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
        "saturating": "rayscale.laws.catalogue:SATURATING",
        "shifted": "rayscale.laws.catalogue:SHIFTED",
        "shifted_without_E": "rayscale.laws.catalogue:SHIFTED_WITHOUT_E",
        "speedup": "rayscale.laws.catalogue:SPEEDUP",
        "transfer": "rayscale.laws.catalogue:TRANSFER",
        "two_stage": "rayscale.laws.two_stage:TWO_STAGE",
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


@dataclass(frozen=True)
class Entry:
    """One registered name: where it is defined (`module:attribute`) and who registered it."""

    group: str
    name: str
    target: str
    origin: str  # "rayscale" or "distribution version"


@lru_cache(maxsize=64)
def _plugins(group: str, path: tuple[str, ...]) -> list[EntryPoint]:
    """What the packages on this `sys.path` register: reading their metadata takes longer than a fit of ten rows."""
    return sorted(entry_points(group=group), key=lambda point: point.name)


def entries(group: str | None = None) -> list[Entry]:
    """All registered names, built-ins first, then plugins by name. A plugin may not take a built-in's name."""
    listed = []
    for kind in [group] if group else BUILT_IN:
        built_in = BUILT_IN[kind]
        listed += [Entry(kind, name, target, "rayscale") for name, target in sorted(built_in.items())]
        for point in _plugins(kind, tuple(sys.path)):
            origin = f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"
            if point.name in built_in:
                text = f"plugin {origin} registers '{point.name}', a built-in name of {kind}; rename it in the plugin"
                raise InputError(text, code="plugin_name_taken")
            listed.append(Entry(kind, point.name, point.value, origin))
    return listed


def resolve(group: str, name: str) -> Any:
    """The object registered as `name`, or the one that `package.module:attribute` names.

    Raises InputError: unknown name (with the known ones) or a target that cannot be imported.
    """
    known = {entry.name: entry.target for entry in entries(group)}
    target = known.get(name, name if ":" in name else None)
    if target is None:
        others = f"(known: {', '.join(known)}; or give package.module:attribute)"
        text = f"'{name}' is not registered in {group}{nearest(name, list(known))} {others}"
        raise InputError(text, code="unknown_name")
    module, _, attribute = target.partition(":")
    try:
        return attrgetter(attribute)(import_module(module))
    except (ImportError, AttributeError) as error:
        raise InputError(f"'{name}' of {group} points to {target}: {error}", code="broken_plugin") from error
