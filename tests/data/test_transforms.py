"""Crops and resizes against plain NumPy and Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from clippy_cli.data.pictures import ArrayPicture, EncodedPicture
from clippy_cli.data.transforms import TrainTransform, choose_reduction
from tests.fixtures.data import encoded, noise


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("height", "width"), [(64, 100), (101, 64), (64, 64)])
def test_plain_transform_is_the_centred_square(height: int, width: int) -> None:
    image = noise(height, width)
    top, left = (height - 64) // 2, (width - 64) // 2
    square = image[top : top + 64, left : left + 64]
    np.testing.assert_array_equal(TrainTransform()(ArrayPicture(image), rng(), 64), square)
    halved = square.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(TrainTransform()(ArrayPicture(image), rng(), 32) - halved).max() <= 0.5


def test_enlarging_is_close_to_pillows_bicubic() -> None:
    image = np.array(Image.fromarray(noise(6, 6)).resize((48, 48), Image.Resampling.BICUBIC))
    expected = np.array(Image.fromarray(image).resize((96, 96), Image.Resampling.BICUBIC))
    assert np.abs(TrainTransform()(ArrayPicture(image), rng(), 96).astype(int) - expected).mean() < 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (7, 300)])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.2, 0.6)])
def test_any_picture_becomes_a_square(height: int, width: int, scale: tuple[float, float]) -> None:
    square = TrainTransform(scale, flip=True)(ArrayPicture(noise(height, width)), rng(), 16)
    assert square.shape == (16, 16, 3)
    assert square.dtype == np.uint8
    assert square.flags.c_contiguous


def test_random_crops_have_the_wanted_area_and_repeat_by_seed() -> None:
    rows, columns = np.mgrid[0:200, 0:240]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    picture, transform = ArrayPicture(image), TrainTransform((0.3, 0.5))
    shares, corners = [], set()
    for seed in range(60):
        square = transform(picture, rng(seed), 64).astype(int)
        np.testing.assert_array_equal(square, transform(picture, rng(seed), 64))
        height, width = np.ptp(square[..., 0]) * 64 / 63, np.ptp(square[..., 1]) * 64 / 63
        shares.append(height * width / (200 * 240))
        corners.add((square[0, 0, 0], square[0, 0, 1]))
        assert 0.7 < width / height < 1.43
    assert 0.28 < min(shares) < 0.34
    assert 0.46 < max(shares) < 0.52
    assert len(corners) > 50


def test_flip_mirrors_half_of_the_pictures() -> None:
    image = noise(8, 8)
    results = [TrainTransform(flip=True)(ArrayPicture(image), rng(seed), 8) for seed in range(200)]
    mirrored = sum(bool((result == image[:, ::-1]).all()) for result in results)
    assert all((result == image).all() or (result == image[:, ::-1]).all() for result in results)
    assert 70 < mirrored < 130


def gradient(height: int, width: int) -> NDArray[np.uint8]:
    """Rows in the first channel, columns in the second, both from 0 to 255."""
    rows, columns = np.mgrid[0 : 255 : height * 1j, 0 : 255 : width * 1j]
    return np.rint(np.stack([rows, columns, np.full_like(rows, 128)], axis=-1)).astype(np.uint8)


@pytest.mark.parametrize(("seed", "box"), [(0, (14, 4, 153, 134)), (1, (2, 11, 122, 158)), (2, (26, 96, 138, 123))])
def test_draws_are_those_of_earlier_releases(seed: int, box: tuple[int, int, int, int]) -> None:
    top, left, height, width = box
    generator = rng(seed)
    square = TrainTransform((0.3, 0.5), flip=True)(ArrayPicture(gradient(200, 240)), generator, 64)
    square = square[:, ::-1] if square[0, 0, 1] > square[0, -1, 1] else square
    expected = gradient(200, 240)[top : top + height, left : left + width]
    for corner in ((0, 0), (-1, -1)):
        assert np.abs(square[corner].astype(int) - expected[corner]).max() <= 2


@given(st.integers(1, 5000), st.integers(1, 512))
def test_the_largest_reduction_that_needs_no_enlarging(short_side: int, side: int) -> None:
    reduction = choose_reduction(short_side, side)
    assert reduction in (1, 2, 4, 8)
    assert reduction == 1 or short_side / reduction >= side
    assert reduction == 8 or short_side / (2 * reduction) < side


class Reduced(EncodedPicture):
    """Notes what it is asked for."""

    asked = 0

    def pixels(self, reduction: int = 1) -> NDArray[np.uint8]:
        self.asked = reduction
        return super().pixels(reduction)


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize(("height", "width", "reduction"), [(197, 301, 2), (260, 331, 4), (900, 523, 8), (63, 90, 1)])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.9, 1.0)])
def test_a_reduced_picture_gives_nearly_the_same_square(
    height: int, width: int, reduction: int, scale: tuple[float, float], orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Reduced(encoded(gradient(height, width), "JPEG", quality=95, exif=exif), "x")
    whole = ArrayPicture(picture.pixels())
    transform = TrainTransform(scale, flip=True)
    mine, theirs = rng(3), rng(3)
    square, expected = transform(picture, mine, 56), transform(whole, theirs, 56)
    assert picture.asked == reduction
    assert mine.random() == theirs.random()
    assert np.abs(square.astype(int) - expected).max() <= 255 / 56  # one pixel of the square
    assert np.abs(square.astype(int) - expected).mean() < 1.5
