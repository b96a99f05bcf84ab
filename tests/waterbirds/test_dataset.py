"""The reader of Waterbirds, on small sets in the published layout."""

import numpy as np
import pytest
from PIL import Image

from clippy_cli.errors import ClippyError
from clippy_cli.waterbirds.dataset import open_waterbirds
from tests.fixtures.bird_trees import HEADER, write_file, write_waterbirds

PUBLISHED = "waterbird_complete95_forest2water2"
TRAIN, VAL, TEST = range(3)
ROWS = [
    *[(0, TRAIN, 0)] * 4, *[(0, TRAIN, 1)] * 2, (1, TRAIN, 0), *[(1, TRAIN, 1)] * 3,
    (0, VAL, 0), (1, VAL, 1),
    (1, TEST, 0), (0, TEST, 1), (0, TEST, 0),
]  # fmt: skip


@pytest.mark.parametrize("below", [PUBLISHED, "waterbirds", "waterbirds_v1.0", "."])
def test_a_set_is_found_where_it_is_unpacked(tmp_path, below):
    write_waterbirds(tmp_path / below, ROWS)
    assert len(open_waterbirds(tmp_path, "test")) == 3
    assert len(open_waterbirds(tmp_path / below, "val")) == 2


def test_rows_become_birds_on_places(tmp_path):
    names = write_waterbirds(tmp_path / PUBLISHED, ROWS)
    birds = open_waterbirds(tmp_path, "test")
    assert [birds.key(index) for index in range(3)] == names[-3:]
    assert [birds.group(index) for index in range(3)] == [2, 1, 0]
    assert birds.counts == (1, 1, 1, 0)
    assert birds.train_counts == (4, 2, 1, 3)
    assert (birds.birds, birds.places) == (("land bird", "water bird"), ("land", "water"))
    read = birds.read(0)
    assert (read.key, read.bird, read.place) == (names[-3], 1, 0)
    with Image.open(tmp_path / PUBLISHED / names[-3]) as picture:
        np.testing.assert_array_equal(read.image, np.asarray(picture))


def test_only_the_published_set_has_a_published_size(tmp_path):
    write_waterbirds(tmp_path / PUBLISHED, ROWS)
    write_waterbirds(tmp_path / "mine", ROWS)
    sizes = [open_waterbirds(tmp_path, split).info.complete for split in ("train", "val", "test")]
    assert sizes == [4795, 1199, 5794]
    assert open_waterbirds(tmp_path / "mine", "test").info.complete is None
    write_file(tmp_path / PUBLISHED / "build.json", '{"classes": ["cat", "dog"], "places": ["road", "sea"]}')
    built = open_waterbirds(tmp_path, "test")
    assert (built.info.complete, built.birds, built.places) == (None, ("cat", "dog"), ("road", "sea"))


def test_a_table_of_the_published_size_is_the_published_set_by_any_name(tmp_path):
    rows = "".join(f"{index},a/{index}.jpg,0,{(index > 4794) + (index > 5993)},0,\n" for index in range(11788))
    write_file(tmp_path / "waterbirds/metadata.csv", f"{HEADER}\n{rows}")
    birds = open_waterbirds(tmp_path, "val")
    assert (len(birds), birds.info.complete, birds.info.name) == (1199, 1199, "waterbirds")


GOOD = "1,a.jpg,0,2,0,/b.jpg\n"


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ("", "no column img_filename, y, split, place; the first line holds nothing"),
        ("img_id,img_filename,label,split\n", "no column y, place; .* 'label'"),
        (f"{HEADER}\n{GOOD}2,b.jpg,2,2,0,\n", "metadata.csv:3: y must be 0 or 1, it is '2'"),
        (f"{HEADER}\n2,b.jpg,0,-1,0,\n", "metadata.csv:2: split must be 0 or 1 or 2, it is '-1'"),
        (f"{HEADER}\n2,b.jpg,0,2\n", "metadata.csv:2: place must be 0 or 1, it is ''"),
        (f"{HEADER}\n2,b.jpg,0,2,²,\n", "metadata.csv:2: place must be 0 or 1"),
        (f"{HEADER}\n2,../b.jpg,0,2,0,\n", r"metadata.csv:2: '\.\./b.jpg' does not name"),
        (f"{HEADER}\n2,/etc/b.jpg,0,2,0,\n", "metadata.csv:2: '/etc/b.jpg' does not name"),
        (f"{HEADER}\n2,,0,2,0,\n", "metadata.csv:2: '' does not name"),
        (f"{HEADER}\n{GOOD}{GOOD}", "metadata.csv:3: 'a.jpg' is there twice, in line 2"),
        (f"{HEADER}\n1,a.jpg,0,0,0,\n", "the test split is empty; the table has 1 train, 0 val, 0 test"),
        ("\udcff", "cannot be read as UTF-8"),
        (f'{HEADER}\n1,"{"a" * 140_000},0,2,0,\n', "metadata.csv:.*field larger"),
    ],
)
def test_what_is_wrong_in_the_table_is_named(tmp_path, table, problem):
    write_file(tmp_path / "metadata.csv", table.encode("utf-8", "surrogateescape"))
    with pytest.raises(ClippyError, match=problem):
        open_waterbirds(tmp_path, "test")


def test_what_is_not_there_is_named(tmp_path):
    write_file(tmp_path / "birds.zip", "")
    with pytest.raises(ClippyError, match=r"(?s)001.Black_footed.*waterbirds_v1.0.*holds birds.zip") as missing:
        open_waterbirds(tmp_path, "test")
    assert "group_DRO" in missing.value.hint
    assert "clippy waterbirds build" in missing.value.hint
    with pytest.raises(ClippyError, match="no such folder"):
        open_waterbirds(tmp_path / "nowhere", "test")
    with pytest.raises(ClippyError, match="'dev' is no split"):
        open_waterbirds(tmp_path, "dev")
    write_file(tmp_path / "build.json", "{}")
    with pytest.raises(ClippyError, match="not finished"):
        open_waterbirds(tmp_path, "test")


def test_unusable_images_are_named_when_read(tmp_path):
    names = write_waterbirds(tmp_path, ROWS)
    birds = open_waterbirds(tmp_path, "test")
    (tmp_path / names[-1]).unlink()
    damaged = tmp_path / names[-2]
    damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(ClippyError, match=f"{names[-1]}: no such file"):
        birds.read(2)
    with pytest.raises(ClippyError, match=f"{names[-2]}: damaged"):
        birds.read(1)
    write_file(tmp_path / "build.json", '{"classes": ["cat"]}')
    with pytest.raises(ClippyError, match=r"build\.json: does not say"):
        open_waterbirds(tmp_path, "test")
