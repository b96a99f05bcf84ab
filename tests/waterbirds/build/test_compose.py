"""Pasting: what lies inside the mask, what outside, and how a background is cut to size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clippy_cli.errors import ClippyError
from clippy_cli.waterbirds.build.compose import compose, fit_background
from tests.fixtures.data import noise

LANCZOS = Image.Resampling.LANCZOS


def test_the_object_inside_the_mask_and_the_background_outside():
    image, background = noise(20, 30, seed=1), noise(50, 41, seed=2)
    mask = np.random.default_rng(3).random((20, 30)) < 0.4
    behind = fit_background(background, 20, 30)
    for form in (mask, mask.astype(np.uint8) * 255):
        placed = compose(image, form, background)
        np.testing.assert_array_equal(placed[mask], image[mask])
        np.testing.assert_array_equal(placed[~mask], behind[~mask])


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_a_graded_mask_mixes(values):
    front, opacity, back = values
    pixel = [np.full((1, 1, 3), value, np.uint8) for value in (front, back)]
    (mixed,) = set(compose(pixel[0], np.full((1, 1), opacity, np.uint8), pixel[1]).ravel().tolist())
    exact = (front * opacity + back * (255 - opacity)) / 255
    assert abs(mixed - exact) <= 1


# (width, height) of the background, then the box that stays, by hand from the published rule.
@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((40, 20), (10, 0, 30, 20)),  # wider: left and right go
        ((21, 60), (0, 19, 21, 41)),  # higher; of an odd rest a row stays
        ((10, 10), (0, 0, 10, 10)),
    ],
)
def test_larger_backgrounds_are_cropped_then_shrunk(size, box):
    background = noise(size[1], size[0])
    expected = Image.fromarray(background).crop(box).resize((10, 10), LANCZOS)
    np.testing.assert_array_equal(fit_background(background, 10, 10), np.asarray(expected))


@pytest.mark.parametrize(
    ("size", "enlarged", "box"),
    [
        ((5, 20), (10, 40), (0, 15, 10, 25)),  # to the width
        ((20, 5), (40, 10), (15, 0, 25, 10)),  # the width would not do: to the height
    ],
)
def test_smaller_backgrounds_are_enlarged_first(size, enlarged, box):
    background = noise(size[1], size[0])
    expected = Image.fromarray(background).resize(enlarged, LANCZOS).crop(box)
    np.testing.assert_array_equal(fit_background(background, 10, 10), np.asarray(expected))


SIDE = st.integers(1, 70)


@given(SIDE, SIDE, SIDE, SIDE)
def test_any_background_fits_any_photo(height, width, target_height, target_width):
    background = np.full((height, width, 3), 77, np.uint8)
    fitted = fit_background(background, target_height, target_width)
    assert fitted.shape == (target_height, target_width, 3)
    assert np.all(fitted == 77)


def test_a_background_that_would_grow_without_bounds_is_refused():
    with pytest.raises(ClippyError, match="10x1000 pixels would have to grow to 20000x2000000"):
        fit_background(np.zeros((1000, 10, 3), np.uint8), 10, 20000)
