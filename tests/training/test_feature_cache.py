"""Stored features belong to one state of the data."""

from pathlib import Path

from PIL import Image

from clippy_cli.data.class_captions import ClassFolderSource
from clippy_cli.data.identity import identify
from clippy_cli.data.mixture import MixturePart, MixtureSource
from clippy_cli.data.scenes import SceneSource


def test_every_part_of_a_mixture_counts_however_small(tmp_path: Path):
    (tmp_path / "ring").mkdir()
    for number in range(2):
        Image.new("RGB", (8, 8)).save(tmp_path / "ring" / f"{number}.png")

    def identity():
        scenes = SceneSource(100, 0, 32)
        parts = [MixturePart(scenes), MixturePart(ClassFolderSource(tmp_path)), MixturePart(scenes)]
        return identify(MixtureSource(parts))

    before = identity()
    assert identity().changes(before.hashes) == ()
    (tmp_path / "classes.yaml").write_text("ring: circle\n")
    words = identity()
    assert words.changes(before.hashes) == ("2 files are new, or with other captions (ring/0.png, ring/1.png)",)
    Image.new("RGB", (9, 8), "red").save(tmp_path / "ring" / "1.png")
    assert identity().changes(words.hashes) == ("1 file is modified since (ring/1.png)",)
