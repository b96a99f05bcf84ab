"""Captioned images in a folder: ``NAME.jpg`` beside ``NAME.txt``, at any depth."""

from __future__ import annotations

import os
from pathlib import Path

from clippy_cli.data.caption_text import oddity, one_line, stands_for_nothing
from clippy_cli.data.captions import CaptionedImage, broken_image, file_bytes
from clippy_cli.data.image_files import IMAGE_SUFFIXES, is_hidden, is_system_folder
from clippy_cli.data.pictures import EncodedPicture
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices
from clippy_cli.regular_files import read_text

_TEXT = ".txt"


class FolderSource:
    """Images of a folder and of those below it, each with one caption: the text file of the same name.

    Sorted by path. Images without a text file, or with one that is empty or not UTF-8, text files without an image, and
    folders that cannot be read are left out and counted in ``notices``, and so are files of other types. ClippyError
    where the folder holds no captioned image.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self.notices = Notices()
        images, texts = self._search()
        used: set[Path] = set()
        samples: list[tuple[Path, str]] = []
        for image in images:
            text = next((text for text in (image.with_suffix(_TEXT), image.with_suffix(".TXT")) if text in texts), None)
            caption = "" if text is None else self._caption(text)
            if caption:
                samples.append((image, caption))
            elif text is None:
                self._skip("image", "no text file of the same name", image)
            if text in used:
                self.notices.assumed("image", "shares its text file with another image", self._name(image))
            if text is not None:
                used.add(text)
        for text in sorted(texts - used):
            self._skip("text file", "no image of the same name", text)
        self._samples = tuple(samples)
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
        return self._name(self.path(index))

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

    def _search(self) -> tuple[list[Path], set[Path]]:
        """Images, sorted, and text files; what else is there is counted."""

        def unreadable(error: OSError) -> None:
            if Path(error.filename) == self._folder:
                raise ClippyError(f"{self._folder}: cannot be searched ({error})", "Check its permissions.") from error
            self._skip("folder", f"cannot be read ({error.strerror})", Path(error.filename))

        images: list[Path] = []
        texts: set[Path] = set()
        for root, folders, files in os.walk(self._folder, onerror=unreadable if self._folder.exists() else None):
            for name in [name for name in folders if is_hidden(name) or is_system_folder(name)]:
                kind = "of the system" if is_system_folder(name) else "hidden, its name starts with a dot"
                self.notices.ignored("folder", kind, self._name(Path(root) / name))
                folders.remove(name)
            for name in folders:
                if (Path(root) / name).is_symlink():
                    self._skip("folder", "links to folders are not followed", Path(root) / name)
            for name in files:
                path, suffix = Path(root) / name, os.path.splitext(name)[1].lower()  # noqa: PTH122 (many files)
                if name.startswith("."):
                    self.notices.ignored("file", "a hidden file", self._name(path))
                elif suffix in IMAGE_SUFFIXES:
                    images.append(path)
                elif suffix == _TEXT:
                    texts.add(path)
                else:
                    self.notices.ignored("file", f"type {suffix or 'unknown'} is not read", self._name(path))
        return sorted(images), texts

    def _caption(self, path: Path) -> str:
        """The text of a file on one line; empty, and counted, where it cannot be read."""
        try:
            text = read_text(path, "utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            why = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else f"cannot be read ({error.strerror})"
            self._skip("image", f"its text file {why}", path)
            return ""
        caption = one_line(text)
        if not caption:
            self._skip("image", "its text file is empty", path)
        elif "\0" in caption:
            self._skip("image", "its text file has NUL characters; it may be UTF-16", path)
        elif stands_for_nothing(caption):
            self._skip("image", f"its text file says {caption!r}, which stands for nothing", path)
        else:
            if "\n" in text.strip():
                self.notices.assumed("text file", "several lines, joined into one caption", self._name(path))
            if reason := oddity(caption):
                self.notices.assumed("text file", reason, self._name(path))
            return caption
        return ""

    def _skip(self, unit: str, reason: str, path: Path) -> None:
        self.notices.skipped(unit, reason, self._name(path))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()
