"""Caption sources in a CSV or TSV file: one image path and one caption a row."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from clippy_cli.data.caption_text import listed, oddity, one_line, stands_for_nothing
from clippy_cli.data.captions import CaptionedImage, broken_image, file_bytes
from clippy_cli.data.images import IMAGE_SUFFIXES
from clippy_cli.data.pictures import EncodedPicture
from clippy_cli.data.table_files import first_bad_line, refuse_other_kinds, text_encoding
from clippy_cli.data.table_header import Header, find_header
from clippy_cli.data.table_paths import count_missing, is_file, path_as_meant
from clippy_cli.data.table_rows import MAX_FIELD, Lines, Row, RowReader
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices

MOST_MISSING = 0.5  # of the images of a table that is packed or trained on

_COMPARED = 100  # captions of one image
_QUOTE = "Put quotation marks around fields that hold the delimiter."


class TableSource:
    """Rows of a table with a header; rows of the same image are one sample with several captions.

    The delimiter is a tab for ``.tsv`` and ``.tab``, a comma for ``.csv``, and else what the header holds most of; it
    is another one of comma, tab, semicolon and bar where only that finds the columns. Columns that are not named are
    found by their usual headers. Relative image paths start at ``root``, or at the table's folder.

    Rows that cannot be used, and those read under an assumption, are counted in ``notices`` with their lines;
    ``doubtful`` of ``rows`` do not fit the header or have quotation marks that do not close, and ``missing`` images do
    not exist (of a large table only if one of 1000 does not). A field that holds a list is several captions.
    ClippyError where the file, a column or every image is missing.
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
        refuse_other_kinds(self._path)
        table = _Table(self._path, self._root)
        table.read(image_column, caption_column)
        self.notices, self.rows, self.doubtful = table.notices, table.rows, table.doubtful
        captions = table.captions
        if not captions:
            found = "; ".join(map(str, self.notices))
            raise ClippyError(f"{self._path}: no row with both an image and a caption", found or "Look at the table.")
        self._images = tuple(captions)
        self._captions = tuple(tuple(texts) for texts in captions.values())
        self.missing = count_missing(self._path, self._root, self._images, self.notices)

    def __len__(self) -> int:
        return len(self._images)

    def refuse_doubtful(self, most: float, how: str) -> None:
        """ClippyError where more than the share ``most`` of the rows is doubtful, or most images are missing.

        ``how`` says what lets more pass.
        """
        if self.missing > max(most, MOST_MISSING) * len(self):
            raise ClippyError(
                f"{self._path}: {self.missing:,} of {len(self):,} images do not exist, more than {MOST_MISSING:.0%}",
                f"Look at the paths and the root (clippy data check {self._path}), or {how}.",
            )
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


class _Table:
    """What the rows hold: ``captions`` of each image in the order of first mention, ``rows`` and what is doubtful."""

    def __init__(self, path: Path, root: Path) -> None:
        self._path, self._root = path, root
        self.captions: dict[str, list[str]] = {}
        self.notices = Notices()
        self.rows = self.doubtful = 0

    def read(self, image_column: str | None, caption_column: str | None) -> None:
        """Read the file; ClippyError where it is missing, is not text, or has no such columns."""
        path, encoding = self._path, "utf-8"
        try:
            encoding = text_encoding(path)
            if encoding.startswith("utf-16-"):
                self.notices.assumed("table", "UTF-16 without a byte-order mark", path.name)
            with path.open(encoding=encoding, newline="") as file:
                lines = Lines(file, path)
                header = find_header(lines, path, image_column, caption_column, self.notices)
                self._read_rows(lines, header)
        except FileNotFoundError:
            raise ClippyError(f"{path}: no such file", "Check the path of the table.") from None
        except UnicodeError as error:
            where = f"line {first_bad_line(path)} is not UTF-8" if encoding == "utf-8" else f"is not {encoding}"
            raise ClippyError(f"{path}: {where} ({error})", "Save the table as UTF-8.") from error
        except OSError as error:
            raise ClippyError(f"{path}: cannot be read ({error})", "Check the file and its permissions.") from error

    def _read_rows(self, lines: Lines, header: Header) -> None:
        width, image_at, caption_at = len(header.fields), header.image, header.caption
        split_at, splits = header.split, Counter[str]()

        def is_there(fields: list[str]) -> bool:
            return is_file(self._root / fields[image_at].strip())

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
            image, caption = fields[image_at].strip(), one_line(fields[caption_at])
            if split_at is not None and split_at < len(fields):
                splits[fields[split_at].strip()] += 1
            if image and caption:
                self._add(image, caption, row, header)
            elif any(map(str.strip, fields)):
                self._skip(f"no {'caption' if image else 'image'}", row)
        if len(splits) > 1:
            named = [f"{count:,} {name or 'without a name'}" for name, count in splits.most_common()]
            reason = "holds several splits, and all of its rows are used"
            self.notices.assumed("table", reason, *named, hint="Write the rows of one split to a table.", count=1)

    def _fit(self, row: Row, header: Header, is_row: Callable[[list[str]], bool]) -> list[str] | None:
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

    def _add(self, image: str, caption: str, row: Row, header: Header) -> None:
        if len(caption) > MAX_FIELD or len(image) > MAX_FIELD:
            self._skip(f"a field of more than {MAX_FIELD:,} characters", row)
        elif "\0" in image or "\0" in caption:
            self._skip("a NUL character", row)
        elif header.again(row.fields):
            if [field.strip() for field in row.fields] == header.fields:
                self.notices.ignored("row", "the header again", f"line {row.line}")
            else:
                self.doubtful += 1
                self._skip("another header; the rows after it are read by the first one", row)
        elif several := listed(caption):
            self.notices.assumed("row", "a list in one field, read as several captions", f"line {row.line}")
            for one in several:
                self._add_caption(image, one_line(one), row)
        else:
            self._add_caption(image, caption, row)

    def _add_caption(self, image: str, caption: str, row: Row) -> None:
        if not caption or stands_for_nothing(caption):
            self._skip(f"the caption is {caption!r}, which stands for nothing", row)
            return
        if reason := oddity(caption):
            self.notices.assumed("row", reason, f"line {row.line}")
        texts = self.captions.setdefault(path_as_meant(self._root, image, self.notices), [])
        if texts and caption in texts[:_COMPARED]:
            self.notices.assumed("row", "word for word an earlier row; both count", f"line {row.line}")
        texts.append(caption)

    def _skip(self, reason: str, row: Row) -> None:
        self.notices.skipped("row", reason, f"line {row.line}")
