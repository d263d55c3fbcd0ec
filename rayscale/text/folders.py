"""The folders of prepared text: where they are, and the manifest that says whether one is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rayscale.errors import DataError
from rayscale.study.study import Study
from rayscale.system.machine import cache_root
from rayscale.text.rows import clean
from rayscale.text.tokens import encode
from rayscale.text.tokens.encode import TokenizerSpec

#: Layout of the folders; one of another layout is made again.
LAYOUT = 2
#: Lists of rows that are kept beside clean rows, as <name>.txt.
LISTS = ("bad_rows", "near_duplicates")


def real_rows(manifest: dict[str, Any]) -> int:
    """Training rows (windows) of tokenised data that are no augmented copies."""
    train = manifest["splits"]["train"]
    return int(train.get("real_rows", train["rows"]))


def clean_folder(study: Study) -> Path:
    """Where the clean rows of a study belong. Reads the source files, for their hash."""
    return cache_root() / "prepared" / clean.fingerprint(study)


def tokens_folder(cleaned: Path, spec: TokenizerSpec, max_length: int) -> Path:
    """Where the tokens of one tokenizer belong."""
    return cleaned / f"tokens-{encode.fingerprint(spec, max_length)}"


def is_whole(folder: Path) -> bool:
    """Whether the folder is of this layout and its files have the sizes that the manifest gives."""
    try:
        read_manifest(folder)
    except DataError:
        return False
    return True


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a folder, last of all: it lists every file that is there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    content = {"layout": LAYOUT, **manifest, "files": sizes}
    (folder / "manifest.json").write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder. Raises DataError when it is absent, of another layout or not whole."""
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        wrong = [name for name, size in manifest["files"].items() if (folder / name).stat().st_size != size]
        layout = manifest["layout"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"no whole prepared data here ({error}); run the study again, which prepares it"
        raise DataError(text, code="not_prepared", where=str(folder)) from error
    if wrong or layout != LAYOUT:
        reason = f"{', '.join(wrong)} cut short" if wrong else f"layout {layout} where this version reads {LAYOUT}"
        raise DataError(f"{reason}; run the study again, which prepares it", code="not_prepared", where=str(folder))
    return manifest
