"""``segment``, ``classify`` and ``embed`` over tar shards: what is written, and what a second run makes of it."""

import hashlib
import io
import json
import os
import re
import shutil
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from clippy_cli.clip import Clip
from clippy_cli.data import fetching
from clippy_cli.errors import ExitCode
from clippy_cli.reporting.model_choice import ModelChoice
from tests.conftest import REPOSITORY
from tests.fixtures.colour_model import ColourModel
from tests.fixtures.data import encoded, write_shard

SEGMENT = ("segment", "shards/{0..2}.tar", "--labels", "red,blue", "--refine", "none")


def picture(left: tuple[int, int, int], right: tuple[int, int, int] = (0, 0, 255)) -> bytes:
    pixels = np.empty((48, 64, 3), np.uint8)
    pixels[:, :32], pixels[:, 32:] = left, right
    return encoded(pixels)


RED = picture((255, 0, 0))


@pytest.fixture
def shards(clippy) -> Path:
    """Three shards in the current folder: one with a damaged photo, one with a key of another, one of many photos."""
    folder = Path("shards")
    folder.mkdir()
    write_shard(folder / "0.tar", {"b.png": RED, "b.txt": "red", "broken.jpg": RED[:90], "a.png": picture((0, 0, 255))})
    write_shard(folder / "1.tar", {"deep/b.png": picture((250, 9, 9)), "b.PNG": picture((0, 0, 250))})
    write_shard(folder / "2.tar", {f"{number:03}.png": picture((number * 20, 0, 0)) for number in range(12)})
    return folder


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        found = archive.getmembers()
        assert {(one.mtime, one.uid, one.gid, one.mode, one.uname) for one in found} <= {(0, 0, 0, 0o644, "")}
        return {one.name: archive.extractfile(one).read() for one in found}


