"""Rows of a delimited text file, each with its line number: quotation marks read as they were meant.

CSV follows RFC 4180. Tab-separated files mostly know no quoting, so that a quotation mark there is text unless the row
fits the header only with it. A mark that opens and swallows rows is text too, and the row is called doubtful.
"""

from __future__ import annotations

import codecs
import re
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple, TextIO

from clippy_cli.errors import ClippyError
from clippy_cli.regular_files import open_regular

MAX_LINE = 1 << 20  # characters; what is longer is no table
MAX_FIELD = 131_072  # characters, as in Python's csv
UNCLOSED = "a quotation mark that does not close is read as text"
SWALLOWED = "a quotation mark opens over lines that are rows of their own; it is read as text"
ROW_LIKE = "a quoted field holds lines that look like rows"

_JOINED_LINES, _JOINED_CHARACTERS = 200, 1 << 16  # of one quoted field
_SEARCHES = 1000  # for a closing mark, in vain; after so many, none is looked for
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Row(NamedTuple):
    """The fields of one row, and the line where it begins; ``doubt`` says how it was read where that is not sure."""

    line: int
    fields: list[str]
    doubt: str = ""


def text_encoding(path: Path) -> str:
    """The codec of a text file by its byte-order mark, or by the zeros of UTF-16 in its first bytes; else UTF-8."""
    with open_regular(path) as file:
        head = file.read(64)
    for mark, codec in _BOMS:
        if head.startswith(mark):
            return codec
    if b"\0" in head[:2]:
        return "utf-16-be" if head[0] == 0 else "utf-16-le"
    return "utf-8"


def first_bad_line(path: Path) -> int:
    """The number of the first line that is not UTF-8; 0 where all are."""
    with open_regular(path) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 0


class Lines:
    """The lines of a file with their numbers, of which some can be put back; ClippyError for a line without end."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._path, self.number = path, 0
        self._texts = iter(partial(file.readline, MAX_LINE), "")
        self._back: deque[str] = deque()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        text = self._back.popleft() if self._back else next(self._texts)
        self.number += 1
        if len(text) >= MAX_LINE:
            raise ClippyError(
                f"{self._path}: line {self.number} is longer than {MAX_LINE:,} characters",
                "A table has one image path and one caption a line; check that this is a text file.",
            )
        return text.rstrip("\r\n").removeprefix("\ufeff")

    def put_back(self, texts: list[str]) -> None:
        """Let these lines, the last ones taken, come again."""
        self._back.extendleft(f"{text}\n" for text in reversed(texts))
        self.number -= len(texts)


def split_fields(text: str, delimiter: str) -> tuple[list[str], bool]:
    """The fields of a row as RFC 4180 has them, and whether a quotation mark is open at the end.

    Blanks around a quoted field do not count. A mark that opens a field and closes before anything but a delimiter is
    text, as is one inside a field.
    """
    if '"' not in text:
        return text.split(delimiter), False
    quoted, unclosed = _patterns(delimiter)
    fields, place, is_open = [], 0, False
    while True:
        match = quoted.match(text, place)
        if match is not None:
            fields.append(match[1].replace('""', '"'))
            place, more = match.end(), bool(match[2])
        else:
            is_open = is_open or unclosed.match(text, place) is not None
            end = text.find(delimiter, place)
            more = end >= 0
            fields.append(text[place : end if more else len(text)])
            place = end + 1
        if not more:
            return fields, is_open


class RowReader:
    """The rows after the header, which has ``width`` fields.

    ``is_row`` says of fields whether they look like a row that stands by itself, and ``is_there`` whether the image of
    such a row exists; they are asked only where a quotation mark spans lines. With ``quoted`` every quotation mark of a
    tab-separated file counts, as its header has them.
    """

    def __init__(
        self,
        lines: Lines,
        delimiter: str,
        width: int,
        *,
        quoted: bool,
        is_row: Callable[[list[str]], bool],
        is_there: Callable[[list[str]], bool],
    ) -> None:
        self._lines, self._delimiter, self._width = lines, delimiter, width
        self._plain = delimiter == "\t" and not quoted
        self._is_row, self._is_there = is_row, is_there
        self._searches = _SEARCHES

    def __iter__(self) -> Iterator[Row]:
        delimiter = self._delimiter
        for text in self._lines:
            line = self._lines.number
            if '"' not in text:
                if text and not text.isspace():
                    yield Row(line, text.split(delimiter))
                continue
            fields, is_open = split_fields(text, delimiter)
            literal = text.split(delimiter) if self._plain else fields
            doubt = ""
            if is_open:
                fields, doubt = self._joined(text, literal)
                if self._plain and len(literal) == self._width:
                    doubt = ""  # in such a file it is nothing but text
            elif self._plain and len(literal) == self._width:
                fields = [_unquoted(field) for field in literal]
            elif self._plain and len(fields) != self._width:
                fields = literal
            yield Row(line, fields, doubt)

    def _joined(self, text: str, alone: list[str]) -> tuple[list[str], str]:
        """The fields of a row whose quoted field goes on in the next lines, or of its first line ``alone``."""
        taken: list[str] = []
        joined, fields = text, None
        while self._searches and len(taken) < _JOINED_LINES and len(joined) < _JOINED_CHARACTERS:
            following = next(self._lines, None)
            if following is None:
                break
            taken.append(following)
            joined = f"{joined}\n{following}"
            if '"' in following:
                found, is_open = split_fields(joined, self._delimiter)
                if not is_open:
                    fields = found if len(found) == self._width and any("\n" in field for field in found) else None
                    break
        doubt = UNCLOSED
        if fields is None:
            self._searches = max(0, self._searches - 1)
        else:
            rows = [row for row in (line.split(self._delimiter) for line in taken) if self._looks(row)]
            if not rows or not self._looks(alone):
                return fields, ""
            if not self._plain and not any(map(self._is_there, rows)):
                return fields, ROW_LIKE
            doubt = SWALLOWED
        self._lines.put_back(taken)
        return alone, doubt

    def _looks(self, fields: list[str]) -> bool:
        return len(fields) == self._width and self._is_row(fields)


def _patterns(delimiter: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A quoted field with the delimiter after it, and one that is open at the end."""
    end = re.escape(delimiter)
    return re.compile(rf' *"([^"]*(?:""[^"]*)*)" *({end}|\Z)'), re.compile(r' *"[^"]*(?:""[^"]*)*\Z')


def _unquoted(field: str) -> str:
    """A field of a tab-separated file: quoted only where doubled marks or nothing are inside, as no plain text has."""
    inner = field[1:-1]
    if len(field) < 2 or not field[0] == field[-1] == '"' or '"' in inner.replace('""', ""):
        return field
    return inner.replace('""', '"') if '""' in inner or not inner else field
