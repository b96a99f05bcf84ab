"""Masks that can be read in more than one way: one notice that says which was taken, or a refusal."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clippy_cli.data.benchmarks import open_benchmark
from clippy_cli.data.benchmarks.base import IGNORE, ExifRule, Reading, SegmentationSet
from clippy_cli.errors import ClippyError
from tests.fixtures.data import encoded, noise

INDICES = np.array([[0, 0, 1, 1], [0, 2, 2, 1], [0, 0, 0, 1]], np.uint8)
COLORS = [(0, 0, 0), (250, 10, 10), (10, 250, 10)]


def opened(folder: Path, masks: Mapping[str, bytes], more: str = "", exif: ExifRule | None = None, turn: int = 1):
    """A set of classes ground, cat and dog with these masks; the photos have this EXIF orientation."""
    for key, mask in masks.items():
        with Image.open(io.BytesIO(mask)) as image:
            width, height = image.size
        tag = Image.Exif()
        tag[0x0112] = turn
        if turn >= 5:
            width, height = height, width
        write(folder / "p" / f"{key}.png", encoded(Image.fromarray(noise(height, width)), exif=tag))
        write(folder / "m" / f"{key}.png", mask)
    write(
        folder / "s.yaml",
        b"title: s\nimages: p/{}.png\nmasks: m/{}.png\nclasses: [ground, cat, dog]\n" + more.encode(),
    )
    found = open_benchmark(str(folder / "s.yaml"), None, Reading(exif))
    assert isinstance(found, SegmentationSet)
    return found


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def paletted(values: np.ndarray, colors: list[tuple[int, int, int]]) -> bytes:
    image = Image.fromarray(values)
    image.putpalette([part for color in colors for part in color])
    return encoded(image)


def told(notices) -> list[str]:
    return [f"{notice.kind}: {notice.reason}" for notice in notices]


def test_masks_of_0_and_255_are_said_before_the_work(tmp_path: Path) -> None:
    binary = encoded(np.where(INDICES == 1, 255, 0).astype(np.uint8))
    found = opened(tmp_path, {"a": binary, "b": binary})
    assert told(found.notices) == [
        "assumed: these hold 0 and 255 only, and 255 is ignored: what it marks counts nowhere"
    ]
    settled = opened(tmp_path, {"a": binary}, "values: {ground: 0, cat: 255, dog: 2}\nignore: []\n")
    assert not told(settled.notices)
    assert set(np.unique(settled.read(0).mask)) == {0, 1}
    assert not told(opened(tmp_path, {"a": binary, "b": encoded(INDICES)}).notices)


def test_a_sorted_palette_is_refused_and_another_one_is_said(tmp_path: Path) -> None:
    swapped = np.choose(INDICES, [0, 2, 1]).astype(np.uint8)
    masks = {
        "a": paletted(INDICES, COLORS),
        "b": paletted(swapped, [COLORS[0], COLORS[2], COLORS[1]]),
        "c": paletted(INDICES, [COLORS[0], (9, 9, 9), (7, 7, 7)]),
        "d": paletted(INDICES, [*COLORS, (1, 2, 3)]),
        "e": encoded(INDICES),
    }
    found = opened(tmp_path, masks)
    assert not told(found.notices)
    with pytest.raises(ClippyError, match=r"b\.png: color \(10, 250, 10\) is value 1 in its palette and 2 in that of"):
        found.read(1)
    for index, count in ((0, 0), (2, 1), (3, 0), (4, 0)):
        sample = found.read(index)
        np.testing.assert_array_equal(sample.mask, INDICES)
        assert len(sample.notices) == count
    settled = opened(tmp_path, masks, "palette: any\n")
    np.testing.assert_array_equal(settled.read(1).mask, swapped)
    assert not settled.read(2).notices


def test_a_sorted_palette_of_voc_is_said_even_where_all_have_it(tmp_path: Path) -> None:
    voc = [(0, 0, 0), (128, 0, 0), (0, 128, 0)]
    assert not told(opened(tmp_path, {"a": paletted(INDICES, voc)}).notices)
    (said,) = told(opened(tmp_path, {"a": paletted(INDICES, voc[::-1])}).notices)
    assert "VOC's colors at other values" in said


def test_one_bit_all_ignored_and_several_frames(tmp_path: Path) -> None:
    bits = Image.fromarray(INDICES == 1)
    ignored = encoded(np.full((3, 4), 255, np.uint8))
    first = Image.fromarray(INDICES)
    frames = encoded(first, save_all=True, append_images=[Image.fromarray(INDICES[::-1].copy())])
    found = opened(tmp_path, {"a": encoded(bits), "b": ignored, "c": frames})
    assert told(found.notices) == ["assumed: 1 bit a pixel: black is value 0, white is value 1"]
    assert [told(found.read(index).notices) for index in range(3)] == [
        [],
        ["assumed: all its values are ignored, so the image counts nowhere"],
        ["assumed: holds several frames or pages, the first one is used"],
    ]
    np.testing.assert_array_equal(found.read(0).mask, INDICES == 1)
    assert (found.read(1).mask == IGNORE).all()


@pytest.mark.parametrize(
    ("values", "hint"), [(INDICES.astype(np.uint16) * 257, "257"), (INDICES * 100, "evenly spaced")]
)
def test_unknown_values_come_with_a_guess(tmp_path: Path, values: np.ndarray, hint: str) -> None:
    with pytest.raises(ClippyError, match="neither a class's nor ignored") as caught:
        opened(tmp_path, {"a": encoded(Image.fromarray(values))}).read(0)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("turn", "shape", "stored", "said"),
    [
        (6, (3, 4), False, 0),  # the mask has the size of the turned photo
        (3, (3, 4), False, 1),  # a half turn: sizes cannot tell
        (6, (4, 4), False, 1),
        (1, (3, 4), False, 0),
    ],
)
def test_the_exif_orientation_of_photos_is_applied_and_doubts_are_said(
    tmp_path: Path, turn: int, shape: tuple[int, int], stored: bool, said: int
) -> None:
    mask = encoded(np.zeros(shape, np.uint8))
    sample = opened(tmp_path, {"a": mask}, turn=turn).read(0)
    assert len(sample.notices) == said
    assert sample.image.shape[:2] == shape
    settled = opened(tmp_path, {"a": mask}, turn=turn, exif=ExifRule.APPLY).read(0)
    np.testing.assert_array_equal(settled.image, sample.image)
    assert not settled.notices


def test_a_mask_of_the_stored_size_keeps_its_photo_as_stored(tmp_path: Path) -> None:
    found = opened(tmp_path, {"a": encoded(INDICES)}, turn=6)
    write(tmp_path / "m" / "a.png", encoded(INDICES.T.copy()))  # of the size that the photo is stored in
    with Image.open(tmp_path / "p" / "a.png") as photo:
        pixels = np.array(photo)
    sample = found.read(0)
    np.testing.assert_array_equal(sample.image, pixels)
    assert "stored size" in told(sample.notices)[0]
    by_rule = open_benchmark(str(tmp_path / "s.yaml"), None, Reading(ExifRule.IGNORE))
    np.testing.assert_array_equal(by_rule.read(0).image, pixels)
    assert by_rule.info.exif is ExifRule.IGNORE and not by_rule.read(0).notices
    with pytest.raises(ClippyError, match="differ in size"):
        open_benchmark(str(tmp_path / "s.yaml"), None, Reading(ExifRule.APPLY)).read(0)
