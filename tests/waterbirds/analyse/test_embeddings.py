"""Objects on backgrounds through the colour model, whose embeddings are worked out by hand."""

import math

import numpy as np
import pytest
from PIL import Image

from clippy_cli.errors import ClippyError
from clippy_cli.waterbirds.analyse.embeddings import draw_crossing, embed_crossing, object_patches
from clippy_cli.waterbirds.analyse.figures import drift, variance_shares
from clippy_cli.waterbirds.build.backgrounds import Backgrounds, open_backgrounds
from clippy_cli.waterbirds.build.foregrounds import Foregrounds, open_foregrounds
from tests.fixtures.bird_trees import write_file
from tests.fixtures.colour_model import ColourModel
from tests.fixtures.data import encoded

RED, BLUE, GREEN, MAGENTA, WHITE = (255, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 255), (255, 255, 255)


def plain(colour, height=16, width=16):
    return np.full((height, width, 3), colour, np.uint8)


@pytest.fixture
def trees(tmp_path):
    """Red and magenta objects in the first of 2x2 patches of white photos; blue and green backgrounds; three each."""
    mask = np.zeros((16, 16), np.uint8)
    mask[:8, :8] = 1
    lines = ["key,class"]
    for name, colour in (("red", RED), ("violet", MAGENTA)):
        for number in range(3):
            key, photo = f"{name}_{number}", plain(WHITE)
            photo[:8, :8] = colour
            write_file(tmp_path / f"birds/images/{key}.png", encoded(photo))
            write_file(tmp_path / f"birds/masks/{key}.png", encoded(Image.fromarray(mask)))
            lines.append(f"{key},{name}")
    write_file(tmp_path / "birds/classes.csv", "\n".join(lines) + "\n")
    for place, colour in (("lake", BLUE), ("wood", GREEN)):
        for number in range(3):
            write_file(tmp_path / f"places/{place}/{number}.png", encoded(plain(colour, 20, 24)))
    return tmp_path


def opened(trees) -> tuple[Foregrounds, Backgrounds]:
    return open_foregrounds(trees / "birds"), open_backgrounds(trees / "places")


def crossed(trees, *, objects=6, scenes=6, batch_size=16, seed=0):
    crossing = draw_crossing(*opened(trees), objects=objects, scenes=scenes, resolution=16, seed=seed)
    return crossing, embed_crossing(ColourModel(), crossing, resolution=16, batch_size=batch_size)


def test_embeddings_by_hand(trees):
    _, found = crossed(trees, objects=4, scenes=4)
    assert found.classes.tolist() == found.places.tolist() == [0, 0, 1, 1]
    pooled, patches = found.by_readout["pooled"], found.by_readout["bird patches"]
    assert pooled.shape == patches.shape == (4, 4, 3)
    np.testing.assert_allclose(patches[:2], np.broadcast_to([1, 0, 0], (2, 4, 3)), atol=1e-6)
    np.testing.assert_allclose(patches[2:], np.broadcast_to([0.5**0.5, 0, 0.5**0.5], (2, 4, 3)), atol=1e-6)
    # One patch of the object and three of the background: red and blue are (1,0,3), magenta and blue (1,0,4).
    np.testing.assert_allclose(pooled[0, 0], np.array([1, 0, 3]) / 10**0.5, atol=1e-6)
    np.testing.assert_allclose(pooled[0, 3], np.array([1, 3, 0]) / 10**0.5, atol=1e-6)
    np.testing.assert_allclose(pooled[3, 1], np.array([1, 0, 4]) / 17**0.5, atol=1e-6)
    assert drift(patches).mean == pytest.approx(0, abs=1e-6)
    assert drift(pooled).per_bird[:2] == pytest.approx(1 - math.sqrt(2**2 + 3**2 + 3**2) / (2 * 10**0.5), abs=1e-6)
    shares = variance_shares(patches.reshape(-1, 3), np.repeat(found.classes, 4), np.tile(found.places, 4))
    assert (shares.bird, shares.place) == pytest.approx((1, 0), abs=1e-6)


def test_embeddings_do_not_depend_on_the_batch(trees):
    for alone, together in zip(
        *(crossed(trees, batch_size=size)[1].by_readout.values() for size in (1, 16)), strict=True
    ):
        np.testing.assert_allclose(alone, together, atol=1e-6)


def test_the_draw_is_balanced_and_follows_the_seed(trees, caplog):
    draws = [crossed(trees, objects=5, scenes=4, seed=seed)[0] for seed in (0, 0, 1, 2, 3)]
    for draw in draws:
        assert [index // 3 for index in draw.objects] == [photo.place for photo in draw.backgrounds] == [0, 0, 1, 1]
        assert len(draw) == 16
    names = [(draw.objects, tuple(photo.name for photo in draw.backgrounds)) for draw in draws]
    assert names[0] == names[1] and len(set(names)) > 2
    assert not caplog.messages
    (trees / "places/wood/2.png").unlink()
    assert [photo.place for photo in crossed(trees)[0].backgrounds] == [0, 0, 1, 1]
    assert caplog.messages == ["4 backgrounds are taken, not 6, as many of each kind: there are 3 lake, 2 wood"]


def test_large_backgrounds_are_kept_small(trees):
    write_file(trees / "places/lake/0.png", encoded(plain(BLUE, 200, 400)))
    shapes = {photo.name: photo.image.shape for photo in crossed(trees)[0].backgrounds}
    assert shapes["lake/0.png"] == (32, 64, 3) and shapes["lake/1.png"] == (20, 24, 3)


def test_what_cannot_be_read_is_left_out_and_named(trees):
    write_file(trees / "birds/images/red_1.png", b"no image")
    write_file(trees / "places/wood/0.png", b"")
    crossing, found = crossed(trees)
    assert len(crossing.failed) == len(found.failed) == 1
    assert "wood/0.png" in crossing.failed[0] and "red_1.png" in found.failed[0]
    assert found.classes.tolist() == [0, 0, 1, 1, 1] and found.places.tolist() == [0, 0, 0, 1, 1]
    assert found.by_readout["pooled"].shape == (5, 5, 3)
    write_file(trees / "birds/masks/red_0.png", encoded(Image.fromarray(np.zeros((16, 16), np.uint8))))
    with pytest.raises(ClippyError, match=r"1 red, 3 violet could be used\n(.|\n)*red_0.png"):
        crossed(trees)
    write_file(trees / "places/wood/1.png", b"")
    with pytest.raises(ClippyError, match=r"3 lake, 1 wood could be used\n.*wood/0.png"):
        crossed(trees)


def test_patches_of_an_object():
    mask = np.zeros((16, 24), bool)
    mask[:8, :12] = True  # a patch and half of the next
    assert object_patches(mask, 2, 3).tolist() == [[True, True, False], [False] * 3]
    small = np.zeros((16, 24), bool)
    small[9:12, 1:3] = small[9:12, 17:21] = True
    assert object_patches(small, 2, 3).tolist() == [[False] * 3, [False, False, True]]
    graded = np.zeros((16, 24), np.uint8)
    graded[:8, :8], graded[8:, 8:16] = 102, 204
    assert object_patches(graded, 2, 3).tolist() == [[False] * 3, [False, True, False]]
