import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rayscale.text.normalise import keys_of, mix, normalise


def test_white_space_and_unicode_forms_become_one():
    assert normalise("  a\tb\n\nc ") == "a b c"
    assert normalise("cafe\u0301") == "caf\u00e9"
    assert normalise(" a  b \r\n\n  c", keep_lines=True) == "a b\nc"


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    once = normalise(text)
    assert normalise(once) == once
    lines = normalise(text, keep_lines=True)
    assert normalise(lines, keep_lines=True) == lines


def test_keys_ignore_line_breaks_and_never_change():
    assert keys_of(["a\nb"]) == keys_of(["a b"])
    # Written down: other values would give every study other splits and subsets.
    assert keys_of(["a b", ""]).tolist() == [2952434739088078779, 13020603013274838756]
    assert mix(np.arange(3, dtype=np.uint64), 7).tolist() == [
        15921765919291713,
        1447573633892642833,
        7162471482024186403,
    ]


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=50), st.integers(0, 2**40))
def test_mix_is_a_bijection_that_depends_on_the_salt(values, salt):
    keys = np.array(values, dtype=np.uint64)
    mixed = mix(keys, salt)
    assert len(np.unique(mixed)) == len(keys)
    assert not len(keys) or (mixed != mix(keys, salt + 1)).all()
