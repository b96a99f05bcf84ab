"""Caption sources in a CSV or TSV file: one image path and one caption a row."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from unicodedata import normalize
from urllib.parse import unquote

from clippy_cli.data.captions import CaptionedImage, broken_image, file_bytes
from clippy_cli.data.images import IMAGE_SUFFIXES
from clippy_cli.data.pictures import EncodedPicture
from clippy_cli.data.table_rows import MAX_FIELD, Lines, Row, RowReader, first_bad_line, split_fields, text_encoding
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices

IMAGE_COLUMNS = ("image", "filepath", "image_path", "path", "file", "filename", "file_name", "image_name")
CAPTION_COLUMNS = ("caption", "text", "title", "captions", "comment")

_DELIMITERS = {".tsv": "\t", ".tab": "\t", ".csv": ","}
_PROBES = 32
_LONGEST_SHOWN = 300  # characters of a path
_UNUSUAL = re.compile(r"[\\%]|^\./|^file:")
_COMPARED = 100  # captions of one image
_QUOTE = "Put quotation marks around fields that hold the delimiter."


class TableSource:
    """Rows of a table with a header; rows of the same image are one sample with several captions.

    The delimiter is a tab for ``.tsv`` and ``.tab``, a comma for ``.csv``, and else what the header holds most of; it
    is another one of comma, tab, semicolon and bar where only that finds the columns. Columns that are not named are
    found by their usual headers. Relative image paths start at ``root``, or at the table's folder.

    Rows that cannot be used, and those read under an assumption, are counted in ``notices`` with their lines;
    ``doubtful`` of ``rows`` do not fit the header or have quotation marks that do not close. ClippyError where the
    file, a column or every image is missing.
    """

    def __init__(
        self,
        path: str | Path,
        image_column: str | None = None,
        caption_column: str | None = None,
        root: str | Path | None = None,
    ) -> None:
        self._path = Path(path)
        self._root = self._path.parent if root is None else Path(root)
        table = _Table(self._path, self._root)
        table.read(image_column, caption_column)
        self.notices, self.rows, self.doubtful = table.notices, table.rows, table.doubtful
        captions = table.captions
        if not captions:
            found = "; ".join(map(str, self.notices))
            raise ClippyError(f"{self._path}: no row with both an image and a caption", found or "Look at the table.")
        self._images = tuple(captions)
        self._captions = tuple(tuple(texts) for texts in captions.values())
        probes = self._images[:: max(1, len(self._images) // _PROBES)]
        if not any(_is_file(self._root / image) for image in probes):
            such_as = self._root / probes[0][:_LONGEST_SHOWN]
            raise ClippyError(
                f"{self._path}: none of {len(probes)} images tried exists, such as {such_as}",
                "Relative paths start at the table's folder; give another one as root.",
            )

    def __len__(self) -> int:
        return len(self._images)

    def refuse_doubtful(self, most: float, how: str) -> None:
        """ClippyError where more than the share ``most`` of the rows is doubtful; ``how`` says what lets more pass."""
        if self.doubtful > most * self.rows:
            listed = "".join(f"\n  {notice}" for notice in self.notices)
            raise ClippyError(
                f"{self._path}: {self.doubtful:,} of {self.rows:,} rows ({self.doubtful / self.rows:.1%}) do not fit "
                f"the header, more than {most:.3g} of all:{listed}",
                f"{_QUOTE} If they are read as meant (clippy data check {self._path}), {how}.",
            )

    def key(self, index: int) -> str:
        """The image of row group ``index`` as the table names it."""
        return self._images[index]

    def path(self, index: int) -> Path:
        """The image file of row group ``index``; nothing says that it exists."""
        return self._root / self._images[index]

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of row group ``index``, without its image."""
        return self._captions[index]

    def image_bytes(self, index: int) -> bytes:
        """The image file of row group ``index``, not decoded; BrokenSampleError where it cannot be read."""
        return file_bytes(self.path(index))

    def read(self, index: int) -> CaptionedImage:
        """The image of row group ``index``, in the order of first mention, with all its captions."""
        path = self.path(index)
        try:
            picture = EncodedPicture(self.image_bytes(index), str(path))
            return CaptionedImage(self._images[index], picture, self._captions[index])
        except ClippyError as error:
            raise broken_image(str(path), error) from error

    def describe(self) -> str:
        """One line for the training log."""
        return f"{len(self)} images with {sum(map(len, self._captions))} captions in {self._path.name}"


