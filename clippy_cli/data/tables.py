"""Caption sources in a CSV or TSV file: one image path and one caption a row."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from clippy_cli.data.captions import CaptionedImage, broken_image, file_bytes
from clippy_cli.data.pictures import EncodedPicture
from clippy_cli.errors import ClippyError

IMAGE_COLUMNS = ("image", "filepath", "image_path", "path", "file", "filename", "file_name", "image_name")
CAPTION_COLUMNS = ("caption", "text", "title", "captions", "comment")

_DELIMITERS = {".tsv": "\t", ".tab": "\t", ".csv": ","}
_PROBES = 32


class TableSource:
    """Rows of a table with a header; rows of the same image are one sample with several captions.

    The delimiter is a tab for ``.tsv`` and ``.tab``, a comma for ``.csv``, and else what the header holds most of
    (comma, tab, semicolon, bar). Columns that are not named are found by their usual headers. Relative image paths
    start at ``root``, or at the table's folder. Rows without image or caption are left out and counted in ``problems``.
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
        captions, incomplete = _read_rows(self._path, image_column, caption_column)
        if not captions:
            raise ClippyError(f"{self._path}: no row with both an image and a caption", "Look at the table.")
        self._images = tuple(captions)
        self._captions = tuple(tuple(texts) for texts in captions.values())
        some = f"{len(incomplete)} rows without image or caption are left out"
        self.problems = (f"{self._path}: {some}, such as line {incomplete[0]}",) if incomplete else ()
        probes = self._images[:: max(1, len(self._images) // _PROBES)]
        if not any((self._root / image).is_file() for image in probes):
            raise ClippyError(
                f"{self._path}: none of {len(probes)} images tried exists, such as {self._root / probes[0]}",
                "Relative paths start at the table's folder; give another one as root.",
            )

    def __len__(self) -> int:
        return len(self._images)

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


def _read_rows(
    path: Path, image_column: str | None, caption_column: str | None
) -> tuple[dict[str, list[str]], list[int]]:
    """Image path -> captions, and the line numbers of incomplete rows."""
    captions: dict[str, list[str]] = {}
    incomplete: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = _DELIMITERS.get(path.suffix.lower()) or _guess_delimiter(file.readline())
            file.seek(0)
            rows = csv.reader(file, delimiter=delimiter, skipinitialspace=True)
            header = [name.strip() for name in next(rows, [])]
            image_at = _column(header, image_column, IMAGE_COLUMNS, "image", path)
            caption_at = _column(header, caption_column, CAPTION_COLUMNS, "caption", path)
            for row in rows:
                if not row:
                    continue
                image = row[image_at].strip() if image_at < len(row) else ""
                caption = " ".join(row[caption_at].split()) if caption_at < len(row) else ""
                if image and caption:
                    captions.setdefault(image, []).append(caption)
                else:
                    incomplete.append(rows.line_num)
    except FileNotFoundError:
        raise ClippyError(f"{path}: no such file", "Check the path of the table.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ClippyError(f"{path}: cannot be read as UTF-8 text ({error})", "Save the table as UTF-8.") from error
    except csv.Error as error:
        raise ClippyError(
            f"{path}: line {rows.line_num}: {error}", "Look there for a quotation mark that is never closed."
        ) from error
    return captions, incomplete


def _guess_delimiter(header: str) -> str:
    return max(",\t;|", key=header.count)


def _column(header: Sequence[str], wanted: str | None, usual: Sequence[str], what: str, path: Path) -> int:
    """Where the named column is, or else the first of the usual ones, upper and lower case being one."""
    lower = [name.lower() for name in header]
    for name in (wanted.lower(),) if wanted is not None else usual:
        if name in lower:
            return lower.index(name)
    there = ", ".join(repr(name[:40]) for name in header) or "nothing"
    looked_for = repr(wanted) if wanted is not None else " or ".join(usual)
    raise ClippyError(
        f"{path}: no {what} column; looked for {looked_for}, the first line holds {there}",
        f"Give the header's name as {what}_column; the first line must be a header.",
    )
