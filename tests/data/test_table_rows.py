"""Rows of tables: read as they were meant, or counted and named with their lines."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clippy_cli.data import table_rows
from clippy_cli.data.table_rows import Lines, RowReader
from clippy_cli.data.tables import TableSource
from clippy_cli.errors import ClippyError
from tests.fixtures.data import encoded, noise

NAMES = ("a.png", "b.png", "c.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        (tmp_path / name).write_bytes(encoded(noise()))
    return tmp_path


def read(folder: Path, name: str, text: str | bytes) -> tuple[dict[str, tuple[str, ...]], list[str], int]:
    """Captions by image, notices, and the number of doubtful rows."""
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    source = TableSource(path)
    captions = {source.key(index): source.captions(index) for index in range(len(source))}
    return captions, [str(notice) for notice in source.notices], source.doubtful


FIELD = st.text('ab ",\n;\t|é', max_size=12)


@settings(max_examples=150)
@given(st.lists(st.tuples(FIELD, FIELD, FIELD), max_size=5), st.sampled_from(",;|"), st.booleans())
def test_what_python_writes_is_read_back(rows: list[tuple[str, str, str]], delimiter: str, always: bool) -> None:
    stream = io.StringIO()
    quoting = csv.QUOTE_ALL if always else csv.QUOTE_MINIMAL
    csv.writer(stream, delimiter=delimiter, quoting=quoting, lineterminator="\n").writerows(rows)
    text = stream.getvalue()
    reader = RowReader(
        Lines(io.StringIO(text, newline=""), Path("t.csv")),
        delimiter,
        3,
        quoted=always,
        is_row=lambda _: False,
        is_there=lambda _: False,
    )
    assert [row.fields for row in reader] == [list(row) for row in rows]


@pytest.mark.parametrize(
    ("name", "text", "captions", "said"),
    [
        (
            "t.csv",
            "image,caption\na.png,two dogs, one ball\n",
            ("two dogs, one ball",),
            "more fields .* read to the end",
        ),
        ("t.csv", "caption,image\ntwo dogs, one ball,a.png\nx,a.png\n", ("x",), r"1 row skipped: more fields .*line 2"),
        ("t.csv", "image,caption,split\na.png,dog\n", ("dog",), "fewer fields than the 3"),
        ("t.csv", "image,caption\na.png,dog,,\n", ("dog",), ""),
        ("t.csv", 'image,caption\na.png,"dog\nb.png,cat\nc.png,ox\n', ('"dog',), r"does not close .*line 2"),
        ("t.csv", 'image,caption\na.png,"dog\nb.png,a 12 inch"\n', ('"dog',), "rows of their own.*line 2"),
        ("t.csv", 'image,caption\na.png,"dog\nz.png,like so"\n', ("dog z.png,like so",), "look like rows .*line 2"),
        ("t.csv", 'image,caption\na.png,"dog\n\nand cat"\n', ("dog and cat",), ""),
        ("t.csv", 'caption,image\n"dog\nand cat",a.png\n', ("dog and cat",), ""),
        ("t.csv", 'image,caption\na.png,a 12" disk\n', ('a 12" disk',), ""),
        ("t.csv", 'image,caption\na.png,"big" dog\n', ('"big" dog',), ""),
        ("t.csv", "image;caption\na.png;dog, cat\n", ("dog, cat",), ""),
        ("t.csv", "sep=|\nimage|caption\na.png|dog\n", ("dog",), ""),
        ("t.tsv", 'image\tcaption\na.png\t"Hello" she said\n', ('"Hello" she said',), ""),
        ("t.tsv", 'image\tcaption\na.png\t"open\nb.png\tcat\nc.png\tox"\n', ('"open',), ""),
        ("t.tsv", 'image\tcaption\na.png\t"quoted"\n', ('"quoted"',), ""),
        ("t.tsv", 'image\tcaption\na.png\t"He said ""hi"""\n', ('He said "hi"',), ""),
        ("t.tsv", 'image\tcaption\na.png\t"one\ttwo"\n', ("one two",), ""),
        ("t.tsv", 'image\tcaption\na.png\t"one\ntwo"\n', ("one two",), ""),
        ("t.tsv", "image,caption\na.png,dog\n", ("dog",), ""),
    ],
)
def test_doubtful_rows_are_named(folder: Path, name: str, text: str, captions: tuple[str, ...], said: str) -> None:
    found, notices, doubtful = read(folder, name, text)
    assert found["a.png"] == captions
    if said:
        assert doubtful == 1
        assert re.search(said, notices[0]), notices
    else:
        assert notices == [] and doubtful == 0
    assert len(found) == 1 + text.count("\nb.png") + text.count("\nc.png")  # no row is swallowed


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings(folder: Path, codec: str) -> None:
    found, notices, _ = read(folder, "t.csv", "image,caption\r\na.png,schöne Kühe\r\n".encode(codec))
    assert found == {"a.png": ("schöne Kühe",)}
    assert bool(notices) == (codec in ("utf-16-le", "utf-16-be"))


