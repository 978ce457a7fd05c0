"""Recognising the format of a file that is no CSV, by its first bytes.

Theory of operation. A table in another format fails as CSV with a message that does not help ("not UTF-8" for a
workbook), so the head of every file is compared with the formats of tables, archives and failed downloads. Binary
formats are recognised by their magic numbers. One of plain letters ("PAR1", "ORC") could begin a header, and counts
only beside control characters, which no text has. Text formats are recognised by patterns that no header matches.
"""

from __future__ import annotations

import re

HEAD = 2**16
"""The number of first bytes of a file that are examined."""

GZIP = b"\x1f\x8b"

_UNPACK = "unpack it first"
_EXPORT = "save the table as CSV (UTF-8) first"
_PANDAS = 'convert it first, as by pandas.{reader}(...).to_csv("table.csv", index=False)'
_NUMPY = 'convert it first, as by numpy.savetxt("table.csv", array, delimiter=",", header="a,b", comments="")'
_PICKLE = "a pickle of Python, which karp does not open: save the table as CSV first"
_NO_TABLE = "pass the file of the table"

# (offset, magic number, what it is and what to do)
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", f"a workbook of an old Excel (.xls): {_EXPORT}"),
    (0, b"PAR1", f"a Parquet file: {_PANDAS.format(reader='read_parquet')}"),
    (0, b"ARROW1\x00\x00", f"a Feather or Arrow file: {_PANDAS.format(reader='read_feather')}"),
    (0, b"FEA1", f"a Feather file: {_PANDAS.format(reader='read_feather')}"),
    (0, b"\xff\xff\xff\xff", f"an Arrow stream: {_EXPORT}"),
    (0, b"ORC", f"an ORC file: {_PANDAS.format(reader='read_orc')}"),
    (0, b"Obj\x01", f"an Avro file: {_EXPORT}"),
    (0, b"\x93NUMPY", f"an array of NumPy (.npy): {_NUMPY}"),
    (0, b"\x89HDF\r\n\x1a\n", f"an HDF5 file: {_EXPORT}"),
    (512, b"\x89HDF\r\n\x1a\n", f"a MATLAB or HDF5 file: {_EXPORT}"),
    (0, b"MATLAB 5.0 MAT-file", f"a MATLAB file: {_EXPORT}"),
    (0, b"CDF\x01", f"a NetCDF file: {_EXPORT}"),
    (0, b"CDF\x02", f"a NetCDF file: {_EXPORT}"),
    (0, b"SQLite format 3\x00", f"an SQLite database: {_PANDAS.format(reader='read_sql')}"),
    (0, b"$FL2", f"an SPSS file: {_PANDAS.format(reader='read_spss')}"),
    (12, b"\xc2\xea\x81\x60\xb3\x14\x11\xcf", f"a SAS file: {_PANDAS.format(reader='read_sas')}"),
    (0, b"RDX2\nX\n", f"an R data file: {_EXPORT}, as by write.csv(table, row.names = FALSE)"),
    (0, b"RDX3\nX\n", f"an R data file: {_EXPORT}, as by write.csv(table, row.names = FALSE)"),
    (0, b"X\n\x00\x00\x00", f"an R data file: {_EXPORT}, as by write.csv(table, row.names = FALSE)"),
    (0, b"\x80\x02", _PICKLE),
    (0, b"\x80\x03", _PICKLE),
    (0, b"\x80\x04", _PICKLE),
    (0, b"\x80\x05", _PICKLE),
    (0, GZIP, f"compressed with gzip again: {_UNPACK}"),  # one layer of gzip is unpacked before this check
    (0, b"BZh", f"compressed with bzip2: {_UNPACK}, or compress it with gzip"),
    (0, b"\xfd7zXZ\x00", f"compressed with xz: {_UNPACK}, or compress it with gzip"),
    (0, b"\x5d\x00\x00", f"compressed with lzma: {_UNPACK}, or compress it with gzip"),
    (0, b"\x28\xb5\x2f\xfd", f"compressed with zstd: {_UNPACK}, or compress it with gzip"),
    (0, b"\x04\x22\x4d\x18", f"compressed with lz4: {_UNPACK}, or compress it with gzip"),
    (0, b"\xff\x06\x00\x00sNaPpY", f"compressed with snappy: {_UNPACK}, or compress it with gzip"),
    (0, b"\x1f\x9d", f"compressed with compress: {_UNPACK}, or compress it with gzip"),
    (0, b"7z\xbc\xaf\x27\x1c", f"a 7z archive: {_UNPACK}"),
    (0, b"Rar!\x1a\x07", f"a RAR archive: {_UNPACK}"),
    (257, b"ustar", f"a tar archive: {_UNPACK}"),
    (0, b"\x89PNG", f"a picture: {_NO_TABLE}"),
    (0, b"\xff\xd8\xff", f"a picture: {_NO_TABLE}"),
    (0, b"GIF8", f"a picture: {_NO_TABLE}"),
    (0, b"\x7fELF", f"an executable: {_NO_TABLE}"),
)

