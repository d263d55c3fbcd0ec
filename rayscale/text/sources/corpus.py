"""The built-in corpus: paragraphs of English documentation out of the docstrings of installed packages.

Nothing is downloaded and none of the packages is imported: their files are parsed. Which files and which paragraphs
is a fixed rule, so the same packages give the same corpus:

- files are taken in the order of the SHA-256 of their relative path, test and vendored folders left out, and only
  those of which docstrings are at least three tenths; a package ends at PARAGRAPHS_PER_PACKAGE paragraphs;
- a docstring is cut at blank lines, at changes of indentation and at list items; names and types of parameters,
  bullets and headings are taken off;
- a paragraph stays if it has 40 to 600 characters, begins with a capital letter, a quote or a back-tick, ends with
  punctuation, is at least 85% letters and spaces, has 6 words or more and every sixth is among the commonest of
  English. That drops doctests, code, tables, formulas and bare parameter lists.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import re
import sysconfig
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rayscale.errors import DataError
from rayscale.system.disk import PRIVATE, write_file
from rayscale.system.machine import cache_root, installed
from rayscale.system.overrides import no_garbage_collected
from rayscale.text.normalise import normalise

#: Rises when the same packages would give another corpus.
CORPUS_VERSION = 1

#: The labels. "python" is the standard library.
PACKAGES = ("numpy", "pandas", "python", "ray", "scipy", "sympy", "torch", "transformers")

PARAGRAPHS_PER_PACKAGE = 4000

_WORD = re.compile(r"[a-z]+")
_LEFT_OUT = re.compile(
    r"_?tests?|_?testing|_?vendor(ed)?|third_?party(_files)?|externals|(site|dist)-packages|__pycache__|idlelib|lib2to3"
    r"|ensurepip|pydoc_data"
)
_COMMON = frozenset(
    _WORD.findall(
        "the a an of to and in is for that this it with as be are or on by if not from can when which will has at used "
        "you we its should have all but no into may one any only does must than then other these so was"
    )
)
_DOCUMENTATION = re.compile(rb'"""(.*?)"""', re.DOTALL)
_ITEM = re.compile(r"(?:[-*+•]|\(?\w{1,2}[.)])\s+|[*`]{0,2}[\w.]+[*`]{0,2}(?: ?\([^)]*\))? ?: |:\w[^:]*: ")
_DECLARATION = re.compile(r"[*`\w.]+(?:, [*`\w.]+)* : ")
_RULED = re.compile(r"[-=~^*+#`|.<>_ ]+$")
_NO_PROSE = re.compile(r">>>|\.\.\. |```|\.\. |\||::$")


def fingerprint() -> str:
    """16 hex digits that change with the rule and with the version of every package."""
    named = json.dumps([CORPUS_VERSION, _versions()], sort_keys=True)
    return hashlib.sha256(named.encode()).hexdigest()[:16]


def ensure_corpus(apply: Callable[[Callable[[str], list[str]], list[str]], Iterable[list[str]]] = map) -> Path:
    """The cached corpus, made first if need be: one JSON array [text, package] a line.

    `apply` applies a function to every package as `map` does. Raises DataError for fewer than two packages.
    """
    path = cache_root() / "corpus" / f"{fingerprint()}.jsonl"
    if path.exists():
        return path
    installed = sorted(_versions())
    if len(installed) < 2:
        text = f"the built-in corpus needs two of {', '.join(PACKAGES)}, and only {installed} are installed"
        raise DataError(text, code="no_corpus", where="builtin")
    packages: dict[str, str] = {}
    for package, paragraphs in zip(installed, apply(harvest, installed), strict=True):
        for paragraph in paragraphs:
            packages.setdefault(paragraph, package)
    lines = (json.dumps([paragraph, package]) + "\n" for paragraph, package in packages.items())
    write_file(path, "".join(lines).encode(), PRIVATE)
    return path


def harvest(package: str) -> list[str]:
    """The paragraphs of one installed package, each once, in the order of the rule."""
    paragraphs: dict[str, None] = {}
    # A syntax tree is many thousand new objects without cycles: the collector would walk them again and again, a
    # quarter of the whole time, and free none.
    with no_garbage_collected():
        for file in _files(package):
            source = file.read_bytes()
            documented = sum(len(text) for text in _DOCUMENTATION.findall(source))
            if documented * 10 >= len(source) * 3 > 0:
                paragraphs.update(dict.fromkeys(paragraphs_of(source)))
            if len(paragraphs) >= PARAGRAPHS_PER_PACKAGE:
                break
    return list(paragraphs)[:PARAGRAPHS_PER_PACKAGE]


def paragraphs_of(source: bytes) -> Iterator[str]:
    """The English paragraphs in the docstrings of a Python file; none if it does not parse (templates, Python 2)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's files
            waiting: list[ast.AST] = [ast.parse(source)]
    except (SyntaxError, ValueError):
        return
    while waiting:
        node = waiting.pop()
        body = getattr(node, "body", [])
        waiting += [n for n in body if isinstance(n, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))]
        if docstring := ast.get_docstring(node):  # type: ignore[arg-type]
            for chunk in _chunks(docstring):
                text = normalise(" ".join(chunk))
                if _is_prose(text):
                    yield text


def _chunks(docstring: str) -> Iterator[list[str]]:
    """Runs of lines that belong together."""
    chunk: list[str] = []
    indent, hanging = 0, False
    for line in docstring.splitlines():
        text = line.strip()
        here = len(line) - len(line.lstrip())
        item = _ITEM.match(text)
        ruled = _RULED.match(text)
        if not text or ruled or _DECLARATION.match(text):
            # A ruled line is a heading's underline or a table's edge: what stands above it goes, too. A declaration
            # ("x : int, optional") goes alone.
            if chunk and not ruled:
                yield chunk
            chunk = []
            continue
        # Lines below an item that hang further in are its continuation; any other change begins a new paragraph.
        if chunk and (item or here < indent or (here > indent and not hanging)):
            yield chunk
            chunk = []
        if not chunk:
            indent, hanging = here, bool(item)
            text = text[item.end() :] if item else text
        chunk.append(text)
    if chunk:
        yield chunk


def _is_prose(text: str) -> bool:
    if not 40 <= len(text) <= 600 or not (text[0].isupper() or text[0] in "`\"'") or text[-1] not in ".!?:)":
        return False
    if _NO_PROSE.search(text) or sum(map(str.isalpha, text)) + text.count(" ") < 0.85 * len(text):
        return False
    words = _WORD.findall(text.lower())
    return len(words) >= 6 and 6 * sum(map(_COMMON.__contains__, words)) >= len(words)


def _files(package: str) -> list[Path]:
    root = _root(package)
    if root is None:
        return []
    paths = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not _LEFT_OUT.fullmatch(name)]
        paths += [Path(folder, name) for name in files if name.endswith(".py")]
    return sorted(paths, key=lambda path: hashlib.sha256(path.relative_to(root).as_posix().encode()).digest())


def _root(package: str) -> Path | None:
    if package == "python":
        return Path(sysconfig.get_paths()["stdlib"])
    # Finding a top-level package does not run it.
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None


def _versions() -> dict[str, str]:
    return {package: version for package, version in installed(PACKAGES).items() if version and _root(package)}
