"""Captioned images from class folders: what an image is of is its caption."""

from __future__ import annotations

from pathlib import Path

from clippy_cli.data.benchmarks.class_folders import open_class_folders
from clippy_cli.data.captions import CaptionedImage, broken_image, file_bytes
from clippy_cli.data.pictures import EncodedPicture
from clippy_cli.data.prompts import fill, resolve_templates
from clippy_cli.errors import ClippyError
from clippy_cli.notices import Notices
from clippy_cli.regular_files import is_folder

TEMPLATES = ("none", "photo")


class ClassFolderSource:
    """Images of ``folder``/CLASS/; captions are the class's words, bare and as "a photo of a ...".

    The words are those that ``clippy evaluate`` asks for: ImageNet's names for folders named by its WordNet ids, else
    the folders' own names, or what a ``classes.yaml`` among them says. ClippyError where there are no class folders.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self.notices = Notices()
        if not is_folder(self._folder):
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
        path = self.path(index)
        try:
            return CaptionedImage(self.key(index), EncodedPicture(file_bytes(path), str(path)), self.captions(index))
        except ClippyError as error:
            raise broken_image(str(path), error) from error

    def key(self, index: int) -> str:
        """The class and the name of image ``index``."""
        return self._set.key(index)

    def path(self, index: int) -> Path:
        """The image file ``index``."""
        return self._set.path(index)

    def describe(self) -> str:
        """One line for the training log."""
        return f"{len(self)} images of classes in {self._folder.name}"