# Patterns at the beginning of a text, without its byte-order mark and the white space before it.
_TEXTS: tuple[tuple[str, str], ...] = (
    (r"version https://git-lfs", "a pointer of Git LFS, not the file itself: fetch it with `git lfs pull`"),
    (r"(\S*/)?\.?(git/)?annex/objects/", "a pointer of git-annex, not the file itself: fetch it with `git annex get`"),
    (r"(md5: \w+\s+frozen|outs:\s*- )", "a pointer of DVC, not the file itself: fetch it with `dvc pull`"),
    (r"(<!--.*?-->\s*)?<(!doctype html|html|head|body|table)\b",
     "a web page (HTML), perhaps one that asks to log in or tells of an error: download the file itself"),
    (r"<\?xml|<(Error|Workbook|Table)\b", f"an XML document: {_EXPORT}"),
    (r'\{\s*"(cells|nbformat)"\s*:|\{\s*"metadata".*"nbformat"',
     f"a Jupyter notebook: {_NO_TABLE}, which the notebook may write with to_csv(..., index=False)"),
    (r'\{\s*["}]|\[\s*(\{|\[|"|\]|-?\d)', f"a JSON file: {_PANDAS.format(reader='read_json')}"),
    (r"%PDF-\d", f"a PDF document: {_EXPORT}"),
    (r"<stata_dta>", f"a Stata file: {_PANDAS.format(reader='read_stata')}"),
    (r"\([dl]p\d+\n|c(copy_reg|__builtin__|numpy|pandas|sklearn)[\w.]*\n\w+\n", _PICKLE),
    (r"\{\\rtf", f"a document in rich text (RTF): {_EXPORT}"),
    (r"([ \t]*(%[^\n]*)?\n)*[ \t]*@relation\b",
     "a Weka file (ARFF): remove its lines above the rows, @data too, and add a line of column names"),
    (r"%%MatrixMarket", f"a Matrix Market file: {_EXPORT}"),
    (r"[-+]?\d[\d.]*([ \t]+qid:\d+)?([ \t]+\d+:[-+.\deE]+)+[ \t]*(#[^\n]*)?(\n|$)",
     f"a LIBSVM (SVMlight) file: read it with sklearn.datasets.load_svmlight_file, or {_EXPORT}"),
    (r"(?=[^\n]*\|)[^\n]*+\n[|+: \t]*--[-|+: \t]*(\n|$)|\+[-=+]{3,}\+?[ \t]*\n",
     f"a table drawn in characters, as in Markdown: {_EXPORT}"),
    (r"\\(documentclass|begin|usepackage)\b", f"a LaTeX document: {_EXPORT}"),
    (r"(--[^\n]*\n|/\*[^*]*+(\*(?!/)[^*]*+)*+\*/;?|\s)*"
     r"((create|drop) (table|database)|insert into|pragma foreign_keys)\b"
     r"|--\s+(-- )?(mysql|mariadb|postgresql)\b",
     f"a file of SQL: {_EXPORT}"),
    (r"<{7} ", "left in conflict by a merge (`<<<<<<<`): resolve the conflict"),
    (r"\d{3}:? (not found|forbidden|bad request|unauthorized)\s*$",
     "a web server's error and no table: download the file again"),
)  # fmt: skip
_TEXT = tuple((re.compile(pattern, re.IGNORECASE | re.DOTALL), what) for pattern, what in _TEXTS)

