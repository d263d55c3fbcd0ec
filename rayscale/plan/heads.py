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
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayscale.errors import InputError
from rayscale.study.tasks import find_kind

if TYPE_CHECKING:
    from tokenizers import Tokenizer

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
#: What prepares images, sound or pages for a model: those of text alone have none.
_PROCESSORS = ("PROCESSOR_MAPPING_NAMES", "FEATURE_EXTRACTOR_MAPPING_NAMES")  # ends of their tables' names
#: Heads that name their body otherwise than the checkpoints of its kind do, and would read none of it.
OTHER_BODIES = {
    "question-answering": ("arcee", "diffllama", "exaone4", "llama", "ministral", "nemotron", "qwen2", "qwen3",
                           "qwen3_moe", "qwen3_next", "seed_oss", "smollm3"),
    "causal-lm": ("llama4", "llama4_text", "mllama"),
}  # fmt: skip
#: Their states depend on how far a row is padded: they are evaluated on rows of one length at a time.
READS_PADDING = ("fnet", "convbert", "nystromformer", "canine")
#: Architectures that the tables name and that cannot serve here all the same, and why; by task, None for all of them.
UNFIT: dict[str | None, dict[str, str]] = {
    None: {
        "reformer": "reads texts only in multiples of its chunks",
        "yoso": "attends by hashes that it draws at random, also when it is evaluated",
    },
    "causal-lm": {
        "bert-generation": "reads both ways, and so would be given the words that it is to predict",
        "cpmant": "reads both ways, and so would be given the words that it is to predict",
        "xlnet": "reads both ways, and so would be given the words that it is to predict",
    },
    "seq2seq": {"prophetnet": "cannot write with its cache (an error of transformers)"},
    "question-answering": dict.fromkeys(READS_PADDING, "mixes the padding of windows into its states"),
}
#: Of their layers none can be left out: others refer to them, or they are not counted by one number.
UNCUT = ("esm", "gemma3n_text", "gemma4_text", "gpt_neox_japanese", "hrm_text", "inkling2_text", "rwkv", "xlstm")
#: The class of a text is read off its last place, not off its last token: padding goes before the text.
PADDED_LEFT = ("xlnet",)
POSITION_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len")
#: Their position numbers start after that of padding.
AFTER_PADDING = ("roberta", "xlm-roberta", "camembert", "data2vec-text", "esm", "ibert", "lilt", "longformer", "luke",
                 "mpnet", "roberta-prelayernorm", "xlm-roberta-xl", "xmod")  # fmt: skip
