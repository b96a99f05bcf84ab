"""The drawn stand-in is a set like any other."""

import random

import numpy as np

from clippy_cli.waterbirds.build.backgrounds import open_backgrounds
from clippy_cli.waterbirds.build.demo import SIDE, draw_bird, write_demo
from clippy_cli.waterbirds.build.foregrounds import open_foregrounds


def test_the_same_seed_draws_the_same_birds_inside_their_masks():
    for water in (False, True):
        image, mask = draw_bird(water, random.Random(3))
        again, _ = draw_bird(water, random.Random(3))
        np.testing.assert_array_equal(image, again)
        assert image.shape == (SIDE, SIDE, 3) and set(np.unique(mask)) == {0, 255}
        assert (image[mask == 0] == 128).all() and 0.05 < (mask > 0).mean() < 0.5


def test_what_is_written_opens(tmp_path):
    birds, grounds = write_demo(tmp_path, birds=6, grounds=8)
    objects, scenes = open_foregrounds(birds), open_backgrounds(grounds)
    assert (objects.classes, len(objects)) == (("land bird", "water bird"), 6)
    assert (scenes.places, [len(files) for files in scenes.files]) == (("land", "water"), [4, 4])
    assert objects.read(1).mask.any()


def test_drawing_again_leaves_files_as_they_are(tmp_path):
    """What was built of them would be stale otherwise, and refused."""
    write_demo(tmp_path, birds=2, grounds=2)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    (mask,) = tmp_path.glob("birds/masks/land-*.png")
    mask.write_bytes(b"changed")
    write_demo(tmp_path, birds=2, grounds=2)
    again = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    assert {path for path in times if again[path] != times[path]} == {mask} and mask.read_bytes()[:4] == b"\x89PNG"
