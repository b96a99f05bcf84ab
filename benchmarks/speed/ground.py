"""What is measured on: code bases, photos, labels and captions, and how often."""

from __future__ import annotations

import itertools
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from PIL import Image
from speed.codes import Asked, Code

VOC = "VOCdevkit/VOC2012"
VOC_NAMES = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat",
    "chair", "cow", "table", "dog", "horse", "motorbike", "person", "potted plant",
    "sheep", "sofa", "train", "television monitor",
]  # fmt: skip
SAMPLE = "clippy_cli/assets/samples/raccoon.jpg"
CAPTIONS = "flickr8k/train-*.tar"
_SIZES = ((320, 240), (240, 320), (320, 240))  # of the photos of --tiny without data

T = TypeVar("T")


@dataclass(frozen=True)
class Ground:
    """One measurement.

    Attributes:
        codes: the code bases in their turn: before, if any, and today.
        folder: for what is made on the way; it is gone afterward.
        data_root: folder of VOCdevkit and flickr8k; None only where ``tiny``, which then makes its own.
        tiny: everything in small and once, to see that it works; its figures mean nothing.
        full: what takes many minutes too.
        asked_rounds: rounds of every part; None for as many as each part says.
        photo_count: at most that many photos.
        notes: what a reader of the table must know; parts add to it.
    """

    codes: tuple[Code, ...]
    folder: Path
    data_root: Path | None
    tiny: bool
    full: bool
    asked_rounds: int | None
    photo_count: int
    notes: list[str] = field(default_factory=list)

    @property
    def today(self) -> Code:
        return self.codes[-1]

    @property
    def before(self) -> Code | None:
        return self.codes[0] if len(self.codes) > 1 else None

    def rounds(self, usual: int) -> int:
        """How often something is measured that is measured ``usual`` times."""
        return self.asked_rounds or (1 if self.tiny else usual)

    def note(self, text: str) -> None:
        """Add a line below the table."""
        if text not in self.notes:
            self.notes.append(text)

    @cached_property
    def photos(self) -> list[Path]:
        """VOC's photos in the order of the val list; those of ``tiny`` may be cut from the shipped sample."""
        if self.data_root is not None:
            names = (self.data_root / VOC / "ImageSets/Segmentation/val.txt").read_text(encoding="utf-8").split()
            paths = [self.data_root.resolve() / VOC / "JPEGImages" / f"{name}.jpg" for name in names]
            return [path for path in paths if path.is_file()][: self.photo_count]
        folder = self.folder / "photos"
        folder.mkdir()
        with Image.open(self.today.folder / SAMPLE) as sample:
            for number, size in enumerate(_SIZES[: self.photo_count]):
                left = 100 * number
                sample.crop((left, 0, left + size[0], size[1])).save(folder / f"{number}.jpg")
        return sorted(folder.iterdir())

    @property
    def labels(self) -> list[str]:
        """VOC's 20 class names."""
        return VOC_NAMES[:3] if self.tiny else VOC_NAMES

    @cached_property
    def class_names(self) -> list[str]:
        """ImageNet's names, each once."""
        with Asked(self.today) as asked:
            names = [name.replace(",", " ") for name in asked("imagenet_names")]
        return list(dict.fromkeys(names))

    @property
    def hundred(self) -> list[str]:
        """A hundred of ImageNet's names, evenly spaced."""
        return self.class_names[:: len(self.class_names) // 100][: 8 if self.tiny else 100]

    def captions(self, count: int) -> list[str]:
        """Flickr8k's first captions, each once; for ``tiny`` a few that are made up of class names."""
        if self.data_root is None:
            return [f"a photo of a {one} and a {other}" for one, other in itertools.pairwise(VOC_NAMES)][:count]
        found: dict[str, None] = {}
        for shard in sorted(self.data_root.glob(CAPTIONS)):
            with tarfile.open(shard) as members:
                for member in members:
                    if member.name.endswith(".json") and (file := members.extractfile(member)) is not None:
                        texts = json.loads(file.read())["captions"]
                        found.update(dict.fromkeys(text.replace("|", " ").strip() for text in texts))
                    if len(found) >= count:
                        return list(found)[:count]
        return list(found)

    def of_each(self, measure: Callable[[Code], T]) -> dict[str, Callable[[], T]]:
        """``measure`` of every code base, as sides that take turns."""

        def side(code: Code) -> Callable[[], T]:
            return lambda: measure(code)

        return {code.name: side(code) for code in self.codes}


def enlarged(photo: Path, width: int, height: int, folder: Path) -> Path:
    """A JPEG of that size, made of a photo by bicubic upscaling, quality 90."""
    path = folder / f"{photo.stem}-{width}x{height}.jpg"
    with Image.open(photo) as image:
        image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)
    return path
