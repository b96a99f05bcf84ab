"""Masks, listings and color profiles for the fuzzers, as sets read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from clippy_cli.data.benchmarks.listings import SetFiles, read_listing
from clippy_cli.data.benchmarks.masks import MAX_VALUES, MaskReader, look_up
from clippy_cli.data.benchmarks.patterns import PatternFiles
from clippy_cli.data.benchmarks.spec import SetSpec
from clippy_cli.data.pixels import profile_name
from clippy_cli.notices import Notices

_SIDE = 24


def write_masks(folder: Path) -> None:
    """A palette mask, a gray one, and a listing of both."""
    values = np.arange(_SIDE * _SIDE, dtype=np.uint8).reshape(_SIDE, _SIDE) % 10
    gray = Image.fromarray(values)
    gray.save(folder / "gray.png")
    palette = gray.convert("P")
    palette.putpalette(list(range(30)))
    palette.save(folder / "palette.png")
    (folder / "val.txt").write_text("gray\npalette\n# two\n", encoding="utf-8")
    (folder / "screen.icc").write_bytes(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


def read_masks(folder: Path) -> None:
    """Masks of values 0 to 9 whose palette is the set's, the listing, the profile."""
    table = np.full(MAX_VALUES, -1, np.int16)
    table[:10] = np.arange(10)
    notices = Notices()
    spec = SetSpec(title="s", images="{}.png", masks="{}.png", classes=list("abcdefghij"))
    profile_name((folder / "screen.icc").read_bytes()).encode()
    for key in read_listing(folder / "val.txt", SetFiles(PatternFiles(folder, ("{}.png",))), notices):
        reader, path = MaskReader(table, spec), folder / f"{key}.png"
        reader.look_at([path], notices)
        look_up(reader(path, notices), table, where=str(path))
    for notice in notices:
        str(notice).encode()
        str(notice.record()).encode()
