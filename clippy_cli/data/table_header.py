"""The first row of a table of captions: which delimiter it has, and which columns are meant."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from clippy_cli.data.table_rows import split_fields
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices

IMAGE_COLUMNS = ("image", "filepath", "image_path", "path", "file", "filename", "file_name", "image_name")
CAPTION_COLUMNS = ("caption", "text", "title", "captions", "comment")

_DELIMITERS = {".tsv": "\t", ".tab": "\t", ".csv": ","}
_NAMES = frozenset({*IMAGE_COLUMNS, *CAPTION_COLUMNS})
_URLS = ("url", "image_url", "urls", "img_url")
_FIRST_LINE = "Give the header's name as {}_column; the first line must be a header."
_DOWNLOAD = "Photos are not downloaded: fetch them first, with img2dataset for example."


class Header(NamedTuple):
    """The columns by their names, and where image and caption are; ``split`` is None where no column names one."""

    delimiter: str
    fields: list[str]
    image: int
    caption: int
    split: int | None
    quoted: bool

    def again(self, fields: Sequence[str]) -> bool:
        """Whether a row is a header in the midst of the table, of the same columns or of others."""
        image = fields[self.image].strip().lower()
        if image not in _NAMES and image != self.fields[self.image].lower():
            return False
        caption = fields[self.caption].strip().lower()
        return image != caption and (caption in _NAMES or caption == self.fields[self.caption].lower())


def find_header(
    lines: Iterator[str], path: Path, image_column: str | None, caption_column: str | None, notices: Notices
) -> Header:
    """Take the header from ``lines``; its delimiter is the usual one, or else the first that finds both columns.

    Columns that could be meant too go into ``notices``. ClippyError where a column is missing.
    """
    first = next((text for text in lines if text.strip()), "")
    declared = re.fullmatch(r"sep=(.)", first)  # how spreadsheets name it
    if declared:
        first = next((text for text in lines if text.strip()), "")
    by_count = sorted(",\t;|", key=first.count, reverse=True)
    usual = declared[1] if declared else _DELIMITERS.get(path.suffix.lower(), by_count[0])
    problem: ClippyError | None = None
    for delimiter in dict.fromkeys((usual, *by_count)):
        fields = [field.strip() for field in split_fields(first, delimiter)[0]]
        while len(fields) > 1 and not fields[-1]:  # as spreadsheets leave them
            fields.pop()
        try:
            image = _column(fields, image_column, IMAGE_COLUMNS, "image", path)
            caption = _column(fields, caption_column, CAPTION_COLUMNS, "caption", path)
        except ClippyError as error:
            problem = problem or error
            continue
        _name_rivals(fields, caption, CAPTION_COLUMNS, caption_column, "caption", notices)
        _name_rivals(fields, image, IMAGE_COLUMNS, image_column, "image", notices)
        split = next((place for place, name in enumerate(fields) if name.lower() == "split"), None)
        return Header(delimiter, fields, image, caption, split, quoted=first.lstrip().startswith('"'))
    assert problem is not None
    raise problem


def _column(header: Sequence[str], wanted: str | None, usual: Sequence[str], what: str, path: Path) -> int:
    """Where the named column is, in this spelling or else in other case; or the first of the usual ones."""
    if wanted is not None and wanted in header:
        return header.index(wanted)
    lower = [name.lower() for name in header]
    for name in (wanted.lower(),) if wanted is not None else usual:
        if name in lower:
            return lower.index(name)
    there = ", ".join(repr(name[:40]) for name in header[:20]) or "nothing"
    looked_for = repr(wanted) if wanted is not None else " or ".join(usual)
    raise ClippyError(
        f"{path}: no {what} column; looked for {looked_for}, the first line holds {there}",
        _DOWNLOAD if what == "image" and set(lower) & set(_URLS) else _FIRST_LINE.format(what),
    )


def _name_rivals(
    header: list[str], chosen: int, usual: Sequence[str], wanted: str | None, what: str, notices: Notices
) -> None:
    """Count the columns that could be meant instead: of a usual name, numbered or not; of the wanted name itself."""
    names = [name.lower() for name in header]
    if wanted is None:
        numbered = re.compile(rf"(?:{'|'.join(usual)})[ _-]?\d*")
        others = [name for place, name in enumerate(header) if place != chosen and numbered.fullmatch(names[place])]
    else:
        others = [name for place, name in enumerate(header) if place != chosen and name == header[chosen]]
    if others:
        same = header.count(header[chosen]) > 1
        reason = f"column {header[chosen]!r} is read, though others could be meant"
        hint = f"Name it with --{what}-column or {what}_column."
        notices.assumed("table", reason, *others, hint="Give each column its own name." if same else hint, count=1)
