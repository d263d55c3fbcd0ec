"""How numbers are written."""

from __future__ import annotations

import math
import random
import textwrap

import numpy as np
import pytest
from rich.cells import cell_len

from rayscale.report import numbers


def spaced(text: str) -> str:
    """Numbers and units are held together by no-break spaces."""
    assert " " not in text
    return text.replace("\u00a0", " ")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (0.012345, "0.0123"), (-2.5, "−2.50"), (9.999, "10.0"), (1234.5, "1,230"), (5e-9, "5.00e−9"),
        (None, "–"), (math.nan, "–"), (math.inf, "–"), (np.float64(3), "3.00"), ("many", "–"), (True, "–"),
    ],
)  # fmt: skip
def test_significant_keeps_three_digits_and_never_prints_nan(value, text):
    assert spaced(numbers.significant(value)) == text


@pytest.mark.parametrize(
    ("value", "text"), [(850, "850"), (85_400, "85.4 k"), (670_000, "670 k"), (2.2e7, "22 M"), (3e18, "3.00e18")]
)
def test_sizes_are_counted_in_multiples(value, text):
    assert spaced(numbers.count(value)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.02, "20 ms"), (4.21, "4.2 s"), (59.4, "59 s"), (59.9, "1 min"), (75, "1 min 15 s"),
     (3600 * 5 + 60, "5 h 1 min"), (3600 * 50, "2 d 2 h"), (None, "–")],
)  # fmt: skip
def test_durations_have_two_units(seconds, text):
    assert spaced(numbers.duration(seconds)) == text


@pytest.mark.parametrize(
    ("value", "text"), [(999, "999 B"), (2**20, "1 MiB"), (2**30 - 1, "1024 MiB"), (1.5 * 2**30, "1.5 GiB")]
)
def test_volumes_have_no_powers_of_ten(value, text):
    assert spaced(numbers.data_volume(value)) == text


def test_exact_reads_back_as_the_same_number():
    assert float(numbers.exact(0.1 + 0.2)) == 0.1 + 0.2


def test_trimmed_drops_zeros_that_nobody_measured():
    assert [numbers.trimmed(value) for value in (0.003, 1.0, 100, 3e-5)] == ["0.003", "1", "100", "3.00e−5"]


def test_plain_leaves_no_control_characters_and_no_colours():
    assert numbers.plain("\x1b[31mred\x1b[0m\ntwo\x00") == "red two "


def test_shorten_keeps_both_ends():
    assert numbers.shorten("a" * 30 + "-v2", 11) == "aaaaa…aa-v2"
    assert numbers.shorten("short", 11) == "short"


def test_a_chinese_sign_takes_two_columns():
    assert cell_len("大模型@1") == 8
    assert cell_len("ab") == 2
    assert numbers.shorten("大" * 20, 11) == "大大…大大"
    assert all(cell_len(numbers.shorten("模型-v2 base 大" * 4, limit)) <= limit for limit in range(4, 40))
    assert numbers.padded("大", 4) == "大  "
    assert numbers.padded("大", 4, right=True) == "  大"


def test_lines_end_by_columns_and_within_text_without_spaces_beside_a_wide_letter():
    text = "自动工单分类模型比较。第二个模型更好，因为它有更多的参数，mixed with bert-2x64 names"
    lines = numbers.wrap(text, 20, subsequent_indent="  ")
    assert all(cell_len(line) <= 20 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert not [line for line in lines if line.strip()[0] in "。，"]
    assert lines[0] == "自动工单分类模型比"  # the next letter has a full stop behind it, which would begin a line


def test_lines_of_letters_are_those_of_textwrap():
    draw = random.Random(1)
    for columns in range(20, 60, 4):
        text = " ".join("x" * draw.randint(1, 12) for _ in range(60))
        wanted = textwrap.wrap(text, columns, initial_indent="- ", subsequent_indent="  ")
        assert numbers.wrap(text, columns, "- ", "  ") == wanted
    assert numbers.wrap("y" * 50, 20) == ["y" * 20, "y" * 20, "y" * 10]
    assert numbers.wrap("", 20) == []
