"""Checking: every figure against a plain loop, and known duplicates found."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clippy_cli.data.captioned_inputs import open_captioned_data
from clippy_cli.data.checking import EXAMPLES, LONG_WORDS, check_captioned_data, difference_hash
from clippy_cli.data.image_folder import FolderSource
from clippy_cli.data.shards import ShardSource
from clippy_cli.data.tables import TableSource
from clippy_cli.errors import ClippyError
from tests.fixtures.data import encoded, noise, write_shard


def smooth(seed: int, height: int = 300, width: int = 400) -> np.ndarray:
    """A picture with a pattern that survives a change of size."""
    return np.asarray(Image.fromarray(noise(8, 9, seed)).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture
def shards(tmp_path: Path) -> list[str]:
    """Two shards: 12 and 4 samples, of which one is broken by its image and one by its caption."""
    members: dict[str, bytes | str] = {}
    for number in range(11):
        members[f"k{number}.png"] = encoded(noise(20 + number, 300 - number, number))
        members[f"k{number}.json"] = json.dumps({"captions": [f"caption {number} " + "x " * number, "a dog"]})
    members |= {"cut.png": encoded(noise(64, 64))[:-900], "cut.txt": "cut", "alone.png": b"", "lost.txt": "lost"}
    write_shard(tmp_path / "s-0.tar", members)
    pattern = smooth(1)
    write_shard(
        tmp_path / "s-1.tar",
        {
            "same.png": encoded(noise(20, 300, 0)),
            "same.txt": " ".join(["word"] * (LONG_WORDS + 1)),
            "look.png": encoded(pattern),
            "look.txt": "a pattern",
            "alike.jpg": encoded(Image.fromarray(pattern).resize((500, 375)), "JPEG", quality=90),
            "alike.txt": "a pattern",
            "mute.png": encoded(noise()),
            "mute.txt": " ",
        },
    )
    return [str(tmp_path / "s-{0..1}.tar")]


def plain(values: list[int]) -> tuple[int, ...]:
    """Minimum, median, 95th percentile and maximum by numpy's definition of the nearest rank."""
    return tuple(int(np.percentile(values, q, method="inverted_cdf")) for q in (0, 50, 95, 100))


def figures(distribution: object) -> tuple[int, ...]:
    return tuple(vars(distribution).values())


def test_every_figure_is_that_of_a_plain_loop(shards: list[str]) -> None:
    source = ShardSource(shards)
    report = check_captioned_data(source, workers=3)
    whole = []
    for index in range(len(source)):
        try:
            sample = source.read(index)
            whole.append((sample.image.shape, sample.captions))
        except Exception:
            pass
    captions = [caption for _, texts in whole for caption in texts]
    sides = [shape[:2] for shape, _ in whole]
    assert report.samples == report.checked == 16 and report.broken == 2 and len(whole) == 14
    assert report.shards == 2 and figures(report.shard_samples) == plain([12, 4])
    assert report.captions is not None and report.images is not None
    assert report.captions.count == len(captions)
    assert figures(report.captions.per_image) == plain([len(texts) for _, texts in whole])
    assert figures(report.captions.words) == plain([len(caption.split()) for caption in captions])
    assert figures(report.captions.characters) == plain([len(caption) for caption in captions])
    assert figures(report.images.short_side) == plain([min(side) for side in sides])
    assert figures(report.images.long_side) == plain([max(side) for side in sides])
    assert report.images.small == sum(min(side) < 224 for side in sides)
    assert report.captions.long == 1
    counts = Counter(captions)
    assert report.captions.repeated == sum(count - 1 for count in counts.values())
    assert report.captions.most_repeated == tuple(entry for entry in counts.most_common() if entry[1] > 1)
    assert report.images.formats == {"png": 13, "jpeg": 1}
    assert json.loads(json.dumps(report.images.formats))