def test_names_that_lead_to_no_file_as_written(folder: Path) -> None:
    (folder / "my photos").mkdir()
    accented = unicodedata.normalize("NFC", "é.png")
    for name in ("my photos/d.png", accented):
        (folder / name).write_bytes(encoded(noise()))
    rows = ["my photos\\d.png", "my%20photos/d.png", (folder / "a.png").as_uri(), "./a.png", "100%.png"]
    rows.append(unicodedata.normalize("NFD", accented))
    lines = (f"{row},x{at}\n" for at, row in enumerate(rows))
    found, notices, _ = read(folder, "t.csv", f"image,caption\n{''.join(lines)}")
    assert found == {
        "my photos/d.png": ("x0", "x1"),
        str(folder / "a.png"): ("x2",),
        "a.png": ("x3",),
        "100%.png": ("x4",),
        accented: ("x5",),
    }
    assert [notice.partition(" (")[0] for notice in notices] == [
        "1 image skipped: no such file",
        "1 row: Windows path, read with /",
        "2 rows: percent-encoded path, decoded",
        "1 row: path in another Unicode normal form",
    ]


def test_joined_tables_and_repeated_rows(folder: Path) -> None:
    text = "image,caption\na.png,dog\n"
    found, notices, doubtful = read(folder, "t.csv", text + "\ufeff" + text)
    assert found == {"a.png": ("dog", "dog")} and doubtful == 0
    assert notices == [
        "1 row ignored: the header again (line 3)",
        "1 row: word for word an earlier row; both count (line 4)",
    ]


def test_columns_that_could_be_meant_are_named(folder: Path) -> None:
    _, notices, _ = read(folder, "t.csv", "image,text,caption\na.png,dog,cat\n")
    assert notices == [
        "1 table: column 'caption' is read, though others could be meant (text). "
        "Name it with --caption-column or caption_column."
    ]
    _, notices, _ = read(folder, "t.csv", "image,caption,Caption\na.png,dog,cat\n")
    assert "column 'caption' is read" in notices[0]


def test_rows_that_no_file_can_mean(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, notices, _ = read(folder, "t.csv", f"image,caption\na.png,{'x' * 140_000}\na.png,\0\nb.png,x\n")
    assert notices == [
        "1 row skipped: a field of more than 131,072 characters (line 2)",
        "1 row skipped: a NUL character (line 3)",
    ]
    with pytest.raises(ClippyError, match="none of 1 images tried exists") as caught:
        read(folder, "t.csv", f"image,caption\n{'x' * 5000}.png,x\n")  # no file system has such names
    assert len(caught.value.message) < 1000
    monkeypatch.setattr(table_rows, "MAX_LINE", 100)
    with pytest.raises(ClippyError, match="line 2 is longer than 100 characters"):
        read(folder, "t.csv", f"image,caption\na.png,{'x' * 200}\n")
    with pytest.raises(ClippyError, match="line 3 is not UTF-8"):
        read(folder, "t.csv", "image,caption\na.png,x\nb.png,schön\n".encode("latin-1"))


def test_too_many_doubtful_rows_are_refused(folder: Path) -> None:
    rows = "".join(f"a.png,caption {number}\n" for number in range(199))
    path = folder / "t.csv"
    path.write_text(f"image,caption\n{rows}b.png,one, two\n")
    source = TableSource(path)
    assert (source.rows, source.doubtful) == (200, 1)
    source.refuse_doubtful(0.005, "")
    with pytest.raises(ClippyError, match=r"1 of 200 rows \(0\.5%\) do not fit the header.*\n.*line 201") as caught:
        source.refuse_doubtful(0.004, "set it higher")
    assert caught.value.hint is not None and caught.value.hint.endswith("set it higher.")


def test_searches_for_closing_marks_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_rows, "_SEARCHES", 2)
    rows = "".join(f'a.png,"caption {number}\n' for number in range(50))
    found, _, doubtful = read(folder, "t.csv", f"image,caption\n{rows}")
    assert len(found["a.png"]) == doubtful == 50
