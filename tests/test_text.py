"""Text that leaves a process."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from karp.text import NAME_CHARACTERS, is_name, sendable


@given(st.text(st.characters(exclude_categories=[]), max_size=300), st.integers(40, 200))
def test_what_is_sent_is_utf_8_and_not_too_long(text: str, most: int) -> None:
    sent = sendable(text, most)
    assert len(sent.encode()) >= len(sent)
    assert len(sent) <= most
    if text.isascii() and len(text) <= most:
        assert text == sent


def test_what_is_too_long_keeps_its_ends() -> None:
    sent = sendable("begin" + "x" * 1_000_000 + "end", 1000)
    assert 1000 == len(sent)
    assert (True, True, True) == (sent.startswith("beginx"), sent.endswith("xend"), "left out" in sent)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("test_accuracy", True),
        ("é × \u200d 损失", True),
        ("n" * NAME_CHARACTERS, True),
        ("n" * (NAME_CHARACTERS + 1), False),
        ("", False),
        ("a\nb", False),
        ("a\0b", False),
        ("\x1b[31m", False),
        ("a\u2028b", False),
        ("caf\udce9", False),
    ],
)
def test_a_name_is_one_line_of_text(text: str, expected: bool) -> None:
    assert expected is is_name(text)
