"""Crops and resizes against plain NumPy and Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from clippy_cli.data.transforms import TrainTransform
from tests.fixtures.data import noise


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("height", "width"), [(64, 100), (101, 64), (64, 64)])
def test_plain_transform_is_the_centred_square(height: int, width: int) -> None:
    image = noise(height, width)
    top, left = (height - 64) // 2, (width - 64) // 2
    square = image[top : top + 64, left : left + 64]
    np.testing.assert_array_equal(TrainTransform(64)(image, rng()), square)
    halved = square.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(TrainTransform(32)(image, rng()) - halved).max() <= 0.5


def test_enlarging_is_close_to_pillows_bicubic() -> None:
    image = np.array(Image.fromarray(noise(6, 6)).resize((48, 48), Image.Resampling.BICUBIC))
    expected = np.array(Image.fromarray(image).resize((96, 96), Image.Resampling.BICUBIC))
    assert np.abs(TrainTransform(96)(image, rng()).astype(int) - expected).mean() < 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (7, 300)])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.2, 0.6)])
def test_any_picture_becomes_a_square(height: int, width: int, scale: tuple[float, float]) -> None:
    square = TrainTransform(16, scale, flip=True)(noise(height, width), rng())
    assert square.shape == (16, 16, 3)
    assert square.dtype == np.uint8
    assert square.flags.c_contiguous


def test_random_crops_have_the_wanted_area_and_repeat_by_seed() -> None:
    rows, columns = np.mgrid[0:200, 0:240]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    transform = TrainTransform(64, (0.3, 0.5))
    shares, corners = [], set()
    for seed in range(60):
        square = transform(image, rng(seed)).astype(int)
        np.testing.assert_array_equal(square, transform(image, rng(seed)))
        height, width = np.ptp(square[..., 0]) * 64 / 63, np.ptp(square[..., 1]) * 64 / 63
        shares.append(height * width / (200 * 240))
        corners.add((square[0, 0, 0], square[0, 0, 1]))
        assert 0.7 < width / height < 1.43
    assert 0.28 < min(shares) < 0.34
    assert 0.46 < max(shares) < 0.52
    assert len(corners) > 50


def test_flip_mirrors_half_of_the_pictures() -> None:
    image = noise(8, 8)
    results = [TrainTransform(8, flip=True)(image, rng(seed)) for seed in range(200)]
    mirrored = sum(bool((result == image[:, ::-1]).all()) for result in results)
    assert all((result == image).all() or (result == image[:, ::-1]).all() for result in results)
    assert 70 < mirrored < 130