def content(folder: Path) -> dict[str, bytes]:
    """Every file that is not hidden, records included."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_each_shard_becomes_one_of_masks_and_the_records_of_clippy_segment(clippy, shards):
    outcome = clippy(*SEGMENT, "--out", "masks")
    assert outcome.code == ExitCode.PARTIAL
    assert "1 photo skipped: cannot be used" in outcome.stderr
    assert "1 member ignored: type .txt is not a photo (b.txt in shards/0.tar)" in outcome.stderr
    written = members(Path("masks/0.tar"))
    assert list(written) == ["b.mask.png", "b.json", "broken.error.json", "a.mask.png", "a.json"]
    error = json.loads(written["broken.error.json"])
    assert error["key"] == "broken"
    assert error["error"].startswith("shards/0.tar: broken: damaged")
    assert list(members(Path("masks/1.tar"))) == ["deep/b.mask.png", "deep/b.json", "b.mask.png", "b.json"]

    Path("b.png").write_bytes(RED)
    clippy("segment", "b.png", *SEGMENT[2:], "--out", "single", "--save", "mask,json")
    assert written["b.mask.png"] == Path("single/b_mask.png").read_bytes()
    single, record = json.loads(Path("single/b.json").read_text()), json.loads(written["b.json"])
    assert record.pop("key") == "b"
    assert record == {name: single[name] for name in record}

    manifest = json.loads(Path("masks/manifest.json").read_text())
    assert manifest["finished"]
    assert (manifest["photos"], manifest["failures"]) == (17, 1)
    assert manifest["run"]["settings"]["labels"] == {"red": ["red"], "blue": ["blue"]}
    for result in manifest["results"]:
        data = Path("masks", result["result"]).read_bytes()
        assert (result["bytes"], result["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        shard = Path(result["source"]).read_bytes()
        assert result["input"] == {"bytes": len(shard), "sha256": hashlib.sha256(shard).hexdigest()}
    assert sorted(path.name for path in Path("masks").iterdir()) == [
        "0.tar",
        "1.tar",
        "2.tar",
        "manifest.json",
        "records",
    ]


def test_a_second_run_does_what_is_missing_and_nothing_else(clippy, shards):
    clippy(*SEGMENT, "--out", "masks")
    before, times = content(Path("masks")), {path: path.stat().st_mtime_ns for path in Path("masks").glob("*.tar")}
    outcome = clippy(*SEGMENT, "--out", "masks", "--json")
    assert outcome.code == ExitCode.PARTIAL
    assert (outcome.document["finished"], outcome.document["photos"], outcome.document["failures"]) == (3, 17, 1)
    assert {path: path.stat().st_mtime_ns for path in times} == times

    Path("masks/records/1.json").unlink()  # killed between the result and its record
    Path("masks/2.tar").write_bytes(b"cut short")
    Path("masks/.working/0").mkdir(parents=True)
    Path("masks/.working/0/.result-1-1.part").write_bytes(b"of a killed process")
    clippy(*SEGMENT, "--out", "masks")
    assert content(Path("masks")) == before
    assert Path("masks/0.tar").stat().st_mtime_ns == times[Path("masks/0.tar")]


def test_a_shard_that_was_replaced_is_done_again_but_not_one_that_was_touched(clippy, shards):
    clippy(*SEGMENT, "--out", "masks")
    os.utime(shards / "2.tar", (5, 5))
    time = Path("masks/2.tar").stat().st_mtime_ns
    write_shard(shards / "1.tar", {"b.png": RED, "c.png": RED, "d.png": RED})
    clippy(*SEGMENT, "--out", "masks")
    assert len(members(Path("masks/1.tar"))) == 6
    assert Path("masks/2.tar").stat().st_mtime_ns == time
    assert json.loads(Path("masks/manifest.json").read_text())["photos"] == 18


@pytest.mark.parametrize(
    ("arguments", "difference"),
    [
        ((*SEGMENT[:3], "red,green", *SEGMENT[4:]), "settings.labels.blue was ['blue'], now None"),
        ((*SEGMENT, "--save", "json"), "product.save was ['mask', 'json'], now ['json']"),
        ((*SEGMENT, "--batch-size", "3"), "batch_size was 8, now 3"),
        ((SEGMENT[0], "shards/{0..1}.tar", *SEGMENT[2:]), "inputs was "),
        (("classify", *SEGMENT[1:4]), "settings.command was 'segment', now 'classify'"),
    ],
)
def test_another_run_in_the_same_folder_is_refused_with_what_differs(clippy, shards, arguments, difference):
    clippy(*SEGMENT, "--out", "masks")
    before = content(Path("masks"))
    outcome = clippy(*arguments, "--out", "masks")
    assert outcome.code == ExitCode.FAILED
    assert difference in outcome.stderr
    assert content(Path("masks")) == before


def test_other_weights_are_refused(clippy, shards, monkeypatch):
    clippy(*SEGMENT, "--out", "masks")
    monkeypatch.setattr(ColourModel, "name", "other colours")
    outcome = clippy(*SEGMENT, "--out", "masks")
    assert outcome.code == ExitCode.FAILED
    assert "model.name was 'colours', now 'other colours'; model.fingerprint was " in outcome.stderr


def test_interrupted_it_leaves_nothing_half_and_goes_on(clippy, shards, monkeypatch):
    clippy(*SEGMENT, "--out", "whole")
    embed, left = ColourModel.embed_patches, [4]

    def interrupted(self, images):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return embed(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(ColourModel, "embed_patches", interrupted)
        outcome = clippy(*SEGMENT, "--out", "masks")
    assert outcome.code == ExitCode.INTERRUPTED
    assert "Interrupted: 2 files are finished." in outcome.stderr
    assert sorted(path.name for path in Path("masks").glob("*.tar")) == ["0.tar", "1.tar"]
    assert not list(Path("masks").rglob("*.part"))
    clippy(*SEGMENT, "--out", "masks")
    assert content(Path("masks")) == content(Path("whole"))


def test_classify_writes_a_line_a_photo(clippy, shards):
    outcome = clippy("classify", "shards", "--labels", "red,blue", "--out", "labels")
    assert outcome.code == ExitCode.PARTIAL
    lines = [json.loads(line) for line in Path("labels/0.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == ["b", "broken", "a"]
    assert lines[1]["error"].startswith("shards/0.tar: broken: ")
    assert lines[2]["guesses"][0]["label"] == "blue"


@pytest.fixture
def embedded(clippy) -> Clip:
    return Clip(ModelChoice(ColourModel(), "colours"))


@pytest.mark.parametrize("patches", [False, True])
def test_embeddings_of_shards_and_of_files_are_those_of_python(clippy, shards, embedded, patches):
    files = {"b": RED, "wide": encoded(np.full((16, 64, 3), 90, np.uint8))}
    Path("photos").mkdir()
    for name, data in files.items():
        Path(f"photos/{name}.png").write_bytes(data)
    write_shard(shards / "0.tar", {f"{name}.png": data for name, data in files.items()} | {"x.jpg": b"\xff\xd8\xff"})
    flags = ["--dtype", "float32", *(["--patches"] if patches else [])]
    assert clippy("embed", "shards/0.tar", "--out", "packed", *flags).code == ExitCode.PARTIAL
    assert clippy("embed", "photos", "--out", "single", *flags).code == ExitCode.OK
    expected = list(embedded.embed_many([f"photos/{name}.png" for name in files], patches=patches))
    for path, keys in (("packed/0", ["b", "wide"]), ("single/photos-00000", ["photos/b.png", "photos/wide.png"])):
        with safe_open(f"{path}.safetensors", "np") as stored:
            metadata = stored.metadata()
            assert json.loads(metadata["keys"]) == keys
            if patches:
                rows, grids = stored.get_tensor("patches"), stored.get_tensor("grids")
                parts = np.split(rows, grids.prod(axis=1).cumsum()[:-1])
                found = [part.reshape(*grid, -1) for part, grid in zip(parts, grids, strict=True)]
            else:
                found = list(stored.get_tensor("embeddings"))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other.values)
    assert json.loads(metadata["failures"]) == []


@pytest.mark.parametrize("patches", [False, True])
def test_parquet_has_a_row_for_each_photo(clippy, shards, embedded, patches):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    clippy("embed", "shards", "--out", "vectors", "--format", "parquet", *(["--patches"] if patches else []))
    rows = parquet.read_table("vectors/0.parquet").to_pylist()
    assert [row["key"] for row in rows] == ["b", "broken", "a"]
    assert [row["error"] is None for row in rows] == [True, False, True]
    Path("b.png").write_bytes(RED)
    (expected,) = embedded.embed_many(["b.png"], patches=patches)
    values = np.array(rows[0]["patches" if patches else "embedding"], np.float16)
    shape = (rows[0]["height"], rows[0]["width"], -1) if patches else (-1,)
    np.testing.assert_array_equal(values.reshape(shape), expected.values.astype(np.float16))


def test_parquet_without_pyarrow_says_how_to_install_it(clippy, shards, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    outcome = clippy("embed", "shards", "--out", "vectors", "--format", "parquet")
    assert outcome.code == ExitCode.FAILED
    assert "parquet]" in outcome.stderr


@pytest.fixture
def served(shards, monkeypatch):
    """The shards' folder behind http."""
    pytest.importorskip("aiohttp", reason="needs aiohttp, fsspec's driver of http")
    monkeypatch.setattr(fetching, "_BACKOFF_SECONDS", 0.0)
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *arguments: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(shards))) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_shards_behind_urls_give_the_same_and_one_that_is_missing_is_named(clippy, shards, served):
    clippy(*SEGMENT, "--out", "local")
    (shards / "1.tar").rename("1.tar")
    arguments = (SEGMENT[0], f"{served}/{{0..2}}.tar", *SEGMENT[2:], "--out", "remote")
    outcome = clippy(*arguments)
    assert outcome.code == ExitCode.PARTIAL
    assert "/1.tar: cannot be fetched" in outcome.stderr
    assert "1 shards have no result; run the same command again" in outcome.stderr
    Path("1.tar").rename(shards / "1.tar")
    clippy(*arguments)
    for name in ("1.tar", "2.tar"):
        assert Path("remote", name).read_bytes() == Path("local", name).read_bytes()
    results = json.loads(Path("remote/manifest.json").read_text())["results"]
    assert [result["input"]["bytes"] for result in results] == [(shards / f"{n}.tar").stat().st_size for n in range(3)]
    assert not Path("remote/.shards").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*SEGMENT,), "Shards need a folder"),
        ((*SEGMENT, "--out", "o", "--save", "overlay,mask"), "--save overlay is not for shards"),
        ((*SEGMENT, "--out", "o", "--save", "none"), "--save none is not for shards"),
        ((*SEGMENT, "--out", "o", "--overwrite"), "--overwrite is not for shards"),
        ((*SEGMENT, "--out", "o", "--regions", "r"), "--regions is not for shards"),
        ((*SEGMENT, "--out", "shards"), "is not empty"),
        (("segment", "shards/0.tar", "photo.jpg", *SEGMENT[2:], "--out", "o"), "photo.jpg is not a tar shard"),
        (("segment", "shards/{0..3}.tar", *SEGMENT[2:], "--out", "o"), "do not exist: shards/3.tar"),
        (("segment", "shards", "shards/0.tar", *SEGMENT[2:], "--out", "o"), "is named twice"),
        (("classify", "photo.jpg", "--labels", "red", "--out", "o"), "--out is for tar shards"),
        (("embed", "shards", "--out", "o", "--format", "csv"), "--format cannot be 'csv'"),
        (("embed", "shards", "--out", "o", "--dtype", "int8"), "--dtype cannot be 'int8'"),
    ],
)
def test_what_does_not_fit_shards_is_refused_before_any_work(clippy, shards, arguments, said):
    outcome = clippy(*arguments)
    assert outcome.code in (ExitCode.FAILED, ExitCode.USAGE)
    assert said in outcome.stderr
    assert not Path("o").exists()


