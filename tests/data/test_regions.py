"""Region files: PNG and COCO RLE as others write them, and what is refused."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from pycocotools import mask as coco

from clippy_cli.data.regions import decode_counts, find_regions, read_regions
from clippy_cli.errors import ClippyError


def rle(mask):
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode()}


@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1)))
def test_counts_are_read_as_pycocotools_writes_them(mask):
    runs = decode_counts(rle(mask)["counts"])
    values = np.repeat(np.arange(len(runs)) % 2, runs)
    np.testing.assert_array_equal(values.reshape(mask.shape[::-1]).T, mask)


@given(st.text(st.characters(min_codepoint=0, max_codepoint=200), max_size=30))
def test_any_other_text_is_numbers_or_refused(text):
    with contextlib.suppress(ValueError):
        assert all(isinstance(run, int) for run in decode_counts(text))


def test_smaller_masks_lie_on_larger_ones(tmp_path):
    large, small = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    large[:, :4], small[1:3, 1:5] = True, True
    third = {"segmentation": {"size": [4, 6], "counts": [23, 1]}, "area": 1}
    path = tmp_path / "photo.json"
    path.write_text(json.dumps([rle(small), rle(large), third]))
    found = read_regions(path, 4, 6)
    expected = np.where(small, 1, np.where(large, 2, 0))
    expected[3, 5] = 3
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("values", [np.array([[0, 300], [70, 300]], np.uint16), np.array([[9, 2], [4, 2]], np.uint8)])
def test_numbers_of_a_png_are_closed_up(tmp_path, values):
    Image.fromarray(values).save(tmp_path / "photo.png")
    found = read_regions(find_regions(tmp_path, "photo"), 2, 2)
    assert found.tolist() == ([[0, 2], [1, 2]] if values.dtype == np.uint16 else [[3, 1], [2, 1]])


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[1]",
        "[" * 100_000,
        '[{"size": [4, 6]}]',
        '[{"size": [6, 4], "counts": [24]}]',
        '[{"size": [4, 6], "counts": [25]}]',
        '[{"size": [4, 6], "counts": [30, -6]}]',
        '[{"size": [4, 6], "counts": [24.0]}]',
        '[{"size": [4, 6], "counts": "ooooooooooooooo"}]',
    ],
)
def test_broken_lists_are_refused(tmp_path, content):
    path = tmp_path / "photo.json"
    path.write_text(content)
    with pytest.raises(ClippyError, match="not regions of a photo of 6x4"):
        read_regions(path, 4, 6)


def test_missing_files_and_other_sizes_are_named(tmp_path):
    Image.new("L", (3, 2)).save(tmp_path / "photo.png")
    with pytest.raises(ClippyError, match="3x2 pixels for a photo of 6x4"):
        read_regions(tmp_path / "photo.png", 4, 6)
    for name in ("other", "../photo", "a/../../photo"):
        with pytest.raises(ClippyError, match="looked for"):
            find_regions(tmp_path / "inside", name)


def test_masks_that_cover_a_photo_over_and_over_are_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"size": [30, 40], "counts": [0, 1200]}] * 300), encoding="utf-8")
    with pytest.raises(ClippyError, match="more than 256 times"):
        read_regions(path, 30, 40)
    path.write_text(json.dumps([{"size": [30, 40], "counts": [0, 1200]}] * 200), encoding="utf-8")
    assert (read_regions(path, 30, 40) == 1).all()  # numbered from 1: the others are covered
    path.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(ClippyError, match="not regions"):
        read_regions(path, 30, 40)
