"""Tables whose columns, captions or paths are not what they seem: read as meant, or counted and named."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from clippy_cli.data.captioned_inputs import open_captioned_data
from clippy_cli.data.tables import TableSource
from clippy_cli.errors import ClippyError
from tests.fixtures.data import encoded, noise

NAMES = ("a.png", "b.png", "c.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tables")
    for name in NAMES:
        (made / name).write_bytes(encoded(noise()))
    return made


def opened(folder: Path, text: str, **columns: str) -> tuple[list[tuple[str, ...]], list[str]]:
    """Captions of each image, and the notices."""
    (folder / "t.csv").write_text(text, encoding="utf-8")
    source = TableSource(folder / "t.csv", **columns)
    return [source.captions(index) for index in range(len(source))], [str(notice) for notice in source.notices]


@pytest.mark.parametrize(
    ("text", "captions", "notices"),
    [
        (
            "image,caption\na.png,nan\na.png,my nan\nb.png,NULL\n",
            [("my nan",)],
            [
                "1 row skipped: the caption is 'nan', which stands for nothing (line 2)",
                "1 row skipped: the caption is 'NULL', which stands for nothing (line 4)",
            ],
        ),
        (
            'image,captions\na.png,"[""red, ripe"", ""b""]"\nb.png,"[\'a dog\', \'nan\']"\nc.png,[sic] a dog\n',
            [("red, ripe", "b"), ("a dog",), ("[sic] a dog",)],
            [
                "1 row skipped: the caption is 'nan', which stands for nothing (line 3)",
                "2 rows: a list in one field, read as several captions (line 2, line 3)",
            ],
        ),
        (
            "image,caption\na.png,salt &amp; pepper\nb.png,AT&T &c\nc.png,cafÃ©\na.png,12\nb.png,a \ufffd\nc.png,...\n",
            [("salt &amp; pepper", "12"), ("AT&T &c", "a \ufffd"), ("cafÃ©", "...")],
            [
                "1 row: the caption has HTML entities, read as they stand (line 2)",
                "1 row: the caption looks like UTF-8 that was decoded as Latin-1 (line 4)",
                "1 row: the caption is a number (line 5)",
                "1 row: the caption has characters that were lost when it was decoded (U+FFFD) (line 6)",
                "1 row: the caption has no letter or digit (line 7)",
            ],
        ),
        (
            "image,caption\na.png,Ânes gris\nb.png,crème brûlée à la carte\n",
            [("Ânes gris",), ("crème brûlée à la carte",)],
            [],
        ),
        (
            "image,caption,split\na.png,x,train\nb.png,y,test\nc.png,z,train\n",
            [("x",), ("y",), ("z",)],
            [
                "1 table: holds several splits, and all of its rows are used (2 train, 1 test). Write the rows of one "
                "split to a table."
            ],
        ),
        ("image,caption,split\na.png,x,train\nb.png,y,train\n", [("x",), ("y",)], []),
        ("image,caption,,\na.png,x\nb.png,y,,\n", [("x",), ("y",)], []),
        (
            "image,caption\na.png,x\ncaption,image\ny,b.png\n",
            [("x",), ("b.png",)],
            [
                "1 row skipped: another header; the rows after it are read by the first one (line 3)",
                "1 image skipped: no such file (y)",
            ],
        ),
        (
            "image,caption\n.//a.png,x\na.png,y\nA.PNG,z\n",
            [("x", "y"), ("z",)],
            [
                "1 image skipped: no such file (A.PNG). There is a.png: names must be the same to the letter, with "
                "their suffix."
            ],
        ),
    ],
)
def test_what_is_read_and_what_is_said(
    folder: Path, text: str, captions: list[tuple[str, ...]], notices: list[str]
) -> None:
    assert opened(folder, text) == (captions, notices)


@pytest.mark.parametrize(
    ("header", "columns", "read", "others"),
    [
        ("image,caption,caption2,caption_3", {}, "1", "caption2, caption_3"),
        ("image,caption,x,caption", {"caption_column": "caption"}, "1", "caption"),
        ("image,Caption,caption,x", {"caption_column": "caption"}, "2", ""),
        ("image,text_color,caption,x", {}, "2", ""),
    ],
)
def test_columns_that_could_be_meant(
    folder: Path, header: str, columns: dict[str, str], read: str, others: str
) -> None:
    captions, notices = opened(folder, f"{header}\na.png,no 1,no 2,no 3\n", **columns)
    assert captions == [(f"no {read}",)]
    assert [notice for notice in notices if f"others could be meant ({others})" in notice] == notices
    assert len(notices) == bool(others)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("url,caption\nhttp://host/a.png,x\n", "not downloaded"),
        ("image,caption\nhttp://host/a.png,x\n", "not downloaded"),
        ("image,caption\n/home/of/another/a.png,x\n", "another machine"),
        ("image,caption\na,x\nb,y\n", "There is a.png"),
    ],
)
def test_where_images_are_that_are_not_there(folder: Path, text: str, hint: str) -> None:
    with pytest.raises(ClippyError) as caught:
        opened(folder, text)
    assert caught.value.hint is not None and hint in caught.value.hint


def test_a_table_of_which_most_images_are_missing_is_refused(folder: Path) -> None:
    (folder / "m.csv").write_text("image,caption\na.png,x\n" + "".join(f"{n}.png,x\n" for n in range(1500)))
    source = TableSource(folder / "m.csv")
    assert source.missing == 1500 and source.notices.incomplete
    with pytest.raises(ClippyError, match=r"1,500 of 1,501 images do not exist, more than 50%"):
        source.refuse_doubtful(0.01, "say so")
    source.refuse_doubtful(1.0, "say so")
    (folder / "m.csv").write_text("image,caption\na.png,x\nb.png,y\nnone.png,z\n")
    TableSource(folder / "m.csv").refuse_doubtful(0.01, "say so")  # some missing ones are named alone


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.parquet", b"PAR1", "not read from .parquet files"),
        ("x.jsonl", b"{}", "not read from .jsonl files"),
        ("x.csv.gz", gzip.compress(b"image,caption\n", mtime=0), "not read from .csv.gz files"),
        ("gz.csv", gzip.compress(b"image,caption\n", mtime=0), "is not text but a .csv.gz file"),
        ("sheet.csv", b"PK\x03\x04rest", "is not text but a .zip file"),
    ],
)
def test_other_files_of_captions_are_named(folder: Path, name: str, content: bytes, said: str) -> None:
    (folder / name).write_bytes(content)
    for read in (TableSource, lambda path: open_captioned_data([str(path)])):
        with pytest.raises(ClippyError, match=said):
            read(folder / name)
