"""LoRA as a study asks for it: low-rank adapters beside frozen weights (Hu et al. 2021, arXiv 2106.09685)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, Strict

from rayscale.errors import InputError, nearest
from rayscale.study.values import Part

ALL_LINEAR = "all-linear"
#: Parts of a mixture of experts that get no adapters: the experts, which transformers holds in one tensor of three
#: dimensions for a whole layer, whatever the files say, and what chooses among them.
_MIXTURE = re.compile(r"(^|\.)(experts|router|gate|block_sparse_moe)(\.|$)")
_TARGETS = "give all-linear, or a list of names of linear layers, such as [query, value]"


def _targets(value: Any) -> str | tuple[str, ...]:
    if value == ALL_LINEAR:
        return ALL_LINEAR
    names = value if isinstance(value, (list, tuple)) else ()
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(_TARGETS)
    return tuple(sorted(set(names)))


class Lora(Part):
    """Each targeted matrix W works as W + alpha / rank x B A, of which only A (rank x in) and B (out x rank) learn.

    The defaults are those of Schulman et al. 2025 ("LoRA Without Regret"): adapters in all linear layers of the body,
    and an alpha for which the best learning rate hardly depends on the rank. `dropout` is that of what goes into A.
    `target_modules` are ends of the layers' dotted names, as in peft's LoraConfig.
    """

    rank: Annotated[int, Strict(), Field(ge=1, le=65_536)] = 8
    alpha: Annotated[float, Strict(), Field(gt=0, le=1e6, allow_inf_nan=False)] = 32.0
    dropout: Annotated[float, Strict(), Field(ge=0, lt=1, allow_inf_nan=False)] = 0.0
    target_modules: Annotated[str | tuple[str, ...], BeforeValidator(_targets)] = ALL_LINEAR

    @property
    def label(self) -> str:
        """What tells a model from the same one trained otherwise: the rank, and what is not the default."""
        alpha = f"alpha{self.alpha:g}" if self.alpha != Lora().alpha else ""
        dropout = f"dropout{self.dropout:g}" if self.dropout else ""
        targets = () if self.target_modules == ALL_LINEAR else self.target_modules
        return "-".join(filter(None, [f"lora{self.rank}", alpha, dropout, *targets]))

    def choose(self, layers: Iterable[str]) -> list[str]:
        """Those of these linear layers (dotted names) that get adapters: none in experts, nor in what routes to them.

        Raises InputError where there are none, and for a target that none of them is called, naming what there is.
        """
        there = list(layers)
        known = [name for name in there if not is_of_mixture(name)]
        if not known:
            text = "finds no linear layers in numbered blocks of the checkpoint; leave the key out to train all weights"
            raise InputError(text, code="no_lora_layers")
        if self.target_modules == ALL_LINEAR:
            return known
        for target in self.target_modules:
            if any(_is_called(name, target) for name in known):
                continue
            if any(_is_called(name, target) for name in there):
                text = "is part of the experts of this checkpoint, or chooses among them; their weights stay frozen"
                raise InputError(f"target_modules: '{target}' {text}: leave it out", code="no_lora_layers")
            names = list(dict.fromkeys(name.rpartition(".")[2] for name in known))
            text = f"no linear layer is called '{target}'{nearest(target, names)} (there are: {', '.join(names)})"
            raise InputError(f"target_modules: {text}; or write {ALL_LINEAR}", code="no_lora_layers")
        return [name for name in known if any(_is_called(name, target) for target in self.target_modules)]


def is_of_mixture(name: str) -> bool:
    """Whether this layer belongs to the experts of a mixture, or chooses among them."""
    return bool(_MIXTURE.search(name))


def _is_called(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