def test_broken_samples_duplicates_and_problems_are_named(shards: list[str]) -> None:
    report = check_captioned_data(ShardSource(shards))
    assert [text.split(": ")[1] for text in report.broken_examples] == ["cut", "mute"]
    assert "s-0.tar" in report.broken_examples[0] and "caption is empty" in report.broken_examples[1]
    listed = "; ".join(map(str, report.notices))
    assert "(alone in " in listed and "(lost in " in listed
    assert report.images is not None
    assert report.images.exact.count == 1 and report.images.exact.examples == (("same", "k0"),)
    assert report.images.near.count == 1 and report.images.near.examples == (("alike", "look"),)


def test_without_images_only_captions_are_read(shards: list[str]) -> None:
    report = check_captioned_data(ShardSource(shards), images=False)
    assert report.images is None and report.broken == 1
    assert report.captions is not None and report.captions.count == 26


def test_a_limit_is_spread_over_the_shards(shards: list[str]) -> None:
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1

    report = check_captioned_data(ShardSource(shards), limit=4, on_progress=count)
    assert (report.samples, report.checked, seen, report.broken) == (16, 4, 4, 0)
    assert report.images is not None and report.images.exact.examples == (("same", "k0"),)  # samples 0, 4, 8 and 12


def test_feeds(shards: list[str]) -> None:
    report = check_captioned_data(ShardSource(shards), images=False)
    assert [report.feeds(processes) for processes in (1, 2, 3)] == [True, True, False]


def test_difference_hash() -> None:
    picture = smooth(5)
    hashed = difference_hash(picture)
    cells = np.asarray(Image.fromarray(picture).convert("L").resize((9, 8), Image.Resampling.BOX)).astype(int)
    bits = "".join("1" if cells[y, x + 1] > cells[y, x] else "0" for y in range(8) for x in range(8))
    assert hashed == int(bits, 2) != difference_hash(smooth(6))
    assert difference_hash(np.ascontiguousarray(picture[:, ::-1])) != hashed
    for grey in (0, 128, 255):
        assert difference_hash(np.full((30, 40, 3), grey, np.uint8)) == 0


def test_uniform_images_are_no_near_duplicates(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {}
    for grey in (10, 20, 30):
        members |= {f"{grey}.png": encoded(np.full((9, 9, 3), grey, np.uint8)), f"{grey}.txt": str(grey)}
    report = check_captioned_data(ShardSource([str(write_shard(tmp_path / "s.tar", members))]))
    assert report.images is not None and (report.images.exact.count, report.images.near.count) == (0, 0)


def test_nothing_whole_gives_no_figures(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {}
    for number in range(EXAMPLES + 2):
        members |= {f"{number}.png": b"x", f"{number}.txt": "a"}
    report = check_captioned_data(ShardSource([str(write_shard(tmp_path / "s.tar", members))]))
    assert (report.broken, len(report.broken_examples)) == (EXAMPLES + 2, EXAMPLES)
    assert report.captions is None and report.images is None


def test_what_is_opened(shards: list[str], tmp_path: Path) -> None:
    assert len(open_captioned_data(shards)) == len(open_captioned_data([str(tmp_path)])) == 16
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.png").write_bytes(encoded(noise()))
    (photos / "a.txt").write_text("a")
    (photos / "t.csv").write_text("image,caption\na.png,b\n")
    table, folder = open_captioned_data([str(photos / "t.csv")]), open_captioned_data([str(photos)])
    assert isinstance(table, TableSource) and isinstance(folder, FolderSource)
    for source in (table, folder):
        report = check_captioned_data(source)
        assert report.shards is None and report.shard_samples is None and report.feeds(64)
        assert report.images is not None and report.broken == 0
    with pytest.raises(ClippyError, match="local files"):
        open_captioned_data(["https://example.org/{0..3}.tar"])


def test_images_beside_shards_are_named(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.tar", {"a.png": encoded(noise()), "a.txt": "x"})
    (tmp_path / "b.png").write_bytes(encoded(noise()))
    source = open_captioned_data([str(tmp_path)])
    assert [str(notice) for notice in source.notices] == [
        "1 image ignored: lies beside the shards of its folder (b.png)"
    ]
