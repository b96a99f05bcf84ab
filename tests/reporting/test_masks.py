"""Masks as other tools read them."""

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from clippy_cli.errors import ClippyError
from clippy_cli.inference.label_map import LabelMap
from clippy_cli.reporting.masks import region_records, write_cutouts, write_mask, write_scores
from clippy_cli.reporting.palette import colour


def label_map(codes, labels):
    pixels = np.bincount(codes.ravel(), minlength=labels + 1)
    return LabelMap(codes.astype(np.int16), pixels, np.where(pixels > 0, 0.5, np.nan))


def blobs():
    codes = np.zeros((7, 11), np.int16)
    codes[1:4, 2:9], codes[5:, 3], codes[0, 10] = 1, 3, 1
    return codes


def test_the_mask_png_holds_the_codes_and_the_colours(tmp_path):
    with Image.open(write_mask(tmp_path / "m.png", blobs())) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), blobs())
        np.testing.assert_array_equal(np.asarray(image.convert("RGB"))[2, 5], colour(1))


def test_too_many_labels_for_a_palette(tmp_path):
    with pytest.raises(ClippyError, match="255 labels do not fit"):
        write_mask(tmp_path / "m.png", np.array([[255]], np.int16))


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools itself, under NumPy 2
def test_records_decode_to_the_mask_and_allow_for_absent_labels():
    codes = blobs()
    records = region_records(label_map(codes, 3), ["a", "b", "c"], scored=True)
    for code, record in enumerate(records, start=1):
        assert record["rle"]["size"] == [7, 11]
        decoded = coco.decode({**record["rle"], "counts": record["rle"]["counts"].encode()})
        np.testing.assert_array_equal(decoded, codes == code)
        assert record["share"] == pytest.approx((codes == code).mean(), abs=1e-6)
        assert record["colour"] == "#{:02x}{:02x}{:02x}".format(*colour(code))
    assert [record["box"] for record in records] == [[2, 0, 9, 4], None, [3, 5, 1, 2]]
    assert [record["score"] for record in records] == [0.5, None, 0.5]
    assert all("score" not in record for record in region_records(label_map(codes, 3), ["a", "b", "c"], scored=False))


def test_cutouts_keep_a_labels_pixels_and_nothing_else(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)
    codes = blobs()
    paths = write_cutouts(tmp_path, image, codes, ["../a b", "absent", "../a?b"])
    assert [path.name for path in paths] == ["a_b.png", "a_b_2.png"]
    for path, code in zip(paths, (1, 3), strict=True):
        pixels = np.asarray(Image.open(path))
        np.testing.assert_array_equal(pixels[..., 3], np.where(codes == code, 255, 0))
        np.testing.assert_array_equal(pixels[..., :3], np.where((codes == code)[..., None], image, 0))


def test_scores_load_without_pickle(tmp_path):
    similarity = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4)
    path = write_scores(tmp_path / "s.npz", similarity, ["dog", "grün"], 48, 64)
    with np.load(path, allow_pickle=False) as stored:
        assert stored["similarity"].dtype == np.float16
        np.testing.assert_allclose(stored["similarity"], similarity, atol=1e-3)
        assert stored["entries"].tolist() == ["dog", "grün"]
        assert stored["image_size"].tolist() == [48, 64]