# The byte-order marks of UTF-16 and UTF-32, the longer first.
_MARKS = (
    (b"\xff\xfe\x00\x00", "UTF-32LE"),
    (b"\x00\x00\xfe\xff", "UTF-32BE"),
    (b"\xff\xfe", "UTF-16LE"),
    (b"\xfe\xff", "UTF-16BE"),
)
# Without a byte-order mark, the encoding shows in the offsets, modulo 4, of the zero bytes.
_ZEROS = {(1, 2, 3): "UTF-32LE", (0, 1, 2): "UTF-32BE", (1, 3): "UTF-16LE", (0, 2): "UTF-16BE"}

_NO_CONTROL = bytes(sorted({*range(32, 256), *b"\t\n\v\f\r"}))


def recognise(head: bytes) -> str | None:
    """Return what a file with these first bytes is and what to do; None if it may be a CSV file.

    >>> recognise(b"PAR1\\x15\\x04...")[:14], recognise(b"PAR1,PAR2\\n1,2\\n")
    ('a Parquet file', None)
    """
    if not head:
        return None
    if head.startswith(b"PK\x03\x04"):
        return _archive(head)
    control = bool(head.translate(None, _NO_CONTROL))
    for offset, magic, what in _MAGIC:
        plain = magic.isascii() and not magic.translate(None, _NO_CONTROL)
        if head.startswith(magic, offset) and (control or not plain):
            return what
    if encoding := _encoding(head):
        return (
            f"text in {encoding}: save it as UTF-8, as by "
            f"`iconv -f {encoding.removesuffix('LE').removesuffix('BE')} -t UTF-8`"
        )
    if b"\x00" in head:
        line = head.count(b"\n", 0, head.index(b"\x00")) + 1
        return f"binary data and not text (byte 0x00 in line {line}): {_EXPORT}"
    text = head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace").lstrip()
    return next((what for pattern, what in _TEXT if pattern.match(text)), None)


def _archive(head: bytes) -> str:
    """Return what a ZIP archive is, judged by the names of its first members, and what to do."""
    for member, what in (
        (rb"xl/", f"an Excel workbook: {_EXPORT}"),
        (rb"opendocument\.spreadsheet", f"a spreadsheet (.ods): {_EXPORT}"),
        (rb"word/|ppt/|opendocument\.|\[Content_Types\]", f"an office document: {_EXPORT}"),
        (rb"Index/\w+\.iwa", f"a Numbers spreadsheet: {_EXPORT}"),
        (rb"PK\x03\x04.{26}[^/\x00]{1,80}\.npy", f"an archive of NumPy arrays (.npz): {_NUMPY}"),
    ):
        if re.search(member, head, re.DOTALL):
            return what
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")].decode("utf-8", "replace")
    return f"a ZIP archive (of {name!r:.80}): {_UNPACK}, or compress the table with gzip"


def _encoding(head: bytes) -> str | None:
    """Return the name of the encoding if a text is UTF-16 or UTF-32, else None."""
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding
    head = head[: len(head) // 4 * 4]
    zeros = [head[offset::4].count(0) for offset in range(4)]
    zero_offsets = tuple(offset for offset in range(4) if zeros[offset] * 4 > len(head) / 4)
    no_others = all(zeros[offset] == 0 for offset in range(4) if offset not in zero_offsets)
    return _ZEROS.get(zero_offsets) if no_others else None
