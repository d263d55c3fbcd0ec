"""The tokenizer of a checkpoint: whether its files are there, can be read, and belong to the model beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayscale.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NAMES = ("tokenizer.json", "tokenizer_config.json")


def check_files(folder: Path) -> None:
    """Raises DataError where a file of the tokenizer is not there."""
    if missing := [name for name in NAMES if not (folder / name).exists()]:
        raise DataError(
            f"the checkpoint has no {' and no '.join(missing)}; copy {'them' if missing[1:] else 'it'} from where the "
            "checkpoint came from, or, where it has a vocabulary in other files, write both with "
            "`AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`",
            code="no_tokenizer",
            where=str(folder),
        )


def read_tokenizer(folder: Path) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer and its tokenizer_config.json. Raises DataError as `check_files`, and for damaged files."""
    from tokenizers import Tokenizer

    check_files(folder)
    try:
        tokenizer = Tokenizer.from_file(str(folder / NAMES[0]))
        config = json.loads((folder / NAMES[1]).read_text(encoding="utf-8"))
    except Exception as error:  # `tokenizers` raises bare Exception
        raise DataError(
            f"the tokenizer cannot be read ({error}); download the checkpoint again",
            code="no_tokenizer",
            where=str(folder),
        ) from error
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
    found = {}
    for role in ("pad", "unk", "cls", "sep", "mask", "bos", "eos"):
        token = special_token(config, role)
        number = tokenizer.token_to_id(token) if token is not None else None
        if number is not None:
            found[role] = number
    return found


def check_tokenizer(folder: Path, config: dict[str, Any]) -> dict[str, int]:
    """The tokenizer's `special_ids`.

    Raises DataError as `read_tokenizer`, and for a tokenizer with tokens that the model of config.json lacks.
    """
    (tokenizer, settings), rows = read_tokenizer(folder), config.get("vocab_size")
    if isinstance(rows, int) and (size := size_of(tokenizer)) > rows:
        raise DataError(
            f"the tokenizer knows {size} tokens, the model only {rows}; copy tokenizer.json and tokenizer_config.json "
            "from where the checkpoint came from",
            code="wrong_tokenizer",
            where=str(folder),
        )
    return special_ids(tokenizer, settings)