def test_damaged_shards_lose_no_whole_photo(clippy, shards):
    data = (shards / "2.tar").read_bytes()
    (shards / "2.tar").write_bytes(data[: len(data) // 2])
    (shards / "1.tar").write_bytes(b"no archive" * 99)
    outcome = clippy(*SEGMENT, "--out", "masks")
    assert outcome.code == ExitCode.PARTIAL
    assert "cut short or damaged" in outcome.stderr
    assert "shards/1.tar: not a tar archive" in outcome.stderr
    assert list(members(Path("masks/2.tar")))[:2] == ["000.mask.png", "000.json"]
    assert not Path("masks/1.tar").exists()
    assert not json.loads(Path("masks/manifest.json").read_text())["finished"]


def test_shards_of_one_name_keep_apart(clippy, shards):
    shutil.copytree(shards, "more")
    assert (
        clippy("classify", "shards/1.tar", "more/1.tar", "--labels", "red,blue", "--out", "labels").code == ExitCode.OK
    )
    assert sorted(path.name for path in Path("labels").glob("*.jsonl")) == ["more_1.jsonl", "shards_1.jsonl"]


def test_a_folder_of_photos_with_an_archive_is_one_of_photos(clippy, shards):
    Path("shards/photo.png").write_bytes(RED)
    outcome = clippy("segment", "shards", *SEGMENT[2:], "--out", "o", "--save", "mask")
    assert [path.name for path in Path("o").glob("*.png")] == ["photo_mask.png"]
    assert outcome.code == ExitCode.OK


def test_masks_beyond_a_palette_have_16_bits(clippy, shards):
    many = ",".join(["red", "blue", *(f"label {number}" for number in range(300))])
    clippy(*SEGMENT[:3], many, "--refine", "none", "--out", "masks", "--save", "mask")
    with Image.open(io.BytesIO(members(Path("masks/0.tar"))["b.mask.png"])) as mask:
        assert mask.mode.startswith("I;16")
        assert np.unique(np.asarray(mask)).tolist() == [1, 2]


def test_the_examples_of_the_documentation_run(clippy, shards, capsys):
    for path in shards.iterdir():
        path.rename(shards / f"0000{path.name}")
    masks = clippy(SEGMENT[0], "shards", *SEGMENT[2:], "--out", "masks")
    labels = clippy("classify", "shards", "--labels", "red,blue", "--out", "labels")
    vectors = clippy("embed", "shards", "--out", "vectors")
    patches = clippy("embed", "shards", "--out", "patches", "--patches")
    assert {one.code for one in (masks, labels, vectors, patches)} == {ExitCode.PARTIAL}
    blocks = re.findall(
        r"```python\n(.*?)```", (REPOSITORY / "docs" / "bulk.md").read_text(encoding="utf-8"), re.DOTALL
    )
    for block in blocks:
        exec(block, {})
    said = capsys.readouterr().out
    assert "deep/b (48, 64) [1 2]\ndeep/b {'red': 0.5, 'blue': 0.5}\n" in said
    assert "broken shards/00000.tar: broken: damaged" in said
    assert "\na blue\n" in said
