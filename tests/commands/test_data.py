"""``clippy data pack`` and ``check`` from the command line to their files and figures."""

import json

import pytest

from clippy_cli.data.shards import ShardSource
from clippy_cli.errors import ExitCode
from tests.fixtures.commands import COMMANDS
from tests.fixtures.data import encoded, noise


@pytest.fixture
def table(tmp_path):
    (tmp_path / "photos").mkdir()
    rows = ["file,words"]
    for seed in range(6):
        (tmp_path / "photos" / f"{seed}.jpg").write_bytes(encoded(noise(40, 50, seed), "JPEG"))
        rows += [f"{seed}.jpg,caption {seed}", f"{seed}.jpg,a photo"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    return ("t.csv", "--root", "photos", "--caption-column", "words")


def test_from_a_table_to_a_checked_set(clippy, table):
    outcome = clippy("data", "pack", table[0], "out", *table[1:], "--samples-per-shard", 4, "--max-side", 30)
    assert outcome.code == 0, outcome.stderr
    assert 'source: {kind: shards, paths: "out/{00000..00001}.tar"}' in outcome.stdout
    assert "6 with 12 captions" in outcome.stdout and "2 of 3 samples" in outcome.stdout
    assert ShardSource(["out/{00000..00001}.tar"]).read(0).image.shape[:2] == (24, 30)
    again = clippy("data", "pack", table[0], "out", *table[1:], "--samples-per-shard", 4, "--max-side", 30, "--json")
    assert again.document["kept"] == 2 and again.document["paths"] == "out/{00000..00001}.tar"
    checked = clippy("data", "check", "out/{00000..00001}.tar", "--processes", 2)
    assert checked.code == 0, checked.stderr
    assert "samples a shard" in checked.stdout and "6 jpeg" in checked.stdout
    assert "most often, 6 x 'a photo'" in checked.stdout and "2 processes can be fed" in checked.stdout
    streamed = clippy("data", "check", "out", "--processes", 3, "--no-images")
    assert "3 processes cannot be fed" in streamed.stderr and "--shards 3" in streamed.stderr


def test_broken_images_end_in_the_code_for_partial(clippy, table, tmp_path):
    photo = tmp_path / "photos" / "3.jpg"
    photo.write_bytes(photo.read_bytes()[:-300])
    packed = clippy("data", "pack", table[0], "out", *table[1:], "--shards", 1)
    assert packed.code == ExitCode.PARTIAL
    assert "1 images cannot be used" in packed.stderr and "3.jpg: damaged or truncated" in packed.stderr
    (tmp_path / "u.csv").write_text("image,caption\nphotos/3.jpg,broken\nphotos/4.jpg,whole\n")
    checked = clippy("data", "check", "u.csv", "--json")
    assert checked.code == ExitCode.PARTIAL
    assert checked.document["broken"] == 1 and "photos/3.jpg: damaged" in checked.document["broken_examples"][0]
    assert checked.document["captions"]["words"] == {"minimum": 1, "median": 1, "p95": 1, "maximum": 1}
    json.dumps(checked.document, allow_nan=False)


def test_doubtful_rows_stop_a_pack_and_show_in_a_check(clippy, table, tmp_path):
    rows = "".join(f"photos/{seed}.jpg,one, two\n" for seed in range(6))
    (tmp_path / "u.csv").write_text(f"image,caption\n{rows}photos/0.jpg\n")
    refused = clippy("data", "pack", "u.csv", "out")
    assert refused.code == ExitCode.FAILED and "7 of 7 rows (100.0%)" in refused.stderr
    assert "--max-doubtful" in refused.stderr and not (tmp_path / "out").exists()
    assert clippy("data", "pack", "u.csv", "out", "--max-doubtful", 1, "--strict").code == ExitCode.FAILED
    packed = clippy("data", "pack", "u.csv", "out", "--max-doubtful", 1, "--json")
    assert packed.code == ExitCode.PARTIAL and packed.document["samples"] == 6
    assert [notice["kind"] for notice in packed.document["notices"]] == ["skipped", "assumed"]
    checked = clippy("data", "check", "u.csv")
    assert (
        checked.code == ExitCode.PARTIAL and "7" in checked.stdout and "line 2, line 3, line 4, ..." in checked.stderr
    )
    document = clippy("data", "check", "u.csv", "--json").document
    assert (document["doubtful"], document["rows"], document["notices"][0]["examples"]) == (7, 7, ["line 8"])


FLAGS = {
    "pack": "--root --image-column --caption-column --shards --samples-per-shard --max-side --quality --shuffle "
    "--no-shuffle --seed --prefix --workers --max-doubtful --overwrite --strict --json",
    "check": "--images --no-images --limit --root --image-column --caption-column --processes --workers --json",
}


@pytest.mark.parametrize("command", FLAGS)
def test_a_flag_is_added_on_purpose(command):
    params = COMMANDS[f"data {command}"].params
    flags = {flag for param in params for flag in (*param.opts, *param.secondary_opts) if flag.startswith("--")}
    assert flags - {"--help"} == set(FLAGS[command].split())


def test_flags_that_contradict_each_other(clippy, table):
    both = clippy("data", "pack", *table, "out", "--shards", 2, "--samples-per-shard", 4)
    assert both.code == ExitCode.USAGE and "are mutually exclusive" in both.stderr
    folder = clippy("data", "pack", "photos", "out", "--root", "photos")
    assert folder.code == ExitCode.USAGE and "are for tables" in folder.stderr
    checked = clippy("data", "check", "photos", "--root", "photos")
    assert checked.code == ExitCode.USAGE and "are for tables" in checked.stderr
    assert clippy("data", "check", *table).code == ExitCode.OK
    assert clippy("data", "check", "https://host/0.tar").code == ExitCode.FAILED
