"""Packing: what comes out of the shards is what went in, byte for byte the same each time."""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import numpy as np
import pytest
from PIL import Image

from clippy_cli.data.image_folder import FolderSource
from clippy_cli.data.images import read_image
from clippy_cli.data.pack_claim import Packing
from clippy_cli.data.packing import pack_shards, shards_for
from clippy_cli.data.shard_names import local_shards
from clippy_cli.data.shards import ShardSource
from clippy_cli.data.tables import TableSource
from clippy_cli.errors import ClippyError
from clippy_cli.locks import hold_folder
from tests.fixtures.data import encoded, noise

CAPTIONS = {
    "a.png": ["one"],
    "b.jpg": ["two", "zwei ö"],
    "c.webp": ["three"],
    "d.bmp": ["four"],
    "sub/e.jpg": ["five", "six", "seven"],
}
FORMS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP"}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of five images, of which ``sub/e.jpg`` lies on its side by its EXIF tag."""
    (tmp_path / "sub").mkdir()
    for seed, name in enumerate(CAPTIONS):
        exif = Image.Exif()
        if name == "sub/e.jpg":
            exif[0x0112] = 6
        form = FORMS[name.rpartition(".")[2]]
        options = {} if form == "BMP" else {"exif": exif}
        (tmp_path / name).write_bytes(encoded(noise(40, 60, seed), form, **options))
    path = tmp_path / "captions.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("image", "caption"), *((name, text) for name, texts in CAPTIONS.items() for text in texts)]
        )
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def index_rows(folder: Path) -> list[dict[str, str]]:
    rows = []
    for path in sorted(folder.glob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows += list(csv.DictReader(file, delimiter="\t"))
    return rows


def test_pixels_and_captions_come_back(table: Path, tmp_path: Path) -> None:
    report = pack_shards(TableSource(table), tmp_path / "out", Packing(shards=2, quality=95))
    source = ShardSource([report.paths])
    files = {row["key"]: row["image"] for row in index_rows(tmp_path / "out")}
    assert (report.samples, report.captions, report.encoded, report.skipped, report.shards) == (5, 8, 1, 0, 2)
    assert not list(source.notices) and source.shard_sizes == (3, 2) == (report.largest, report.smallest)
    assert report.bytes == sum(path.stat().st_size for path in (tmp_path / "out").glob("*.tar"))
    for number in range(5):
        sample = source.read(number)
        original = Path(files[sample.key])
        assert list(sample.captions) == CAPTIONS[original.relative_to(tmp_path).as_posix()]
        if original.suffix == ".bmp":  # the one format that shards do not hold
            assert sample.image.shape == (40, 60, 3)
        else:
            assert source.image_bytes(number) == original.read_bytes()
            np.testing.assert_array_equal(sample.image, read_image(original))
    assert {source.key(number) for number in range(5)} == {
        f"0000{shard}_00000{place}" for shard, size in enumerate((3, 2)) for place in range(size)
    }


def test_bytes_depend_on_the_settings_alone(table: Path, tmp_path: Path) -> None:
    source = TableSource(table)
    for name, workers in (("one", 1), ("two", 4)):
        pack_shards(source, tmp_path / name, Packing(shards=2, max_side=30), workers=workers)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    pack_shards(source, tmp_path / "other", Packing(shards=2, max_side=30, seed=1))
    assert contents(tmp_path / "one")["00000.tar"] != contents(tmp_path / "other")["00000.tar"]
    in_order = pack_shards(source, tmp_path / "plain", Packing(shards=1, shuffle=False, prefix="dev-"))
    packed = ShardSource([in_order.paths])
    assert in_order.paths.endswith("dev-00000.tar") and packed.key(0) == "dev-00000_000000"
    assert [list(packed.captions(number)) for number in range(5)] == list(CAPTIONS.values())


def test_large_images_are_shrunk_upright(table: Path, tmp_path: Path) -> None:
    report = pack_shards(TableSource(table), tmp_path / "out", Packing(shards=1, shuffle=False, max_side=30))
    packed = ShardSource([report.paths])
    assert [packed.read(number).image.shape[:2] for number in range(5)] == [(20, 30)] * 4 + [(30, 20)]
    assert report.encoded == 5


def test_webdataset_reads_them(table: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    report = pack_shards(TableSource(table), tmp_path / "out", Packing(shards=1, shuffle=False))
    with Path(report.paths).open("rb") as file:  # WebDataset itself leaves the file open
        files = webdataset.tariterators.tar_file_expander([{"url": report.paths, "stream": file}])
        samples = [webdataset.autodecode.Decoder([])(sample) for sample in webdataset.tariterators.group_by_keys(files)]
    assert [sample.get("txt") or sample["json"]["captions"] for sample in samples] == [
        texts if len(texts) > 1 else texts[0] for texts in CAPTIONS.values()
    ]


def test_broken_images_are_counted_and_named(table: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").unlink()
    (tmp_path / "b.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:-500])
    report = pack_shards(TableSource(table), tmp_path / "out", Packing(shards=1, shuffle=False))
    assert (report.samples, report.captions, report.skipped) == (3, 5, 2)
    assert report.examples[0] == f"{tmp_path / 'a.png'}: no such file"
    assert report.examples[1].startswith(f"{tmp_path / 'b.jpg'}: damaged or truncated")
    assert [row["state"] for row in index_rows(tmp_path / "out")] == [
        "skipped",
        "skipped",
        "copied",
        "encoded",
        "copied",
    ]
    assert ShardSource([report.paths]).key(0) == "00000_000002"


def test_nothing_is_left_where_no_image_is_whole(table: Path, tmp_path: Path) -> None:
    for name in CAPTIONS:
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(ClippyError, match=r"None of 5 images can be used: .*not an image"):
        pack_shards(TableSource(table), tmp_path / "out", Packing(shards=2))
    assert contents(tmp_path / "out") == {}


def test_an_interrupted_run_goes_on_to_the_same_bytes(table: Path, tmp_path: Path) -> None:
    source = TableSource(table)
    (tmp_path / "a.png").unlink()
    whole = pack_shards(source, tmp_path / "whole", Packing(shards=3))
    seen = 0

    def interrupt() -> None:
        nonlocal seen
        seen += 1
        if seen == 4:  # in the second of the shards of 2, 2 and 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack_shards(source, tmp_path / "out", Packing(shards=3), on_progress=interrupt)
    assert sorted(contents(tmp_path / "out")) == ["00000.tar", "00000.tsv", "pack.json"]
    (tmp_path / "out" / ".00001.tar-1-1.part").write_bytes(b"what a killed run leaves")
    first = (tmp_path / "out" / "00000.tar").stat().st_mtime_ns
    again = pack_shards(source, tmp_path / "out", Packing(shards=3))
    assert (again.kept, again.skipped, again.captions) == (1, 1, whole.captions)
    assert again.examples == whole.examples
    assert (tmp_path / "out" / "00000.tar").stat().st_mtime_ns == first
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_pack_that_is_being_written_or_was_broken_off_is_not_read_as_if_it_were_whole(
    table: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    pack_shards(TableSource(table), out, Packing(shards=3))
    assert len(local_shards([f"{out}/*.tar"])) == 3
    with hold_folder(out, "clippy data pack"):
        assert len(local_shards([f"{out}/*.tar"])) == 3  # by the process that writes it
    held = "import sys; from pathlib import Path; from clippy_cli.locks import hold_folder; "
    held += "held = hold_folder(Path(sys.argv[1]), 'clippy data pack'); held.__enter__(); print(flush=True); input()"
    with Popen([sys.executable, "-c", held, str(out)], stdin=PIPE, stdout=PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        with pytest.raises(ClippyError, match=r"in use by clippy data pack \(process"):
            local_shards([f"{out}/00000.tar"])
        process.kill()
    (out / "00001.tar").unlink()
    with pytest.raises(ClippyError, match=r"1 of 3 shards of this pack are missing, such as 00001\.tar"):
        local_shards([f"{tmp_path}/*/*.tar"])
    assert len(local_shards([f"{out}/00000.tar", f"{out}/00002.ta?"])) == 2  # what was wanted is there


def test_other_contents_are_refused(table: Path, tmp_path: Path) -> None:
    source = TableSource(table)
    pack_shards(source, tmp_path / "out", Packing(shards=2))
    with pytest.raises(ClippyError, match=r"holds another pack: shards was 2, now 3; seed was 0, now 4 "):
        pack_shards(source, tmp_path / "out", Packing(shards=3, seed=4))
    table.write_text("image,caption\na.png,changed\nc.webp,three\n", encoding="utf-8")
    with pytest.raises(ClippyError, match=r"its images or captions were others"):
        pack_shards(TableSource(table), tmp_path / "out", Packing(shards=2))
    with pytest.raises(ClippyError, match=r"not empty: it holds a\.png"):
        pack_shards(source, tmp_path, Packing(shards=2))


def test_settings_that_cannot_be_met(table: Path, tmp_path: Path) -> None:
    with pytest.raises(ClippyError, match="5 images cannot fill 6 shards"):
        pack_shards(TableSource(table), tmp_path / "out", Packing(shards=6))
    with pytest.raises(ClippyError, match=r"prefix '\.\./x'"):
        pack_shards(TableSource(table), tmp_path / "out", Packing(shards=1, prefix="../x"))
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_an_expected_failure(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tarfile.TarFile.addfile", full)
    with pytest.raises(ClippyError, match="No space left"):
        pack_shards(TableSource(table), tmp_path / "out", Packing(shards=1))
    assert list(contents(tmp_path / "out")) == ["pack.json"]


@pytest.mark.parametrize(("images", "most", "shards"), [(1, 10, 1), (10, 10, 1), (11, 10, 2), (25, 10, 3)])
def test_shards_for(images: int, most: int, shards: int) -> None:
    assert shards_for(images, most) == shards


def test_a_folder_of_images_and_text_files(tmp_path: Path) -> None:
    for seed, name in enumerate(("b.png", "a.jpg", "deep/c.png", "without.png", "latin.png")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(noise(seed=seed), FORMS[path.suffix[1:]]))
        path.with_suffix(".txt").write_text(f"caption\n of {path.stem}", encoding="utf-8")
    (tmp_path / "without.txt").unlink()
    (tmp_path / "latin.txt").write_bytes("schön".encode("latin-1"))
    source = FolderSource(tmp_path)
    assert [source.key(index) for index in range(len(source))] == ["a.jpg", "b.png", "deep/c.png"]
    assert source.captions(2) == ("caption of c",)
    np.testing.assert_array_equal(source.read(1).image, noise(seed=0))
    assert [str(notice) for notice in source.notices] == [
        "1 image skipped: its text file is not UTF-8 (latin.txt)",
        "1 image skipped: no text file of the same name (without.png)",
        "3 text files: several lines, joined into one caption (a.txt, b.txt, deep/c.txt)",
    ]
    with pytest.raises(ClippyError, match="none of 0 images has a caption"):
        FolderSource(tmp_path / "nowhere")


def test_edited_images_are_named_and_nothing_is_packed(table: Path, tmp_path: Path) -> None:
    source, out, packing = TableSource(table), tmp_path / "out", Packing(shards=2, shuffle=False)
    pack_shards(source, out, packing)
    before = contents(out)
    (tmp_path / "c.webp").write_bytes(encoded(noise(40, 60, 77), "WEBP"))
    os.utime(tmp_path / "a.png")  # touched only: the same content
    with pytest.raises(ClippyError, match=r"1 images have changed since they were packed here: \S+c\.webp ") as caught:
        pack_shards(source, out, packing)
    assert contents(out) == before and caught.value.hint is not None and "00000.tar" in caught.value.hint
    (out / "00000.tar").unlink()
    report = pack_shards(source, out, packing)
    assert report.kept == 1
    np.testing.assert_array_equal(ShardSource([report.paths]).read(2).image, read_image(tmp_path / "c.webp"))


def test_images_that_came_back_are_noticed(table: Path, tmp_path: Path) -> None:
    photo = (tmp_path / "b.jpg").read_bytes()
    (tmp_path / "b.jpg").unlink()
    source, packing = TableSource(table), Packing(shards=1)
    assert pack_shards(source, tmp_path / "out", packing).skipped == 1
    assert pack_shards(source, tmp_path / "out", packing).kept == 1
    (tmp_path / "b.jpg").write_bytes(photo)
    with pytest.raises(ClippyError, match=r"have changed since they were packed here: .*b\.jpg"):
        pack_shards(source, tmp_path / "out", packing)


def test_other_captions_and_images_are_named(table: Path, tmp_path: Path) -> None:
    pack_shards(TableSource(table), tmp_path / "out", Packing(shards=1))
    text = table.read_text(encoding="utf-8")
    table.write_text(text.replace("zwei", "deux"), encoding="utf-8")
    with pytest.raises(ClippyError, match=r"1 have other captions \(.*b\.jpg\)"):
        pack_shards(TableSource(table), tmp_path / "out", Packing(shards=1))
    table.write_text(text.replace("d.bmp", "x.bmp"), encoding="utf-8")
    with pytest.raises(ClippyError, match=r"1 are gone \(.*d\.bmp\), 1 are new \(.*x\.bmp\)"):
        pack_shards(TableSource(table), tmp_path / "out", Packing(shards=1))


def test_a_shard_that_is_not_what_was_packed_is_packed_again(table: Path, tmp_path: Path) -> None:
    source, out = TableSource(table), tmp_path / "out"
    pack_shards(source, out, Packing(shards=2))
    before = contents(out)
    (out / "00001.tar").write_bytes(before["00001.tar"][:-11000])
    report = pack_shards(source, out, Packing(shards=2))
    assert report.kept == 1 and contents(out) == before
    assert [str(notice) for notice in report.notices] == [
        "1 shard: was not whole, or of an earlier version, and is packed again (00001.tar)"
    ]


def test_what_else_a_folder_holds_is_named(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.png", ".hidden.png"):
        (tmp_path / name).write_bytes(encoded(noise()))
    texts = {"a.txt": "one", "b.TXT": "two", "raw.txt": "three", "notes.md": "x", "c.nef": "x", "c.txt": "four"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "back").symlink_to(tmp_path)
    source = FolderSource(tmp_path)
    assert [source.key(index) for index in range(len(source))] == ["a.jpg", "a.png", "b.png"]
    assert sorted(str(notice) for notice in source.notices) == [
        "1 file ignored: a hidden file (.hidden.png)",
        "1 file ignored: type .md is not read (notes.md)",
        "1 file ignored: type .nef is not read (c.nef)",
        "1 folder skipped: links to folders are not followed (other/back)",
        "1 image: shares its text file with another image (a.png)",
        "2 text files skipped: no image of the same name (c.txt, raw.txt)",
    ]


def test_overwrite_replaces_a_pack_and_files_of_its_names_alone(table: Path, tmp_path: Path) -> None:
    source, out = TableSource(table), tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("mine")
    (out / "00000.tar").write_bytes(b"mine, too")
    with pytest.raises(ClippyError, match=r"not empty: it holds 00000\.tar, README\.md") as caught:
        pack_shards(source, out, Packing(shards=1))
    assert caught.value.hint is not None and "--overwrite" in caught.value.hint
    pack_shards(source, out, Packing(shards=3), overwrite=True)
    assert sorted(contents(out)) == sorted(
        ["README.md", "pack.json", *(f"0000{n}.{end}" for n in range(3) for end in ("tar", "tsv"))]
    )
    (tmp_path / "c.webp").write_bytes(encoded(noise(40, 60, 77), "WEBP"))
    report = pack_shards(source, out, Packing(shards=1), overwrite=True)  # fewer shards, and a photo that was edited
    assert report.kept == 0
    assert sorted(contents(out)) == ["00000.tar", "00000.tsv", "README.md", "pack.json"]
    assert (out / "README.md").read_text() == "mine"
    pack_shards(source, tmp_path / "fresh", Packing(shards=1))
    assert (out / "00000.tar").read_bytes() == (tmp_path / "fresh" / "00000.tar").read_bytes()
    assert pack_shards(source, out, Packing(shards=1)).kept == 1  # and goes on without the flag
