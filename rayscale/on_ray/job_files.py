"""What travels with a study that is submitted as a job: the files it reads, at paths of their own there, and the words
that turn paths of there into the user's.

The study file goes as it is but for its paths, so that what is refused there names the user's own lines.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rayscale.study.augmenters import find_augmenter
from rayscale.study.checkpoints import FILES, checkpoint_name
from rayscale.study.study import Pretrained, Study, load_study
from rayscale.study.training import Transfer
from rayscale.text.rows.clean import BUILT_IN, find_files
from rayscale.text.sources import remote
from rayscale.text.sources.digests import look

STAGED = "sent"  # the folder of a job's working directory in which everything lies
STUDY = "study.yaml"
#: Subfolders of a run that stay on the cluster: they are large, and nothing that is read from results needs them.
LEFT_THERE = ("checkpoints", "models")
#: Bytes that one request to a dashboard takes: 100 MiB (DASHBOARD_CLIENT_MAX_SIZE of Ray), less what an archive adds.
MOST_BYTES = 95 << 20
PART_BYTES = 64 << 20

_PROPERTIES = re.compile(r"(?:[&!]\S+\s+)+")


@dataclass(frozen=True)
class JobFiles:
    """The files of a study as they travel.

    `files` has the place below STAGED (with forward slashes) of each file of this machine, `text` the study file with
    its paths replaced, `here` the user's path for each path below STAGED that may be spoken of, `digest` (SHA-256, hex)
    names all that is sent.
    """

    text: str
    files: Mapping[str, str]
    here: Mapping[str, str]
    digest: str

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(os.path.getsize(file) for file in self.files.values()) + len(self.text.encode())

    def write(self, folder: Path) -> None:
        """Copy all of it below `folder`."""
        for name, file in self.files.items():
            target = folder / STAGED / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        (folder / STAGED).mkdir(exist_ok=True)
        (folder / STAGED / STUDY).write_text(self.text, encoding="utf-8")

    def parts(self, folder: Path) -> Iterator[Path]:
        """All of it as one archive, in files of PART_BYTES at most below `folder`, each gone when the next is made."""
        whole = folder / "whole"
        with tarfile.open(whole, "w:gz", compresslevel=1) as archive:  # text becomes a third, weights stay
            for name, file in self.files.items():
                archive.add(file, arcname=f"{STAGED}/{name}")
            study = folder / STUDY
            study.write_text(self.text, encoding="utf-8")
            archive.add(study, arcname=f"{STAGED}/{STUDY}")
            study.unlink()
        with whole.open("rb") as stream:
            whole.unlink()
            while block := stream.read(PART_BYTES):
                part = folder / "part"
                part.write_bytes(block)
                yield part
                part.unlink()

    def translate(self, line: str) -> str:
        """A line of the job's log with the user's paths in place of those there."""
        for there, here in self.here.items():
            line = re.sub(rf"(?:[^\s'\"]*/)?{STAGED}/{re.escape(there)}", here.replace("\\", r"\\"), line)
        return line


def gather(study_file: Path) -> JobFiles:
    """What travels with this study. Raises InputError for a wrong study, or a file that cannot be read."""
    study = load_study(study_file)
    raw = study_file.read_bytes().decode("utf-8-sig")
    root = yaml.compose(raw, Loader=yaml.SafeLoader)
    there: dict[str, str] = {}  # by path
    files: dict[str, str] = {}
    here = {STUDY: str(study_file)}
    replaced: dict[tuple[int, int], str] = {}
    for keys, path in _local_paths(study):
        if path not in there:
            there[path], inside = _staged(path, len(there), keys)
            files |= inside
            here |= {there[path]: path, **inside}
        node = _node(root, keys)
        replaced[node.start_mark.index, node.end_mark.index] = json.dumps(there[path], ensure_ascii=False)
    text = raw
    for (start, end), value in sorted(replaced.items(), reverse=True):
        anchor = _PROPERTIES.match(text, start, end)  # what an alias refers to stays
        text = text[: anchor.end() if anchor else start] + value + text[end:]
    digest = hashlib.sha256(raw.encode())
    for name, file in sorted(files.items()):
        digest.update(f"\0{name}\0{look(file).digest}".encode())
    longest_first = sorted(here.items(), key=lambda pair: -len(pair[0]))  # a name may begin with another
    return JobFiles(text, files, dict(longest_first), digest.hexdigest())


def _local_paths(study: Study) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The keys of every path of this machine that the study names, and the path."""
    for role in ("train", "validation", "test"):
        given = getattr(study.data, role)
        if given and given != BUILT_IN and not remote.is_remote(given):
            yield ("data", role), given
    for place, entry in enumerate(study.data.augment):
        for step, settings in entry.items() if isinstance(entry, Mapping) else ():
            for key in find_augmenter(step).paths if isinstance(settings, Mapping) else ():
                if isinstance(given := settings.get(key), str) and Path(given).exists():
                    yield ("data", "augment", place, step, key), given
    for place, model in enumerate(study.models):
        if isinstance(model, Pretrained) and Path(model.pretrained).is_dir():
            yield ("models", place, "pretrained"), model.pretrained
    rate = study.training.learning_rate
    if isinstance(rate, Transfer) and not remote.is_remote(rate.transfer):
        yield ("training", "learning_rate", "transfer"), rate.transfer


def _staged(path: str, number: int, keys: tuple[str | int, ...]) -> tuple[str, dict[str, str]]:
    """What the study says of a path there, and its files: places below STAGED."""
    if keys[:1] == ("data",) and keys[1:2] != ("augment",):
        texts = find_files(path)
        if len(texts) == 1:
            name = f"{number}/{Path(texts[0]).name}"
            return name, {name: texts[0]}
        # Numbered, as files of several folders may share a name.
        return f"{number}/*", {f"{number}/{at:06d}-{Path(file).name}": file for at, file in enumerate(texts)}
    if not Path(path).is_dir():
        name = f"{number}/{Path(path).name}"
        return name, {name: path}
    folder = Path(path)
    if keys[0] == "models":  # tables call a model by its folder
        name, files = f"{number}/{checkpoint_name(path)}", {f for pattern in FILES for f in folder.glob(pattern)}
    else:
        left = LEFT_THERE if keys[0] == "training" else ()
        kept = [entry for entry in folder.iterdir() if entry.name not in left and not entry.name.startswith(".")]
        name, files = f"{number}/{folder.name}", {f for entry in kept for f in (entry, *entry.rglob("*"))}
    return name, {f"{name}/{f.relative_to(folder).as_posix()}": str(f) for f in sorted(files) if f.is_file()}


def _node(root: Any, keys: tuple[str | int, ...]) -> yaml.Node:
    """The node of the study file below these keys; one that is merged in (`<<`) is found, too."""
    for key in keys:
        if isinstance(root, yaml.SequenceNode):
            root = root.value[int(key)]
            continue
        pairs = list(root.value)
        for name, value in pairs:
            if name.value == "<<":
                merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
                pairs += [pair for node in merged for pair in node.value]
        root = next(value for name, value in pairs if name.value == str(key))
    return root
