"""Text that can be sent, written to a file and shown.

Python represents bytes that are no UTF-8 as lone surrogates (in a file's name or an argument), and a text may be of any
length. Neither can go into a message. So a name is checked where it is given, in one process too. A text that the user
did not choose, such as an error, is escaped and cut instead.
"""

import re

NAME_CHARACTERS = 200
REASON_CHARACTERS = 10_000  # the most characters of a reason in a message
NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # control, line ends, lone surrogates


def is_name(text: str) -> bool:
    """Return whether a text can name a number that is logged: 1 to 200 characters, all of them on one line.

    >>> is_name("test_accuracy"), is_name("loss\\n")
    (True, False)
    """
    return 0 < len(text) <= NAME_CHARACTERS and NOT_IN_NAMES.search(text) is None


def sendable(text: str, most: int) -> str:
    r"""Return a text that can be sent: lone surrogates are escaped, and the middle of a long text is left out.

    The text that is returned has at most `most` characters; `most` must be more than the 31 of the words put in.

    >>> sendable("caf\udce9.csv", 100), sendable("0123456789" * 20, 40)
    ('caf\\udce9.csv', '01234\n… (the middle is left out) …\n56789')
    """
    text = text.encode(errors="backslashreplace").decode()
    if len(text) <= most:
        return text
    left_out = "\n… (the middle is left out) …\n"
    length = most - len(left_out)
    return text[: length - length // 2] + left_out + text[len(text) - length // 2 :]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is 1.

    >>> counted(1, "row"), counted(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"
