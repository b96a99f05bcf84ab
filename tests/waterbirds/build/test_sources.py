"""Objects and backgrounds in the official layouts, and in your own folders."""

import numpy as np
import pytest
from PIL import Image

from clippy_cli.errors import ClippyError
from clippy_cli.waterbirds.build.backgrounds import open_backgrounds
from clippy_cli.waterbirds.build.foregrounds import is_water_bird, open_foregrounds, water_words
from tests.fixtures.bird_trees import (
    CATEGORIES,
    LAND,
    WATER,
    graded_mask,
    write_cub,
    write_file,
    write_objects,
    write_places,
)
from tests.fixtures.data import encoded, noise

BIRDS = [(WATER, True), (LAND, True), (LAND, False)]


@pytest.mark.parametrize("inside", [False, True])
def test_birds_of_cub(tmp_path, inside):
    names = write_cub(tmp_path, BIRDS, inside=inside)
    for root in (tmp_path, tmp_path / "CUB_200_2011"):
        birds = open_foregrounds(root)
        assert birds.classes == ("land bird", "water bird")
        assert [(file.key, file.class_index, file.split) for file in birds.files] == [
            (names[0], 1, "train"),
            (names[1], 0, "train"),
            (names[2], 0, "test"),
        ]
    bird = birds.read(1)
    with Image.open(tmp_path / "CUB_200_2011/images" / names[1]) as photo:
        np.testing.assert_array_equal(bird.image, np.asarray(photo))
    np.testing.assert_array_equal(bird.mask, graded_mask(*bird.image.shape[:2]))


@pytest.mark.parametrize(
    ("species", "water"),
    [
        ("001.Black_footed_Albatross", True),
        ("086.Pacific_Loon", True),
        ("141.Artic_Tern", True),
        ("183.Northern_Waterthrush", False),
        ("079.Belted_Kingfisher", False),
        ("021.Eastern_Towhee", True),  # "tern" as published
        ("088.Western_Meadowlark", True),
    ],
)
def test_species_are_water_birds_by_the_published_rule(species, water):
    assert is_water_bird(species, water_words()) is water


def test_objects_of_ones_own(tmp_path):
    keys = write_objects(tmp_path, ["zebra", "cat", "cat"])
    objects = open_foregrounds(tmp_path)
    assert objects.classes == ("cat", "zebra")
    assert [(file.key, file.class_index, file.split) for file in objects.files] == [
        (f"{keys[0]}.jpg", 1, None),
        (f"{keys[1]}.jpg", 0, None),
        (f"{keys[2]}.jpg", 0, None),
    ]
    cat = objects.read(1)
    np.testing.assert_array_equal(cat.image, noise(9, 11, seed=1))
    np.testing.assert_array_equal(cat.mask, graded_mask(9, 11) > 0)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("", "classes.csv:1: must be key,class"),
        ("name,class\n", "classes.csv:1: must be key,class, it is 'name,class'"),
        ("key,class\na,cat\n\nb\n", "classes.csv:4: 'b' is no key and class"),
        ("key,class\n../a,cat\nb,dog\n", "classes.csv:2: '../a,cat' is no key"),
        ("key,class\na,cat\nb,cat\n", "two classes, there are 1: cat"),
        ("key,class\na,cat\nb,dog\nc,cow\n", "two classes, there are 3: cat, cow, dog"),
        ("key,class\na,cat\nA,dog\n", "'a' is there twice"),
    ],
)
def test_a_class_file_that_cannot_be_used(tmp_path, table, problem):
    write_file(tmp_path / "classes.csv", table)
    with pytest.raises(ClippyError, match=problem):
        open_foregrounds(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("images.txt", f"1 {WATER}/a.jpg\n1 {LAND}/b.jpg\n", "images.txt:2: .* is there twice"),
        ("images.txt", f"1 {WATER}/a.jpg\nsecond {LAND}/b.jpg\n", "images.txt:2: .* is no number"),
        ("images.txt", f"1 {WATER}/a.jpg\n2 ../../b.jpg\n", "images.txt:2: '../../b.jpg' is no <species>"),
        ("images.txt", f"1 {WATER}/a.jpg\n", "images.txt: lists no land bird"),
        ("images.txt", f"1 {WATER}/a.jpg\n2 {LAND}/b.jpg\n3 {LAND}/b.jpg\n", "'013.Bobolink/b' is there twice"),
        ("train_test_split.txt", "1 1\n2 7\n3 0\n", "image 2 must have 0 or 1, it has 7"),
        ("train_test_split.txt", "1 1\n", "image 2 must have 0 or 1, it has nothing"),
        ("train_test_split.txt", None, "train_test_split.txt: cannot be read"),
    ],
)
def test_tables_of_cub_that_cannot_be_used(tmp_path, file, content, problem):
    write_cub(tmp_path, BIRDS)
    path = tmp_path / "CUB_200_2011" / file
    path.unlink() if content is None else write_file(path, content)
    with pytest.raises(ClippyError, match=problem):
        open_foregrounds(tmp_path)


