"""The consistency options: one definition for the program, its launcher, the environment and a run's settings."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp.consistency import CODEC, CODEC_WEIGHTS, LOCAL_STEPS, OPTIONS, STALENESS, Option
from karp.errors import SettingError


@given(st.sampled_from(OPTIONS), st.data())
def test_a_value_is_what_its_text_is_parsed_to(option: Option, data: st.DataObject) -> None:
    value = option.values[data.draw(st.integers(0, len(option.values) - 1))]
    text = option.text(value)
    assert text is not None
    assert (value, value) == (option.check(value), option.parse(text))


def test_none_is_a_bound_on_staleness_with_a_text_and_the_default_of_codecs() -> None:
    assert (None, "none") == (STALENESS.parse("none"), STALENESS.text(None))
    assert [None, None] == [option.check(None) for option in (CODEC, CODEC_WEIGHTS)]
    assert [None, None] == [option.text(None) for option in (CODEC, CODEC_WEIGHTS)]


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize(
    "value", [-1, 0.5, 2.0, True, "", "three", [], {}, 1 << 70, np.nan, np.zeros(3), np.bool_(True)], ids=repr
)
def test_what_is_no_value_is_refused_with_the_option_and_what_it_may_be(option: Option, value: Any) -> None:
    with pytest.raises(SettingError, match=f"^{option.name} must be (one of|a whole number from) .*, not "):
        option.check(value)


@pytest.mark.parametrize("text", ["-1", "1.0", "0x2", "9" * 30, " 2", "²", "None", ""])
@pytest.mark.parametrize("option", OPTIONS)
def test_what_is_no_text_of_a_value_is_refused(option: Option, text: str) -> None:
    with pytest.raises(SettingError, match=f"^{option.name} must be "):
        option.parse(text)


def test_a_whole_number_of_numpy_is_python_s() -> None:
    assert [int, int] == [type(option.check(np.int64(3))) for option in (STALENESS, LOCAL_STEPS)]
