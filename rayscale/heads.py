"""Which architectures can do a task, told from config.json alone, by the tables of the transformers that is installed.

The tables are read as text. To import them is to load torch, which takes a plan seconds and hundreds of megabytes. What
they do not tell is found when the model is built (`nn.models`), which knows all.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from rayscale.errors import InputError
from rayscale.tasks import find_kind

#: The table of each task's heads.
TABLES = {
    "sequence-classification": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "multi-label": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "token-classification": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
    "question-answering": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "seq2seq": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "causal-lm": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
}
_BODIES, _ENCODERS = "MODEL_MAPPING_NAMES", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"
#: Heads that name their body otherwise than the checkpoints of its kind do, and would read none of it.
OTHER_BODIES = {
    "question-answering": ("arcee", "diffllama", "exaone4", "llama", "ministral", "nemotron", "qwen2", "qwen3",
                           "qwen3_moe", "qwen3_next", "seed_oss", "smollm3"),
    "causal-lm": ("llama4", "llama4_text", "mllama"),
}  # fmt: skip
POSITION_KEYS = ("max_position_embeddings", "n_positions")
AFTER_PADDING = ("roberta", "xlm-roberta", "camembert")  # their position numbers start after that of padding
_SAME = {"gpt-sw3": "gpt2"}  # one architecture under two names


def check_head(name: str, config: dict[str, Any], task_type: str) -> None:
    """Raises InputError where a checkpoint called `name` is, by its config.json, of an architecture without that head.

    Says nothing of a config without model_type, nor where transformers keeps its tables otherwise than is known here.
    """
    kind, tables = config.get("model_type"), _tables()
    heads, bodies, encoders = (tables.get(table) for table in (TABLES[task_type], _BODIES, _ENCODERS))
    if not isinstance(kind, str) or not heads or not bodies or not encoders:
        return
    kind = _SAME.get(kind, kind)
    able = kind in heads and isinstance(bodies.get(kind), str) and kind not in OTHER_BODIES.get(task_type, ())
    if not able or is_mixed(kind, task_type) or (task_type == "causal-lm" and kind in encoders):
        raise cannot_do(name, str(config["model_type"]), task_type)


def is_mixed(model_type: str, task_type: str) -> bool:
    """Whether the head of the task is within the body there: that of T5 and its kin."""
    return model_type.endswith("t5") and task_type == "question-answering"


def cannot_do(name: str, model_type: str, task_type: str) -> InputError:
    """What is said of a checkpoint of another architecture."""
    example = find_kind(task_type).models
    return InputError(
        f"{name} is a '{model_type}' checkpoint, which cannot do {task_type}; give one such as {example}",
        code="wrong_architecture",
    )


def positions_of(get: Callable[[str], Any]) -> int | None:
    """The most tokens that a model reads, None where it has no limit; `get` gives the value of a key of its config."""
    positions = next((value for key in POSITION_KEYS if (value := get(key))), None)
    pad = get("pad_token_id")
    if positions and pad is not None and get("model_type") in AFTER_PADDING:
        positions -= pad + 1
    return positions


def check_positions(name: str, config: Mapping[str, Any], longest: int) -> None:
    """Raises InputError where a model with this config.json reads fewer tokens than the longest input has."""
    positions = positions_of({"pad_token_id": 1, **config}.get)  # 1 is the default of those in AFTER_PADDING
    if positions and longest > positions:
        raise too_long(name, longest, positions)


def too_long(name: str, longest: int, positions: int) -> InputError:
    """What is said of texts that a checkpoint cannot read."""
    return InputError(
        f"the longest text has {longest} tokens, {name} reads {positions}; set task.max_length to {positions} or less",
        code="too_long",
        where="task.max_length",
    )


@cache
def _tables() -> dict[str, dict[str, Any]]:
    """The tables of transformers by name, each from model types to names of classes."""
    package, found = importlib.util.find_spec("transformers"), {}
    for place in (package and package.submodule_search_locations) or ():
        with suppress(OSError, SyntaxError):  # of another layout: the model floor will tell
            source = Path(place, "models", "auto", "modeling_auto.py").read_text(encoding="utf-8")
            for node in ast.parse(source).body:
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and node.value.args:
                    with suppress(ValueError, TypeError):  # it is no plain list of pairs
                        found[ast.unparse(node.targets[0])] = dict(ast.literal_eval(node.value.args[0]))
    return found
