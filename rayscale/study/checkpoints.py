"""Pretrained checkpoints by folder or hub id: where their files lie, what they are, their digest. No torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayscale.errors import DataError, InputError, first_line
from rayscale.system.names import as_name

if TYPE_CHECKING:
    from tokenizers import Tokenizer

#: What belongs to a tokenizer, of whatever kind, with the templates of its chats.
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "bpe.codes",
                   "*.spm", "spm.model", "spiece.model", "sentencepiece*.model", "chat_template*",
                   "additional_chat_templates/*.jinja")  # fmt: skip
#: All that is ever read of a checkpoint: weights as safetensors, configuration, how it writes, tokenizer.
FILES = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", *TOKENIZER_FILES)

#: Names of folders that say nothing of the model in them.
GENERIC = ("model", "models", "checkpoint", "best", "final", "last", "latest", "output", "weights", "hf")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine. `digest` is the SHA-256 of its files, so it names the content, not the place."""

    name: str
    folder: Path
    config: dict[str, Any]
    digest: str


def find_checkpoint(pretrained: str, revision: str | None) -> Checkpoint:
    """The checkpoint of a folder or hub id; a hub id is downloaded once into the Hugging Face cache.

    Raises InputError: no such id, no network, no config.json, no safetensors weights.
    """
    folder = Path(pretrained)
    if not folder.is_dir():
        folder = _download(pretrained, revision)
    files = _files(folder, FILES)
    names = {file.name for file in files}
    if "config.json" not in names:
        raise _bad(f"{folder} has no config.json; give the folder of a transformers checkpoint")
    if not any(name.endswith(".safetensors") for name in names):
        raise _bad(f"{folder} has no *.safetensors; convert it once with model.save_pretrained(folder)")
    _check_shards(folder, names)
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return Checkpoint(checkpoint_name(pretrained), folder.resolve(), read_config(folder), digest.hexdigest())


def _check_shards(folder: Path, names: set[str]) -> None:
    """Raises InputError where weights that an index tells of are not there."""
    for index in sorted(name for name in names if name.endswith(".safetensors.index.json")):
        try:
            shards = set(json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise _bad(f"{folder / index} is not an index of weights ({error}); fetch the checkpoint again") from None
        if lost := sorted(shards - names):
            number = f"{len(lost)} of the {len(shards)} files"
            raise _bad(f"{folder} lacks {number} that {index} lists, such as {lost[0]}; fetch the checkpoint again")


def _bad(text: str) -> InputError:
    return InputError(text, code="bad_checkpoint")


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a checkpoint that belong to its tokenizer."""
    return _files(folder, TOKENIZER_FILES)


def _files(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()})


def checkpoint_name(pretrained: str) -> str:
    """The last part of the folder or id that says something."""
    parts = [part for part in Path(os.path.normpath(pretrained)).parts if part.strip("./")]
    telling = [part for part in parts if part.lower() not in GENERIC]
    return as_name((telling or parts or ["checkpoint"])[-1])


def read_config(folder: Path | str) -> dict[str, Any]:
    """config.json of a checkpoint's folder. Raises InputError if it is not a JSON object."""
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _bad(f"{path}: {error}") from None
    if not isinstance(config, dict):
        raise _bad(f"{path} does not hold a JSON object; fetch the checkpoint again")
    return config


def _download(pretrained: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:  # transformers brings it; a broken install should say so
        raise InputError(f"{pretrained} is not a folder, and huggingface_hub cannot be imported: {error}") from None
    try:
        return Path(snapshot_download(pretrained, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # the hub library raises its own, requests', httpx' and OS errors
        text = f"{pretrained}: no such folder, and the hub did not give it"
        fix = "check the id and the network, or give the folder of a downloaded checkpoint"
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise InputError(f"{text} ({reason})", fix=fix, code="checkpoint_not_found") from None


NAMES = ("tokenizer.json", "tokenizer_config.json")


def check_files(folder: Path) -> None:
    """Raises DataError where a file of the tokenizer is not there."""
    if missing := [name for name in NAMES if not (folder / name).exists()]:
        copy = f"copy {'them' if missing[1:] else 'it'} from where the checkpoint came from"
        make = "write both with `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`"
        text = f"the checkpoint has no {' and no '.join(missing)}; {copy}, or, where it has a vocabulary in other files"
        raise DataError(f"{text}, {make}", code="no_tokenizer", where=str(folder))


def read_tokenizer(folder: Path) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer and its tokenizer_config.json. Raises DataError as `check_files`, and for damaged files."""
    from tokenizers import Tokenizer

    check_files(folder)
    try:
        tokenizer = Tokenizer.from_file(str(folder / NAMES[0]))
        config = json.loads((folder / NAMES[1]).read_text(encoding="utf-8"))
    except Exception as error:  # `tokenizers` raises bare Exception
        text = f"the tokenizer cannot be read ({error}); download the checkpoint again"
        raise DataError(text, code="no_tokenizer", where=str(folder)) from error
    return tokenizer, config


def size_of(tokenizer: Tokenizer) -> int:
    """Rows that an embedding needs for it: one more than the largest number of a token."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


def special_token(config: dict[str, Any], role: str) -> str | None:
    """The token that tokenizer_config.json names for a role, by itself or with how it is matched; None without."""
    token = config.get(f"{role}_token")
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def special_ids(tokenizer: Tokenizer, config: dict[str, Any]) -> dict[str, int]:
    """Ids of the special tokens by role: pad, unk, cls, sep, mask, bos, eos, as far as there are."""
    tokens = {role: special_token(config, role) for role in ("pad", "unk", "cls", "sep", "mask", "bos", "eos")}
    numbers = {role: tokenizer.token_to_id(token) for role, token in tokens.items() if token is not None}
    return {role: number for role, number in numbers.items() if number is not None}


def check_tokenizer(folder: Path, config: dict[str, Any]) -> tuple[Tokenizer, dict[str, int]]:
    """The tokenizer and its `special_ids`.

    Raises DataError as `read_tokenizer`, and for a tokenizer with tokens that the model of config.json lacks.
    """
    tokenizer, settings = read_tokenizer(folder)
    rows = config.get("vocab_size")
    if isinstance(rows, int) and (size := size_of(tokenizer)) > rows:
        fix = f"copy {' and '.join(NAMES)} from where the checkpoint came from"
        text = f"the tokenizer knows {size} tokens, the model only {rows}"
        raise DataError(text, fix=fix, code="wrong_tokenizer", where=str(folder))
    return tokenizer, special_ids(tokenizer, settings)