class _Header(NamedTuple):
    delimiter: str
    fields: list[str]
    image: int
    caption: int
    quoted: bool


class _Table:
    """What the rows hold: ``captions`` of each image in the order of first mention, ``rows`` and what is doubtful."""

    def __init__(self, path: Path, root: Path) -> None:
        self._path, self._root = path, root
        self.captions: dict[str, list[str]] = {}
        self.notices = Notices()
        self.rows = self.doubtful = 0

    def read(self, image_column: str | None, caption_column: str | None) -> None:
        """Read the file; ClippyError where it is missing, is no text, or has no such columns."""
        path, encoding = self._path, "utf-8"
        try:
            encoding = text_encoding(path)
            if encoding.startswith("utf-16-"):
                self.notices.assumed("table", "UTF-16 without a byte-order mark", path.name)
            with path.open(encoding=encoding, newline="") as file:
                lines = Lines(file, path)
                header = self._header(lines, image_column, caption_column)
                self._read_rows(lines, header)
        except FileNotFoundError:
            raise ClippyError(f"{path}: no such file", "Check the path of the table.") from None
        except UnicodeError as error:
            where = f"line {first_bad_line(path)} is not UTF-8" if encoding == "utf-8" else f"is not {encoding}"
            raise ClippyError(f"{path}: {where} ({error})", "Save the table as UTF-8.") from error
        except OSError as error:
            raise ClippyError(f"{path}: cannot be read ({error})", "Check the file and its permissions.") from error

    def _header(self, lines: Lines, image_column: str | None, caption_column: str | None) -> _Header:
        """The header; the delimiter is the usual one, or else the first under which both columns are there."""
        first = next((text for text in lines if text.strip()), "")
        declared = re.fullmatch(r"sep=(.)", first)  # how spreadsheets name it
        if declared:
            first = next((text for text in lines if text.strip()), "")
        by_count = sorted(",\t;|", key=first.count, reverse=True)
        usual = declared[1] if declared else _DELIMITERS.get(self._path.suffix.lower(), by_count[0])
        problem: ClippyError | None = None
        for delimiter in dict.fromkeys((usual, *by_count)):
            fields = [field.strip() for field in split_fields(first, delimiter)[0]]
            try:
                image = _column(fields, image_column, IMAGE_COLUMNS, "image", self._path)
                caption = _column(fields, caption_column, CAPTION_COLUMNS, "caption", self._path)
            except ClippyError as error:
                problem = problem or error
                continue
            if caption_column is None:
                self._name_rivals(fields, caption, CAPTION_COLUMNS, "--caption-column or caption_column")
            if image_column is None:
                self._name_rivals(fields, image, IMAGE_COLUMNS, "--image-column or image_column")
            return _Header(delimiter, fields, image, caption, quoted=first.lstrip().startswith('"'))
        assert problem is not None
        raise problem

    def _name_rivals(self, header: list[str], chosen: int, usual: Sequence[str], option: str) -> None:
        others = [name for place, name in enumerate(header) if place != chosen and name.lower() in usual]
        if others:
            reason = f"column {header[chosen]!r} is read, though others could be meant"
            self.notices.assumed("table", reason, *others, hint=f"Name it with {option}.", count=1)

    def _read_rows(self, lines: Lines, header: _Header) -> None:
        width, image_at, caption_at = len(header.fields), header.image, header.caption

        def is_there(fields: list[str]) -> bool:
            return _is_file(self._root / fields[image_at].strip())

        def is_row(fields: list[str]) -> bool:
            name = fields[image_at].strip()
            return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES or is_there(fields)  # noqa: PTH122 (a million)

        reader = RowReader(lines, header.delimiter, width, quoted=header.quoted, is_row=is_row, is_there=is_there)
        for row in reader:
            fields = row.fields
            if len(fields) != width or row.doubt:
                fitted = self._fit(row, header, is_row)
                if fitted is None:
                    continue
                fields = fitted
            else:
                self.rows += 1
            image, caption = fields[image_at].strip(), " ".join(fields[caption_at].split())
            if image and caption:
                self._add(image, caption, row, header)
            elif any(map(str.strip, fields)):
                self._skip(f"no {'caption' if image else 'image'}", row)

    def _fit(self, row: Row, header: _Header, is_row: Callable[[list[str]], bool]) -> list[str] | None:
        """The fields of a row that does not fit the header, as they can be meant; None where none are to be used."""
        width, fields = len(header.fields), row.fields
        while len(fields) > width and not fields[-1].strip():
            fields = fields[:-1]
        if not any(map(str.strip, fields)):
            return None
        self.rows += 1
        reason, used = row.doubt, True
        if len(fields) > width:
            used = header.caption == width - 1 and is_row(fields)
            reason = f"more fields than the {width} of the header"
            if used:
                reason += ": the caption is read to the end of the line"
                fields = [*fields[: width - 1], header.delimiter.join(fields[width - 1 :])]
        elif len(fields) < width:
            used = max(header.image, header.caption) < len(fields) and is_row(fields)
            reason = f"fewer fields than the {width} of the header"
        if reason:
            self.doubtful += 1
            note = self.notices.assumed if used else self.notices.skipped
            note("row", reason, f"line {row.line}", hint=_QUOTE if len(row.fields) > width else "")
        return fields if used else None

    def _add(self, image: str, caption: str, row: Row, header: _Header) -> None:
        if len(caption) > MAX_FIELD or len(image) > MAX_FIELD:
            self._skip(f"a field of more than {MAX_FIELD:,} characters", row)
        elif "\0" in image or "\0" in caption:
            self._skip("a NUL character", row)
        elif image == header.fields[header.image] and [field.strip() for field in row.fields] == header.fields:
            self.notices.ignored("row", "the header again", f"line {row.line}")
        else:
            texts = self.captions.setdefault(self._as_meant(image), [])
            if texts and caption in texts[:_COMPARED]:
                self.notices.assumed("row", "word for word an earlier row; both count", f"line {row.line}")
            texts.append(caption)

    def _skip(self, reason: str, row: Row) -> None:
        self.notices.skipped("row", reason, f"line {row.line}")

    def _as_meant(self, name: str) -> str:
        """A name that leads to no file as written, in the spelling that does: ``\\``, ``%20``, ``file:``, accents."""
        if name.isascii() and not _UNUSUAL.search(name):
            return name
        name = re.sub(r"^(?:\./+)+", "", name) or name
        accents = "path in another Unicode normal form"
        spellings = [
            (name.replace("\\", "/"), "Windows path, read with /"),
            (unquote(re.sub(r"^file:(?://)?(?=/)", "", name)), "percent-encoded path, decoded"),
            (normalize("NFC", name), accents),
            (normalize("NFD", name), accents),
        ]
        others = [(other, reason) for other, reason in spellings if other != name]
        if others and not _is_file(self._root / name):
            for other, reason in others:
                if _is_file(self._root / other):
                    self.notices.assumed("row", reason, name)
                    return other
        return name


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or a NUL
        return False


def _column(header: Sequence[str], wanted: str | None, usual: Sequence[str], what: str, path: Path) -> int:
    """Where the named column is, or else the first of the usual ones, upper and lower case being one."""
    lower = [name.lower() for name in header]
    for name in (wanted.lower(),) if wanted is not None else usual:
        if name in lower:
            return lower.index(name)
    there = ", ".join(repr(name[:40]) for name in header[:20]) or "nothing"
    looked_for = repr(wanted) if wanted is not None else " or ".join(usual)
    raise ClippyError(
        f"{path}: no {what} column; looked for {looked_for}, the first line holds {there}",
        f"Give the header's name as {what}_column; the first line must be a header.",
    )
