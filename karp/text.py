"""Text that leaves a process: what can be sent, written to a file and shown, whoever has made it.

Python's texts hold bytes that are no UTF-8 as lone surrogates (a file's name, an argument), and may be of any length.
Neither can go into a message. So a name is checked where it is given, in one process too; what cannot be asked to be
otherwise, such as an error, is escaped and cut.
"""

import re

NAME_CHARACTERS = 200
NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # control, line ends, lone surrogates


def is_name(text: str) -> bool:
    """Return whether a text can be the name of a number: 1 to 200 characters, all of which are on one line.

    >>> is_name("test_accuracy"), is_name("loss\\n")
    (True, False)
    """
    return 0 < len(text) <= NAME_CHARACTERS and NOT_IN_NAMES.search(text) is None


def sendable(text: str, most: int) -> str:
    r"""Return a text of at most so many characters that is UTF-8: bytes that are not, as escapes; the middle left out.

    >>> sendable("caf\udce9.csv", 100), sendable("0123456789" * 20, 40)
    ('caf\\udce9.csv', '01234\n… (the middle is left out) …\n56789')
    """
    text = text.encode(errors="backslashreplace").decode()
    if len(text) <= most:
        return text
    left_out = "\n… (the middle is left out) …\n"
    kept = most - len(left_out)
    return text[: kept - kept // 2] + left_out + text[len(text) - kept // 2 :]
