"""CSV and TSV tables of image paths and captions."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from clippy_cli.data.captions import BrokenSampleError
from clippy_cli.data.tables import TableSource
from clippy_cli.errors import ClippyError
from tests.fixtures.data import encoded, noise


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for seed, name in enumerate(("a.png", "b.png", "photos/c.png")):
        (tmp_path / name).write_bytes(encoded(noise(seed=seed)))
    return tmp_path


def table(folder: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def said(source: TableSource) -> list[str]:
    return [str(notice) for notice in source.notices]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.csv", 'image,caption\na.png,"one, two"\nb.png,three\na.png,four\n'),
        ("t.CSV", 'split,Caption,FilePath\r\ntrain,"one, two",a.png\r\ntrain,three,b.png\r\ntrain,four,a.png\r\n'),
        ("t.tsv", "title\tfilename\none, two\ta.png\nthree\tb.png\n\nfour\ta.png"),
        ("captions.txt", 'image,caption\na.png,"one,   two"\nb.png, three\na.png,four'),
        (
            "results.csv.txt",
            "image_name| comment_number| comment\na.png| 0| one, two\nb.png| 0| three\na.png| 1| four\n",
        ),
    ],
)
def test_rows_of_one_image_are_one_sample(folder: Path, name: str, text: str) -> None:
    source: TableSource = pickle.loads(pickle.dumps(TableSource(table(folder, name, text))))
    assert len(source) == 2
    assert list(source.notices) == [] and source.doubtful == 0
    assert [source.read(index).captions for index in range(2)] == [("one, two", "four"), ("three",)]
    assert [source.read(index).key for index in range(2)] == ["a.png", "b.png"]
    np.testing.assert_array_equal(source.read(1).image, noise(seed=1))
    assert "2 images with 3 captions" in source.describe()


def test_byte_order_mark_root_and_named_columns(folder: Path) -> None:
    path = table(folder, "t.csv", "Where,image,What\nc.png,none.png,schön\n", "utf-8-sig")
    source = TableSource(path, "where", "What", folder / "photos")
    assert source.read(0).captions == ("schön",)
    np.testing.assert_array_equal(source.read(0).image, noise(seed=2))
    absolute = table(folder, "u.csv", f"image,caption\n{folder / 'a.png'},x\n")
    assert TableSource(absolute, root=folder / "photos").read(0).image.shape == (12, 16, 3)


def test_incomplete_rows_are_counted(folder: Path) -> None:
    source = TableSource(table(folder, "t.csv", "image,caption\na.png,one\nb.png\n,x\nb.png,  \n"))
    assert len(source) == 1
    assert said(source) == [
        "1 row skipped: fewer fields than the 2 of the header (line 3)",
        "1 row skipped: no image (line 4)",
        "1 row skipped: no caption (line 5)",
    ]
    assert (source.rows, source.doubtful) == (4, 1) and source.notices.incomplete


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no image column"),
        ("photo,caption\na.png,x\n", "no image column.*'photo', 'caption'"),
        ("image,words\na.png,x\n", "no caption column.*'image', 'words'"),
        ("a.png,a dog\n", "first line holds 'a.png', 'a dog'"),
        ("image,caption\n", "no row"),
        ("image,caption\nx.png,one\ny.png,two\n", r"none of 2 images tried exists, such as .*x\.png"),
        ('image,caption\na.png,"' + "x" * 200_000, "no row"),
    ],
)
def test_unusable_tables_say_what_was_looked_for(folder: Path, text: str, said: str) -> None:
    with pytest.raises(ClippyError, match=said):
        TableSource(table(folder, "t.csv", text))


def test_missing_and_unreadable_tables(folder: Path) -> None:
    with pytest.raises(ClippyError, match="no such file"):
        TableSource(folder / "none.csv")
    with pytest.raises(ClippyError, match="UTF-8"):
        TableSource(table(folder, "t.csv", "image,caption\na.png,schön\n", "latin-1"))
    with pytest.raises(ClippyError, match="looked for 'pic'"):
        TableSource(table(folder, "t.csv", "image,caption\na.png,x\n"), image_column="pic")


def test_a_missing_image_breaks_its_own_sample_only(folder: Path) -> None:
    source = TableSource(table(folder, "t.csv", "image,caption\na.png,x\ngone.png,y\n"))
    assert source.read(0).captions == ("x",)
    with pytest.raises(BrokenSampleError, match=r"^[^:]*gone\.png: no such file$"):
        source.read(1)
