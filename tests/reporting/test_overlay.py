"""Overlays: the photo stays visible, the legend stays below it."""

import numpy as np
import pytest

from clippy_cli.reporting.overlay import LegendItem, draw_legend, draw_overlay, shown_size, tint
from clippy_cli.reporting.palette import colour


def test_labelled_pixels_are_tinted_and_unlabelled_ones_are_not():
    image = np.full((640, 640, 3), 100, np.uint8)
    codes = np.zeros((640, 640), np.int16)
    codes[:, 320:] = 2
    shown = tint(image, codes)
    np.testing.assert_array_equal(shown[:, :300], image[:, :300])
    np.testing.assert_array_equal(shown[5, 500], np.rint((100 + np.array(colour(2))) / 2))
    assert (shown[:, 319].astype(int) > 200).all()  # a light line parts the two


@pytest.mark.parametrize(
    ("size", "shown"),
    [((480, 640), (480, 640)), ((30, 60), (320, 640)), ((3000, 4096), (1500, 2048)), ((1, 50), (13, 640))],
)
def test_shown_size_keeps_the_aspect(size, shown):
    assert shown_size(*size) == shown


@pytest.mark.parametrize("count", [0, 1, 3, 150])
@pytest.mark.parametrize("size", [(480, 640), (1000, 10)])
def test_the_legend_lies_below_the_photo_however_long_it_is(count, size):
    image = np.zeros((*size, 3), np.uint8)
    codes = np.zeros(size, np.int16)
    height, width = shown_size(*size)
    legend = [LegendItem(colour(code + 1), f"label number {code} " + "long " * (code % 30)) for code in range(count)]
    picture = np.asarray(draw_overlay(image, codes, legend))
    assert (picture[:height, :width] == 0).all()
    below = picture[height:]
    assert (below.shape[0] > 0) == (count > 0)
    colours = {tuple(rgb) for rgb in np.unique(below[::3, ::3].reshape(-1, 3), axis=0).tolist()}
    assert {item.rgb for item in legend} <= colours
    if count:
        assert (below[:, -3:] == 255).all()  # nothing runs over the right edge
        assert (below[-2:] == 255).all()


def test_a_long_word_is_broken_and_takes_lines():
    short = draw_legend([LegendItem((1, 2, 3), "word")], 320)
    long = draw_legend([LegendItem((1, 2, 3), "w" * 200)], 320)
    assert long.height > 3 * short.height
    assert (np.asarray(long)[:, -3:] == 255).all()