def test_objects_that_cannot_be_used(tmp_path):
    with pytest.raises(ClippyError, match=r"(?s)CUB_200_2011/images.txt.*It holds nothing"):
        open_foregrounds(tmp_path)
    with pytest.raises(ClippyError, match="no such folder"):
        open_foregrounds(tmp_path / "nowhere")
    keys = write_objects(tmp_path, ["cat", "dog", "dog", "dog"])
    for key, mask in zip(keys, [np.zeros((9, 11), np.uint8), np.ones((9, 12), np.uint8)], strict=False):
        write_file(tmp_path / f"masks/{key}.png", encoded(Image.fromarray(mask)))
    write_file(tmp_path / f"masks/{keys[2]}.png", b"no mask")
    (tmp_path / f"images/{keys[3]}.png").unlink()
    objects = open_foregrounds(tmp_path)
    for index, problem in enumerate(["marks no pixel", "differ in size", "a mask must be", "no such file"]):
        with pytest.raises(ClippyError, match=problem):
            objects.read(index)


def test_cub_without_its_masks(tmp_path):
    names = write_cub(tmp_path, BIRDS, inside=True)
    birds = open_foregrounds(tmp_path)
    folder = tmp_path / "CUB_200_2011/segmentations"
    write_file(folder / names[0].replace(".jpg", ".png"), b"\x89PNG\r\n")
    with pytest.raises(ClippyError, match="cannot be read as a mask"):
        birds.read(0)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ClippyError, match="the birds have no masks"):
        open_foregrounds(tmp_path)


FLAT = ("bamboo_forest", "forest/broadleaf", "ocean", "lake_natural")


@pytest.mark.parametrize(("top", "folders"), [("", CATEGORIES), ("data_large", CATEGORIES), ("", FLAT)])
def test_categories_of_places(tmp_path, top, folders):
    write_places(tmp_path / top, 2, folders)
    write_places(tmp_path / top, 1, ["a/airfield", "s/street"])
    places = open_backgrounds(tmp_path)
    assert places.places == ("land", "water")
    expected = [
        [f"{folder}/{index:08d}.jpg" for folder in pair for index in (0, 1)] for pair in (folders[:2], folders[2:])
    ]
    assert [list(files) for files in places.files] == [sorted(files) for files in expected]
    assert all((places.folder / file).is_file() for files in places.files for file in files)


def test_backgrounds_of_ones_own(tmp_path):
    write_places(tmp_path, 2, ["woods", "beach/sunny", ".hidden"])
    write_file(tmp_path / "woods/notes.txt", "")
    places = open_backgrounds(tmp_path)
    assert places.places == ("beach", "woods")
    assert places.files[0] == ("beach/sunny/00000000.jpg", "beach/sunny/00000001.jpg")
    assert places.files[1] == ("woods/00000000.jpg", "woods/00000001.jpg")


def test_backgrounds_that_cannot_be_used(tmp_path):
    with pytest.raises(ClippyError, match="no such folder"):
        open_backgrounds(tmp_path / "nowhere")
    write_places(tmp_path, 1, ["b/bamboo_forest", "o/ocean"])
    with pytest.raises(ClippyError, match="forest/broadleaf, lake/natural are missing"):
        open_backgrounds(tmp_path)
    write_places(tmp_path / "three", 1, ["x", "y", "z"])
    with pytest.raises(ClippyError, match="holds 3 folders: x, y, z"):
        open_backgrounds(tmp_path / "three")
    write_places(tmp_path / "two", 1, ["x"])
    (tmp_path / "two/y").mkdir()
    with pytest.raises(ClippyError, match="no image of y"):
        open_backgrounds(tmp_path / "two")