#: Of these transformers reads every tokenizer as byte-level BPE, whatever the tokenizer's files say.
READ_AS_BYTES = ("hyperclovax_vision_v2", "qwen2", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen4_exp")
_SAME = {"gpt-sw3": "gpt2"}  # one architecture under two names


def check_head(name: str, config: dict[str, Any], task_type: str) -> None:
    """Raises InputError where a checkpoint called `name` is, by its config.json, of an architecture without that head.

    Says nothing of a config without model_type, nor where transformers keeps its tables otherwise than is known here.
    """
    kind = config.get("model_type")
    tables = _tables()
    heads, bodies, encoders = (tables.get(table) for table in (TABLES[task_type], _BODIES, _ENCODERS))
    if not isinstance(kind, str) or not heads or not bodies or not encoders:
        return
    known = _SAME.get(kind, kind)
    mixed = known.endswith("t5") and task_type == "question-answering"  # the head is within the body there
    able = known in heads and isinstance(bodies.get(known), str) and known not in OTHER_BODIES.get(task_type, ())
    # Those that mask words or read sources are in the causal table too, as decoders that nobody trained.
    untrained = task_type == "causal-lm" and (known in encoders or known in tables.get(TABLES["seq2seq"], ()))
    why, instead = "", f"one such as {find_kind(task_type).models}"
    if known in heads and any(known in table for title, table in tables.items() if title.endswith(_PROCESSORS)):
        why = "reads images, sound or pages as well as text"
        text = config.get("text_config")
        of_text = text.get("model_type") if isinstance(text, dict) else None
        instead = f"one of its text part alone ('{of_text}')" if of_text in heads else instead
    elif reason := UNFIT[None].get(known) or UNFIT.get(task_type, {}).get(known):
        why = reason
    elif not able or mixed or untrained:
        why = f"cannot do {task_type}"
    if why:
        raise InputError(f"{name} is a '{kind}' checkpoint, which {why}; give {instead}", code="wrong_architecture")


def check_reader(name: str, model_type: str, tokenizer: Tokenizer) -> None:
    """Of a kind in READ_AS_BYTES: raises InputError for a tokenizer that transformers would read as another one."""
    if type(tokenizer.model).__name__ != "BPE" or "ByteLevel(" not in str(tokenizer.pre_tokenizer):
        text = f"the tokenizer of {name} is not byte-level BPE, and transformers reads that of every '{model_type}'"
        text += " checkpoint as such: a kept model would be given other tokens than in training; set run.keep to none"
        raise InputError(text, code="wrong_tokenizer")


def positions_of(get: Callable[[str], Any]) -> int | None:
    """The most tokens that a model reads, None where it has no limit; `get` gives the value of a key of its config."""
    positions = next((value for key in POSITION_KEYS if isinstance(value := get(key), int) and value > 0), None)
    pad = get("pad_token_id")
    if positions and pad is not None and get("model_type") in AFTER_PADDING:
        positions -= pad + 1
    return positions


def padding_of(get: Callable[[str], Any], token_ids: Mapping[str, int]) -> int | None:
    """The token that pads texts: the config's, else the tokenizer's, else one that ends texts; None without any.

    `get` gives the value of a key of the config, `token_ids` are the tokenizer's special tokens by role. What is no row
    of the embedding (-1 is written for none) is passed over; of several tokens that end texts the first counts.
    """
    rows = get("vocab_size")
    for given in (get("pad_token_id"), token_ids.get("pad"), get("eos_token_id"), token_ids.get("eos")):
        token = next(iter(given), None) if isinstance(given, (list, tuple)) else given
        if isinstance(token, int) and token >= 0 and (not isinstance(rows, int) or token < rows):
            return token
    return None


def no_padding(name: str) -> InputError:
    """What is said of a decoder that cannot tell where a text ends in a padded batch."""
    text = f"{name} names no token that pads or ends a text, so the end of a text in a batch cannot be found"
    fix = "write pad_token_id into its config.json: the number of a token that no text holds"
    return InputError(text, fix=fix, code="no_padding")


def check_positions(name: str, config: Mapping[str, Any], longest: int) -> None:
    """Raises InputError where a model with this config.json reads fewer tokens than the longest input has."""
    positions = positions_of({"pad_token_id": 1, **config}.get)  # 1 is the default of those in AFTER_PADDING
    if positions and longest > positions:
        raise too_long(name, longest, positions)


def too_long(name: str, longest: int, positions: int) -> InputError:
    """What is said of texts that a checkpoint cannot read."""
    text = f"the longest text has {longest} tokens, {name} reads {positions}"
    return InputError(text, fix=f"set it to {positions} or less", code="too_long", where="task.max_length")


@cache
def _tables() -> dict[str, dict[str, Any]]:
    """The tables of transformers by name, each from model types to names of classes."""
    package = importlib.util.find_spec("transformers")
    folders = (package and package.submodule_search_locations) or ()
    tables: dict[str, dict[str, Any]] = {}
    for file in (file for place in folders for file in sorted(Path(place, "models", "auto").glob("*.py"))):
        with suppress(OSError, SyntaxError):  # of another layout: `nn` reports it
            body = ast.parse(file.read_text(encoding="utf-8")).body
            for node in chain(body, *(node.orelse for node in body if isinstance(node, ast.If))):
                if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and node.value.args:
                    with suppress(ValueError, TypeError):  # it is no plain list of pairs
                        pairs = dict(ast.literal_eval(node.value.args[0]))
                        tables.setdefault(ast.unparse(node.targets[0]), {}).update(pairs)
    return tables
