"""Building a set: what is on disk, going on after an interruption, and what is refused."""

import csv
import logging
import os

import numpy as np
import pytest
from PIL import Image

from clippy_cli.data.images import read_image
from clippy_cli.errors import ClippyError
from clippy_cli.waterbirds.build.backgrounds import open_backgrounds
from clippy_cli.waterbirds.build.build import build_set
from clippy_cli.waterbirds.build.compose import compose
from clippy_cli.waterbirds.build.foregrounds import open_foregrounds
from clippy_cli.waterbirds.dataset import open_waterbirds
from tests.fixtures.bird_trees import LAND, WATER, write_cub, write_file, write_objects, write_places
from tests.fixtures.data import encoded, noise

BIRDS = [*[(LAND, True)] * 10, *[(WATER, True)] * 10, *[(LAND, False)] * 4, *[(WATER, False)] * 2]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    write_cub(root / "birds", BIRDS)
    write_places(root / "places", 8)
    return open_foregrounds(root / "birds"), open_backgrounds(root / "places")


@pytest.fixture(scope="module")
def built(sources, tmp_path_factory):
    out = tmp_path_factory.mktemp("built") / "set"
    return build_set(*sources, out, strength=0.75, seed=4, workers=1)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_built_set_is_read_as_the_published_one_is(sources, built):
    birds, places = sources
    with (built.folder / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["img_id"] for row in rows] == [str(number) for number in range(1, 27)]
    assert [row["img_filename"] for row in rows] == [file.key for file in birds.files]
    assert built.counts["test"] == (2, 2, 1, 1)
    for split, counts in built.counts.items():
        images = open_waterbirds(built.folder, split)
        assert (images.counts, images.birds, images.places) == (counts, ("land bird", "water bird"), ("land", "water"))
        assert images.info.complete is None
        for index in range(len(images)):
            row = next(row for row in rows if row["img_filename"] == images.key(index))
            placed = images.read(index)
            foreground = birds.read(rows.index(row))
            assert row["place_filename"].removeprefix("/") in places.files[placed.place]
            assert placed.bird == foreground.class_index
            background = read_image(places.folder / row["place_filename"].removeprefix("/"))
            exact = compose(foreground.image, foreground.mask, background)
            expected = encoded(exact, "JPEG", quality=95)
            assert (built.folder / placed.key).read_bytes() == expected
    assert (built.written, built.kept, built.reused) == (26, 0, (0, 0))


def test_the_number_of_workers_changes_nothing(sources, built, tmp_path):
    build_set(*sources, tmp_path / "set", strength=0.75, seed=4, workers=3)
    assert contents(tmp_path / "set") == contents(built.folder)


def test_an_interrupted_build_goes_on(sources, built, tmp_path):
    out, done = tmp_path / "set", 0

    def interrupt():
        nonlocal done
        done += 1
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_set(*sources, out, strength=0.75, seed=4, workers=2, on_progress=interrupt)
    left = contents(out)
    assert "metadata.csv" not in left
    assert not [name for name in left if name.endswith(".part")]
    assert left.items() <= contents(built.folder).items()
    with pytest.raises(ClippyError, match="not finished"):
        open_waterbirds(out, "train")
    report = build_set(*sources, out, strength=0.75, seed=4, workers=2)
    assert (report.written, report.kept) == (27 - len(left), len(left) - 1)
    assert contents(out) == contents(built.folder)


def test_missing_and_damaged_images_are_made_again(sources, built, tmp_path):
    out = tmp_path / "set"
    build_set(*sources, out, strength=0.75, seed=4)
    names = sorted(path for path in out.rglob("*.jpg"))
    names[0].unlink()
    names[1].write_bytes(names[1].read_bytes()[:-30])
    names[2].write_bytes(b"")
    calls = []
    report = build_set(*sources, out, strength=0.75, seed=4, on_progress=lambda: calls.append(1))
    assert (report.written, report.kept, len(calls)) == (3, 23, 26)
    assert contents(out) == contents(built.folder)


