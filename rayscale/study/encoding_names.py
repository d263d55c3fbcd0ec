"""Names of encodings, as a study gives them: which there are, and one name for all spellings of each."""

from __future__ import annotations

import codecs

UTF_8 = "utf-8"
#: Codecs of Python whose texts are not written as they are read by anyone else.
_NONE = ("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7")


def canonical(name: str) -> str:
    """The name of an encoding, whichever way it is spelt. Raises LookupError for what is no encoding of text files."""
    try:
        codec = codecs.lookup(name).name
        if codec in _NONE or not ("a\n".encode(codec) == b"a\n" or is_wide(codec)):
            raise LookupError(name)
    except (LookupError, ValueError) as error:  # a name with a NUL is a ValueError
        raise LookupError(name) from error
    return UTF_8 if codec == "utf-8-sig" else codec


def is_wide(name: str) -> bool:
    """Whether each character takes several bytes, those of ASCII too, so that line ends are not one byte."""
    return name.startswith(("utf-16", "utf-32"))
