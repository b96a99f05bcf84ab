"""Captioned images from class folders: what an image is of is its caption."""

from __future__ import annotations

import zlib
from pathlib import Path

from clippy_cli.data.benchmarks.class_folders import open_class_folders
from clippy_cli.data.captions import CaptionedImage, broken_image, file_bytes
from clippy_cli.data.pictures import EncodedPicture
from clippy_cli.data.prompts import fill, resolve_templates
from clippy_cli.errors import ClippyError

TEMPLATES = ("none", "photo")


class ClassFolderSource:
    """Images of ``folder``/CLASS/; captions are the class's words, bare and as "a photo of a ...".

    The words are those that ``clippy evaluate`` asks for: ImageNet's names for folders named by its WordNet ids, else
    the folders' own names, or what a ``classes.yaml`` among them says. ClippyError where there are no class folders.
    """

    problems: tuple[str, ...] = ()

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        if not self._folder.is_dir():
            raise ClippyError(f"{self._folder}: no such folder", "Give the folder that holds the class folders.")
        self._set = open_class_folders(self._folder.name, None, self._folder)
        self._templates = [template for name in TEMPLATES for template in resolve_templates(name)]

    def __len__(self) -> int:
        return len(self._set)

    def captions(self, index: int) -> tuple[str, ...]:
        """Every word of the class in every template."""
        return tuple(fill(template, word) for word in self._set.words(index) for template in self._templates)

    def read(self, index: int) -> CaptionedImage:
        """Image ``index``, by class and then by name, with its captions."""
        path = self._set.path(index)
        try:
            return CaptionedImage(
                self._set.key(index), EncodedPicture(file_bytes(path), str(path)), self.captions(index)
            )
        except ClippyError as error:
            raise broken_image(str(path), error) from error

    def checksum(self) -> int:
        """Of the names and captions of all images; their pixels are not read."""
        listed = "\n".join(line for index in range(len(self)) for line in (self._set.key(index), *self.captions(index)))
        return zlib.crc32(listed.encode("utf-8", "surrogateescape"))

    def describe(self) -> str:
        """One line for the training log."""
        return f"{len(self)} images of classes in {self._folder.name}"