def test_another_plan_into_the_same_folder_is_refused(sources, built, tmp_path):
    before = contents(built.folder)
    for change, problem in (
        ({"strength": 0.5}, "strength was 0.75, now 0.5"),
        ({"seed": 5}, "seed was 4, now 5"),
    ):
        with pytest.raises(ClippyError, match=problem):
            build_set(*sources, built.folder, **({"strength": 0.75, "seed": 4} | change))
    write_cub(tmp_path / "birds", BIRDS)
    changed = tmp_path / "birds/CUB_200_2011/images" / sources[0].files[0].key
    write_file(changed, encoded(noise(11, 13, seed=99), "JPEG", quality=10))
    with pytest.raises(ClippyError, match="another set: its photos, masks or backgrounds were others"):
        build_set(open_foregrounds(tmp_path / "birds"), sources[1], built.folder, strength=0.75, seed=4)
    assert contents(built.folder) == before


def test_a_photo_of_the_same_size_that_is_newer_is_named(sources, tmp_path):
    out = build_set(*sources, tmp_path / "out").folder
    photo = sources[0].files[0].image
    times, later = photo.stat(), (out / "build.json").stat().st_mtime_ns + 10**9
    os.utime(photo, ns=(later, later))
    try:
        with pytest.raises(ClippyError, match=f"were others .1 modified since: {photo}"):
            build_set(*sources, out)
    finally:
        os.utime(photo, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert build_set(*sources, out).written == 0


@pytest.mark.parametrize(
    ("file", "problem"),
    [("holiday.jpg", "not empty: it holds holiday.jpg"), ("build.json", "not the plan")],
)
def test_a_folder_with_other_things_is_refused(sources, tmp_path, file, problem):
    write_file(tmp_path / file, "{}")
    with pytest.raises(ClippyError, match=problem):
        build_set(*sources, tmp_path)
    assert contents(tmp_path) == {file: b"{}"}
    with pytest.raises(ClippyError, match="is a file, not a directory"):
        build_set(*sources, tmp_path / file)


def test_objects_and_places_of_ones_own(tmp_path, caplog):
    write_objects(tmp_path / "pets", ["dog", "cat"] * 10)
    write_places(tmp_path / "scenes", 3, ["street", "lawn"])
    with caplog.at_level(logging.WARNING):
        report = build_set(
            open_foregrounds(tmp_path / "pets"), open_backgrounds(tmp_path / "scenes"), tmp_path / "out", strength=1.0
        )
    train = open_waterbirds(tmp_path / "out", "train")
    assert (train.birds, train.places) == (("cat", "dog"), ("lawn", "street"))
    assert train.counts[1] == train.counts[2] == 0
    assert train.counts[0] + train.counts[3] == 8
    assert sum(report.reused) == 20 - 6
    assert "too few backgrounds" in caplog.text


def test_an_input_that_cannot_be_used_stops_the_build_and_is_named(tmp_path):
    keys = write_objects(tmp_path / "pets", ["dog", "cat"] * 5)
    write_places(tmp_path / "scenes", 9, ["street", "lawn"])
    mask = tmp_path / f"pets/masks/{keys[6]}.png"
    write_file(mask, encoded(Image.fromarray(np.zeros((9, 11), np.uint8))))
    sources = open_foregrounds(tmp_path / "pets"), open_backgrounds(tmp_path / "scenes")
    with pytest.raises(ClippyError, match=f"{keys[6]}.png: the mask marks no pixel"):
        build_set(*sources, tmp_path / "out")
    assert not (tmp_path / "out/metadata.csv").exists()
    mask.unlink()
    with pytest.raises(ClippyError, match=f"{keys[6]}.png: cannot be read"):
        build_set(*sources, tmp_path / "other")


def test_a_key_too_long_for_a_file_name_has_no_photo(tmp_path):
    write_objects(tmp_path / "pets", ["dog", "cat"])
    with (tmp_path / "pets/classes.csv").open("a", encoding="utf-8") as table:
        table.write(f"{'d' * 300},dog\n")
    write_places(tmp_path / "scenes", 3, ["street", "lawn"])
    with pytest.raises(ClippyError, match=r"d{100}.*cannot be read|no such"):
        build_set(open_foregrounds(tmp_path / "pets"), open_backgrounds(tmp_path / "scenes"), tmp_path / "out")
