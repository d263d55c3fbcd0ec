"""The tokenizer beside a kept model: loaded plainly, it gives the model what the model was given in training.

Training reads tokenizer.json alone. `AutoTokenizer` reads tokenizer_config.json as well, which may say otherwise: which
inputs there are, where a text is cut, on which side it is padded and with what, even how it is split into words.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedModel

from rayscale.errors import TrialError
from rayscale.nn.loading import quiet
from rayscale.nn.models.objectives import TYPES
from rayscale.plan.heads import positions_of
from rayscale.study.checkpoints import NAMES, special_ids, special_token, tokenizer_files

#: The class of transformers that takes tokenizer.json as it is; others may build a tokenizer of their own from it.
AS_IT_IS = "PreTrainedTokenizerFast"
_ROLES_FILE = "special_tokens_map.json"
#: What a tokenizer is made of, beside what frames a text.
_PARTS = ("model", "normalizer", "pre_tokenizer", "decoder", "added_tokens")


def write_tokenizer(
    prepared: Path, checkpoint: Path | None, model: PreTrainedModel, types: bool, length: int | None, into: Path
) -> None:
    """Write the tokenizer that the text was `prepared` with, and what else the checkpoint has beside it, into a folder
    that has a config.json already.

    In training the model was given the kinds of its tokens (`types`) or not, and texts of `length` tokens at most, cut
    and padded at the end; None where the rows are full windows.

    Raises TrialError where what `AutoTokenizer` makes of it is not the tokenizer of the training.
    """
    for file in tokenizer_files(checkpoint) if checkpoint is not None else ():
        place = into / file.relative_to(checkpoint)  # type: ignore[arg-type]
        place.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, place)
    for name in NAMES:
        shutil.copyfile(prepared / name, into / name)
    tokenizer = Tokenizer.from_file(str(into / NAMES[0]))
    config = _fitted(json.loads((into / NAMES[1]).read_text(encoding="utf-8")), tokenizer, model, types, length)
    _write(config, into)
    if _loads_as(tokenizer, into):
        return
    for name in (_ROLES_FILE, "added_tokens.json"):
        (into / name).unlink(missing_ok=True)
    _write(_plain(config, tokenizer), into)
    if not _loads_as(tokenizer, into):
        another = f"makes another tokenizer of {prepared / NAMES[0]} than tokenizer.json says"
        text = (
            f"AutoTokenizer of transformers {another}, so the kept model would be given other tokens than in training"
        )
        save = "load and save it once with `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`"
        fix = f"{save}, or set run.keep to none"
        raise TrialError(text, fix=fix, code="not_saved", permanent=True)


def _fitted(
    config: dict[str, Any], tokenizer: Tokenizer, model: PreTrainedModel, types: bool, length: int | None
) -> dict[str, Any]:
    """tokenizer_config.json, such that the usual call gives what the model was given."""
    config = {name: value for name, value in config.items() if name != "auto_map"}  # code that is not copied
    config["model_input_names"] = ["input_ids", *([TYPES] if types else []), "attention_mask"]
    if length is None:
        return config
    limits = (length, config.get("model_max_length"), positions_of(lambda key: getattr(model.config, key, None)))
    config["model_max_length"] = int(min(limit for limit in limits if isinstance(limit, (int, float)) and limit > 0))
    config |= {"padding_side": "right", "truncation_side": "right"}
    if (padding := _padding(config, tokenizer, model)) is not None:
        config["pad_token"] = padding
    return config


def _padding(config: dict[str, Any], tokenizer: Tokenizer, model: PreTrainedModel) -> Any:
    """The token that a batch is padded with: that of the model, by which a decoder finds the end of a text."""
    given = getattr(model.config, "pad_token_id", None)
    pad = given if isinstance(given, int) and given >= 0 else None
    stated, content = config.get("pad_token"), special_token(config, "pad")
    if content is not None and (pad is None or tokenizer.token_to_id(content) == pad):
        return stated
    if pad is not None:
        return tokenizer.id_to_token(pad) or stated
    return config.get("eos_token") or config.get("unk_token")  # hidden by the mask, whatever it is


def _plain(config: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    """The same without all that would change the tokenizer when it is loaded."""
    kept = {name: value for name, value in config.items() if name in (
        "model_input_names", "model_max_length", "padding_side", "truncation_side", "clean_up_tokenization_spaces",
        "chat_template")}  # fmt: skip
    kept |= {f"{role}_token": special_token(config, role) for role in special_ids(tokenizer, config)}
    return {"tokenizer_class": AS_IT_IS, **kept}


def _write(config: dict[str, Any], folder: Path) -> None:
    (folder / NAMES[1]).write_text(json.dumps(config, indent=1, ensure_ascii=False), encoding="utf-8")
    older = folder / _ROLES_FILE  # and yet stronger, where both are there
    if older.exists() and config.get("pad_token"):
        roles = {**json.loads(older.read_text(encoding="utf-8")), "pad_token": config["pad_token"]}
        older.write_text(json.dumps(roles, indent=1, ensure_ascii=False), encoding="utf-8")


def _loads_as(tokenizer: Tokenizer, folder: Path) -> bool:
    """Whether `AutoTokenizer` makes this tokenizer of the folder."""
    try:
        with quiet():
            # A folder that was just written here: nothing is downloaded that a revision could pin.
            loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)  # nosec B615
    except (ValueError, OSError, KeyError, TypeError, AttributeError, ImportError):
        return False
    backend: Tokenizer | None = getattr(loaded, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return False
    mine, other = (json.loads(one.to_str()) for one in (tokenizer, backend))
    return all(mine[part] == other[part] for part in _PARTS) and _frame(tokenizer) == _frame(backend)


def _frame(tokenizer: Tokenizer) -> list[tuple[list[int], list[int]]]:
    """What it makes of a text and of a pair: the tokens it puts around them, and the kinds of tokens."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return [(encoded.ids, encoded.type_ids) for encoded in (tokenizer.encode("a"), tokenizer.encode("a", "b"))]
