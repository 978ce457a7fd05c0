"""Files that are read more than once: what gives its bytes once, what changes, what is no file, what is no CSV."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import re
import sqlite3
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from karp import data
from karp.data import text_file
from karp.data.formats import recognise
from karp.errors import DataError, KarpError, SettingError

TABLE = b"a,b\n1,0\n2,1\n"
FAULTS = [
    (b"a,b\n1,0\nfoo,1\n", "line 3, column 'a': 'foo'"),
    (b"a,b\n1,0\n2\n", "line 3: 1 fields"),
    (b"a,b\n1,0\n2,-1\n", "line 3, column 'b': -1 is no class number"),
    (b"a,b\n1,0\n2,x\n", "line 3, column 'b': 'x' among numbers"),
    (gzip.compress(b"a,b\n1,0\n2,x\n", mtime=0), "line 3, column 'b': 'x' among numbers"),
    (b"a,b\n1,0\n1700000060,1\n", "line 3, column 'a': 1700000060 is a whole number"),
]


# What gives its bytes only once


def through_a_pipe(content: bytes, read: Callable[[str], data.Table]) -> data.Table:
    """Read from the file of an open pipe, as a shell's <(...) gives one."""
    out, into = os.pipe()
    os.write(into, content)
    os.close(into)
    try:
        return read(f"/dev/fd/{out}")
    finally:
        os.close(out)


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="the system has no /dev/fd")
@pytest.mark.parametrize("in_memory", [2**26, 4])
@pytest.mark.parametrize(("content", "message"), FAULTS)
def test_a_pipe(content: bytes, message: str, in_memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The careful pass sees what the first one saw, in memory or in a temporary file."""
    monkeypatch.setattr(text_file, "_IN_MEMORY", in_memory)
    for good in (TABLE, gzip.compress(TABLE)):
        assert through_a_pipe(good, lambda path: data.read(path, "b")).x.tolist() == [[1], [2]]
    with pytest.raises(DataError, match=message):
        through_a_pipe(content, lambda path: data.read(path, "b"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFO")
def test_a_fifo(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for content, message in FAULTS:
        writer = threading.Thread(target=fifo.write_bytes, args=[content])
        writer.start()
        with pytest.raises(DataError, match=message):
            data.read(fifo, "b")
        writer.join()


@pytest.mark.skipif(not Path("/dev/zero").is_char_device(), reason="the system has no /dev/zero")
def test_devices() -> None:
    with pytest.raises(DataError, match=r"^/dev/null: the file is empty: its first line must name the columns"):
        data.read("/dev/null")
    for endless in ("/dev/zero", "/dev/urandom"):
        with pytest.raises(DataError):
            data.read(endless)


@pytest.mark.skipif(not hasattr(stat, "S_ISSOCK") or os.name != "posix", reason="the system has no such sockets")
def test_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.chdir(tmp_path)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as end:
        end.bind("socket")
        with pytest.raises(DataError, match=r"^socket: cannot be read: "):
            data.read("socket")


# What changes


def changing(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Let a change happen while the first pass reads."""
    loadtxt = np.loadtxt

    def both(*given: object, **named: object) -> object:
        change()
        return loadtxt(*given, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(np, "loadtxt", both)


@pytest.mark.parametrize("content", [TABLE, FAULTS[0][0]])
def test_a_file_that_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(content)

    def append() -> None:
        with open(file, "ab") as end:
            end.write(b"3,0\n")

    changing(monkeypatch, append)
    with pytest.raises(DataError, match=r"t\.csv: it was written to while it was read: read it when it is complete"):
        data.read(file, "b")


def test_a_file_that_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both passes read the file that was opened, whatever has its name now."""
    file = tmp_path / "t.csv"
    for content, message in FAULTS:
        file.write_bytes(content)
        (tmp_path / "new").write_bytes(TABLE)
        with monkeypatch.context() as patch:
            changing(patch, lambda: os.replace(tmp_path / "new", file))
            with pytest.raises(DataError, match=message):
                data.read(file, "b")


# What is no file


def test_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path, message in (
        ("none.csv", rf"^none.csv: there is no such file in {re.escape(str(tmp_path))}$"),
        (tmp_path / "none.csv", r"none.csv: there is no such file$"),
        (tmp_path, "is a directory: pass a file in it$"),
        ("-", "there is no such file: pass '/dev/stdin' to read the standard input"),
        ("https://karp.org/a.csv", "there is no such file: download it first$"),
        ("~/none.csv", r"there is no such file: pass os.path.expanduser\(path\)"),
        ("a,b\n1,2\n", "there is no such file: pass the path of a file, not its text$"),
        ("a,b\n" + "1,2\n" * 999, r"1,2\n: cannot be read: .*: pass the path of a file, not its text$"),
    ):
        with pytest.raises(DataError, match=message):
            data.read(path)


def test_what_is_no_path(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_bytes(TABLE)
    with open(file) as opened:
        in_memory = (io.StringIO("a,b\n"), io.BytesIO(TABLE))
        for path in (None, 3, True, 0.5, [str(file)], (), np.array([1]), *in_memory, opened):
            with pytest.raises(SettingError, match=r"path is .*: pass the path of a file"):
                data.read(path)  # type: ignore[arg-type]
        with pytest.raises(SettingError, match="what is open already cannot be read"):
            data.read(opened)  # type: ignore[arg-type]
    for text in ("", b"", "t\0.csv", "\ud800.csv"):
        with pytest.raises(SettingError, match=r"path is .*: pass the path of a file"):
            data.read(text)


def test_a_path_may_be_bytes_and_no_utf8(tmp_path: Path) -> None:
    """An error shows it so that it can be printed."""
    assert len(TABLE.splitlines()) - 1 == len(data.read(written(tmp_path / "t.csv", TABLE), "b"))
    assert 2 == len(data.read(os.fsencode(written(tmp_path / "t.csv", TABLE)), "b"))
    with pytest.raises(DataError, match=r"caf\\xe9: there is no such file") as caught:
        data.read(os.fsencode(tmp_path) + b"/caf\xe9")
    str(caught.value).encode()


def written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("kept", [3, 15, 60, -200, -9, -1])
def test_a_compressed_file_cut_short(tmp_path: Path, kept: int) -> None:
    rows = "".join(f"{i},{i * i % 97}\n" for i in range(3000))
    packed = gzip.compress(("a,t\n" + rows).encode())
    with pytest.raises(DataError, match=r"csv: compressed data cut short or damaged after line \d+ .*: fetch"):
        data.read(written(tmp_path / "t.csv", packed[:kept]), "t")


def test_a_compressed_file_with_a_wrong_bit(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(TABLE))
    packed[-8] ^= 1  # of the checksum
    with pytest.raises(DataError, match="compressed data cut short or damaged"):
        data.read(written(tmp_path / "t.csv", bytes(packed)), "b")


# What is no CSV


def packed(*members: str, content: str = "x") -> bytes:
    """A ZIP archive."""
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in members:
            archive.writestr(member, content)
    return into.getvalue()


def saved(save: Callable[..., object], *given: object, **named: object) -> bytes:
    """What a function writes to a file."""
    into = io.BytesIO()
    save(into, *given, **named)
    return into.getvalue()


def archived() -> bytes:
    """A tar archive."""
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w") as archive:
        member = tarfile.TarInfo("a.csv")
        member.size = len(TABLE)
        archive.addfile(member, io.BytesIO(TABLE))
    return into.getvalue()


def database() -> bytes:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("create table a (b int)")
        content = connection.serialize()
    connection.close()
    return content


UTF8 = "save it as UTF-8, as by `iconv -f UTF-"
FORMATS = [
    (packed("[Content_Types].xml", "_rels/.rels", "xl/workbook.xml"), r"an Excel workbook: save the table as CSV"),
    (packed("[Content_Types].xml", "word/document.xml"), "an office document: save"),
    (packed("mimetype", content="application/vnd.oasis.opendocument.spreadsheet" * 9), "a ZIP archive"),
    (packed("train.csv"), r"a ZIP archive \(of 'train.csv'\): unpack it first"),
    (saved(np.savez, x=np.zeros(3)), r"an archive of NumPy arrays \(.npz\): convert it first"),
    (saved(np.savez_compressed, x=np.zeros(3)), r"an archive of NumPy arrays \(.npz\): convert it first"),
    (saved(np.save, np.zeros(3)), r"an array of NumPy \(.npy\): convert it first, as by numpy.savetxt"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a workbook of an old Excel"),
    (b"PAR1\x15\x04\x15\x30", r"a Parquet file: convert it first, as by pandas.read_parquet\(...\).to_csv"),
    (b"ARROW1\x00\x00\xff", "a Feather or Arrow file: .*read_feather"),
    (b"FEA1\x00\x00", "a Feather file"),
    (b"ORC\x01\x02", "an ORC file"),
    (b"\x89HDF\r\n\x1a\n\x00", "an HDF5 file"),
    (b"MATLAB 5.0 MAT-file" + b" " * 100 + b"\x00\x01IM", "a MATLAB file"),
    (database(), "an SQLite database"),
    *((pickle.dumps({"a": [1.5, "b"]}, protocol), "a pickle of Python, which karp does not") for protocol in (0, 2, 5)),
    (bz2.compress(TABLE), "compressed with bzip2: unpack it first, or compress it with gzip"),
    (lzma.compress(TABLE), "compressed with xz"),
    (lzma.compress(TABLE, lzma.FORMAT_ALONE), "compressed with lzma"),
    (b"\x28\xb5\x2f\xfd\x04\x00a,b", "compressed with zstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07\x01", "a RAR archive"),
    (archived(), "a tar archive: unpack it first"),
    (b"%PDF-1.4\n%\xe2\xe3", "a PDF document"),
    (b"\x89PNG\r\n\x1a\n", "a picture"),
    (b"\n <!DOCTYPE html>\n<html>", r"a web page \(HTML\).*: download the file itself"),
    (b"\xef\xbb\xbf<HTML><body>", r"a web page \(HTML\)"),
    (b'<?xml version="1.0"?><Error>', "an XML document"),
    (b'{\n "cells": [\n', "a Jupyter notebook: pass the file of the table"),
    (b'{"metadata": {}, "nbformat": 4}', "a Jupyter notebook"),
    (b'[{"a": 1}]', r"a JSON file: .*pandas.read_json\("),
    (b'{"a": 1}\n{"a": 2}\n', "a JSON file"),
    (b"[[1, 2], [3, 4]]", "a JSON file"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\n", "a pointer of Git LFS.*`git lfs pull`"),
    (b"../.git/annex/objects/x/SHA256E-s1--ab.csv", "a pointer of git-annex.*`git annex get`"),
    (b"/annex/objects/SHA256E-s1--ab.csv\n", "a pointer of git-annex"),
    (b"outs:\n- md5: a\n  size: 1\n", "a pointer of DVC"),
    (b"<<<<<<< HEAD\na,b\n=======\n", "left in conflict by a merge"),
    (b"% 1. Title\n%\n\n@RELATION iris\n@ATTRIBUTE a REAL\n", r"a Weka file \(ARFF\): remove its lines above"),
    (b"+1 1:0.5 3:2\n-1 2:0.1\n", r"a LIBSVM \(SVMlight\) file: read it with sklearn"),
    (b"3 qid:1 1:0.5\n", r"a LIBSVM \(SVMlight\) file"),
    (b"| a | b |\n|---|:-:|\n| 1 | 2 |\n", "a table drawn in characters, as in Markdown"),
    (b" a | b \n---+---\n 1 | 2\n(1 row)\n", "a table drawn in characters"),
    (b"+---+---+\n| a | b |\n", "a table drawn in characters"),
    (b"-- MySQL dump 10.13\n", "a file of SQL"),
    (b"DROP TABLE IF EXISTS a;\nCREATE TABLE a (b int);\n", "a file of SQL"),
    (b"404: Not Found", "a web server's error"),
    (b"a,b\n1,\x00\n", r"binary data and not text \(byte 0x00 in line 2\)"),
    *(("größe,t\n1,0\n".encode(name), f"text in {named}: {UTF8}{named[4:6]} ") for name, named in (
        ("utf-16-le", "UTF-16LE"), ("utf-16-be", "UTF-16BE"), ("utf-32-le", "UTF-32LE"), ("utf-32-be", "UTF-32BE"))),
    *(("\ufeffпривет".encode(name), f"text in {named}: {UTF8}{named[4:6]} ") for name, named in (
        ("utf-16-le", "UTF-16LE"), ("utf-16-be", "UTF-16BE"), ("utf-32-le", "UTF-32LE"), ("utf-32-be", "UTF-32BE"))),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), FORMATS)
def test_other_formats(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"t.csv: it is {message}"):
        data.read(written(tmp_path / "t.csv", content), "b")
    with pytest.raises(DataError, match=f"t.csv: it is compressed with gzip, and inside {message}"):
        data.read(written(tmp_path / "t.csv", gzip.compress(content)), "b")


def test_a_spreadsheet_of_open_document(tmp_path: Path) -> None:
    """Its first member says what it is, and is not compressed."""
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
    assert "a spreadsheet (.ods): save the table as CSV (UTF-8) first" == recognise(into.getvalue())
    assert str(recognise(gzip.compress(TABLE))).startswith("compressed with gzip again: unpack it first")


@pytest.mark.parametrize(
    "names", ["PAR1,ORC", "FEA1,FEA2", "BZh9,GIF8", "MATLAB 5.0 MAT-file,CDF", "[id],[name]", "a{,}", "version,id",
              "<a>,<b>", "annex,b", "use,set", "create,drop", "404,not", "a:1,b:2", "outs,md5", "2022,2023"]
)  # fmt: skip
def test_names_that_are_no_other_format(tmp_path: Path, names: str) -> None:
    """Formats are known by what no names of columns are."""
    file = written(tmp_path / "t.csv", f"{names},t\n1,2,0\n2,3,1\n".encode())
    assert (*names.split(","), "t") == (*data.read(file, "t").columns, "t")


@pytest.mark.parametrize("length", range(12))
def test_any_beginning_is_looked_at(length: int) -> None:
    for content, _ in FORMATS:
        assert isinstance(recognise(content[:length]), str | None)


def test_text_in_windows_1252(tmp_path: Path) -> None:
    file = written(tmp_path / "t.csv", "größe,t\n1,0\n".encode("cp1252"))
    with pytest.raises(KarpError, match=r"line 1: byte 0xf6 is not UTF-8: save .*`iconv -f WINDOWS-1252 -t UTF-8`"):
        data.read(file, "t")
