"""PASCAL VOC 2012 on a tiny tree of its layout, and on the real one where it is at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clippy_cli.data.benchmarks.voc import open_voc
from clippy_cli.data.labels import Label, Vocabulary
from clippy_cli.errors import ClippyError
from tests.fixtures.data import encoded, noise, write_voc


def voc_palette() -> list[int]:
    """The development kit's colour map, by its published bit rule."""
    palette = np.zeros((256, 3), np.uint8)
    for index in range(256):
        rest = index
        for shift in range(7, -1, -1):
            for channel in range(3):
                palette[index, channel] |= (rest >> channel & 1) << shift
            rest >>= 3
    return palette.ravel().tolist()


MASK = np.array([[0, 1, 20], [255, 0, 15]], np.uint8)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_voc(tmp_path, [MASK, MASK.T.copy()], voc_palette())


def save_mask(tree: Path, image: Image.Image) -> None:
    (tree / "SegmentationClass" / "0.png").write_bytes(encoded(image))


@pytest.mark.parametrize("up", [0, 1, 2])
def test_any_of_three_folders_opens(tree: Path, up: int) -> None:
    benchmark = open_voc([tree, *tree.parents][up], background=True)
    assert len(benchmark) == 2
    item = benchmark.read(1)
    assert item.key == "1"
    np.testing.assert_array_equal(item.mask, MASK.T)
    assert item.mask.dtype == np.int64
    assert item.image.shape == (3, 2, 3)


def test_without_background_it_is_ignored_and_classes_move_down(tree: Path) -> None:
    benchmark = open_voc(tree, background=False)
    np.testing.assert_array_equal(benchmark.read(0).mask, [[255, 0, 19], [255, 255, 14]])
    assert (benchmark.name, len(benchmark.classes), benchmark.background_index) == ("VOC20", 20, None)
    assert benchmark.context == ()
    assert [benchmark.classes[index].name for index in (0, 14, 19)] == ["aeroplane", "person", "tv monitor"]


def test_the_vocabulary_is_the_authors(tree: Path) -> None:
    benchmark = open_voc(tree, background=True)
    assert (benchmark.name, len(benchmark.classes), benchmark.background_index) == ("VOC21", 21, 0)
    assert len(benchmark.context) == 39
    assert {entry.name: entry.prompts for entry in benchmark.classes}["dining table"] == ("table",)
    labels = tuple(Label(entry.name, entry.prompts) for entry in benchmark.classes)
    vocabulary = Vocabulary(labels, tuple(Label(word, (word,)) for word in benchmark.context))
    assert len(vocabulary.texts) == 60


def test_greyscale_index_masks_are_read_too(tree: Path) -> None:
    save_mask(tree, Image.fromarray(MASK))
    np.testing.assert_array_equal(open_voc(tree, background=True).read(0).mask, MASK)


def test_masks_that_are_no_class_indices_are_refused(tree: Path) -> None:
    benchmark = open_voc(tree, background=True)
    save_mask(tree, Image.fromarray(noise(2, 3)))
    with pytest.raises(ClippyError, match="this one is RGB"):
        benchmark.read(0)
    save_mask(tree, Image.fromarray(MASK + 25))
    with pytest.raises(ClippyError, match="no VOC class"):
        benchmark.read(0)
    shuffled = Image.fromarray(MASK)
    shuffled.putpalette(voc_palette()[::-1])
    save_mask(tree, shuffled)
    with pytest.raises(ClippyError, match="palette is not VOC's"):
        benchmark.read(0)
    save_mask(tree, Image.fromarray(MASK[:1]))
    with pytest.raises(ClippyError, match=r"differ in size \(3x1 and 3x2"):
        benchmark.read(0)
    (tree / "SegmentationClass" / "0.png").write_bytes(encoded(Image.fromarray(MASK))[:40])
    with pytest.raises(ClippyError, match=r"0\.png"):
        benchmark.read(0)


def test_listed_but_missing_files_are_counted(tree: Path) -> None:
    (tree / "SegmentationClass" / "1.png").unlink()
    with pytest.raises(ClippyError, match=r"1 of 2 files .*1\.png"):
        open_voc(tree, background=True)


def test_a_missing_set_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    with pytest.raises(ClippyError, match=r"looked for VOCdevkit/VOC2012.*found coco") as caught:
        open_voc(tmp_path, background=True)
    assert "http" in str(caught.value.hint)


def test_the_real_set(real_data: Path) -> None:
    benchmark = open_voc(real_data, background=False)
    item = benchmark.read(0)
    assert item.mask.shape == item.image.shape[:2]
    values = set(np.unique(item.mask).tolist())
    assert values - {255}
    assert values <= {*range(20), 255}
