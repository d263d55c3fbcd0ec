"""Names of studies, models and augmentations: any script, if it is safe as a file."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayscale.system.names import as_name, is_name

GOOD = [
    "a",
    "A.b_c-9",
    "--",
    "x" * 64,
    "自动",
    "〇五",
    "日本語テスト",
    "العربية",
    "ไทย",
    "한국어",
    "हिन्दी",
    "é",
    "自" * 64,
]
BAD = [
    *("", ".", ".a", " a", "a b", "a/b", "a\\b", "a\nb", "a\0b", "a:b", "x" * 65, "\U00020000" * 51, None),
    *("a\u202eb", "a\u200bb", "a\u2066b", "a\u200d", "\u3164", "a\ufe0f", "\u0301a", "e\u0301", "\ue000", "\ud800"),
    *("²", "甲\uff0f乙", "甲\u3000乙", "\U0001f600"),
]


@pytest.mark.parametrize("name", GOOD)
def test_letters_of_any_script_are_names(name):
    assert is_name(name)
    assert as_name(name) == name


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_safe_as_a_file_or_label_is_no_name(name):
    assert not is_name(name)


@given(st.text(max_size=80))
def test_every_text_has_a_nearest_name(text):
    name = as_name(text)
    assert is_name(name)
    assert unicodedata.is_normalized("NFC", name)
    assert not name.startswith(".")
    assert len(name.encode()) <= 200


def test_a_name_may_become_a_file(tmp_path):
    for name in GOOD:
        (tmp_path / f"{name}.json").write_text(name)
    assert sorted(path.stem for path in tmp_path.iterdir()) == sorted(GOOD)
