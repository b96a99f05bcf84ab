"""Captioned images in a folder: ``NAME.jpg`` beside ``NAME.txt``, at any depth."""

from __future__ import annotations

from pathlib import Path

from clippy_cli.data.captions import CaptionedImage, broken_image, file_bytes
from clippy_cli.data.images import IMAGE_SUFFIXES
from clippy_cli.data.pictures import EncodedPicture
from clippy_cli.errors import ClippyError


class FolderSource:
    """Images of a folder and of those below it, each with one caption: the text file of the same name.

    Sorted by path. Images without a text file, or with one that is empty or not UTF-8, are left out and counted in
    ``problems``. ClippyError where the folder holds no captioned image.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        try:
            images = sorted(path for path in self._folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        except OSError as error:
            raise ClippyError(f"{self._folder}: cannot be searched ({error})", "Check its permissions.") from error
        captions = {path: _caption(path.with_suffix(".txt")) for path in images}
        self._samples = tuple((path, caption) for path, caption in captions.items() if caption)
        without = [path for path, caption in captions.items() if not caption]
        what = f"{len(without)} images without a caption in a text file of the same name are left out"
        self.problems = (f"{self._folder}: {what}, such as {without[0]}",) if without else ()
        if not self._samples:
            raise ClippyError(
                f"{self._folder}: none of {len(images)} images has a caption beside it; looked for NAME.txt (UTF-8) "
                "beside NAME.jpg",
                "Or give a .csv or .tsv table with a column of image paths and one of captions.",
            )

    def __len__(self) -> int:
        return len(self._samples)

    def key(self, index: int) -> str:
        """The path of image ``index`` below the folder, with ``/``."""
        return self.path(index).relative_to(self._folder).as_posix()

    def path(self, index: int) -> Path:
        """The image file ``index``."""
        return self._samples[index][0]

    def captions(self, index: int) -> tuple[str, ...]:
        """The one caption of image ``index``."""
        return (self._samples[index][1],)

    def image_bytes(self, index: int) -> bytes:
        """The image file ``index``, not decoded; BrokenSampleError where it cannot be read."""
        return file_bytes(self.path(index))

    def read(self, index: int) -> CaptionedImage:
        """Image ``index`` with its caption."""
        where = str(self.path(index))
        try:
            return CaptionedImage(self.key(index), EncodedPicture(self.image_bytes(index), where), self.captions(index))
        except ClippyError as error:
            raise broken_image(where, error) from error

    def describe(self) -> str:
        """One line for messages."""
        return f"{len(self)} captioned images in {self._folder}"


def _caption(path: Path) -> str:
    """The text of a file on one line; empty where it cannot be read."""
    try:
        return " ".join(path.read_text(encoding="utf-8-sig").split())
    except (OSError, UnicodeDecodeError):
        return ""
