from pathlib import Path

from PIL import Image

from clippy_cli.data.class_captions import ClassFolderSource
from clippy_cli.data.mixture import MixturePart, MixtureSource
from clippy_cli.data.scenes import SceneSource
from clippy_cli.training.feature_cache import _probes


def test_every_part_of_a_mixture_is_probed_however_small(tmp_path: Path):
    (tmp_path / "ring").mkdir()
    for number in range(2):
        Image.new("RGB", (8, 8)).save(tmp_path / "ring" / f"{number}.png")

    def probes(repeat: int) -> list[int]:
        scenes = SceneSource(100, 0, 32)
        return _probes(
            MixtureSource([MixturePart(scenes), MixturePart(ClassFolderSource(tmp_path), repeat), MixturePart(scenes)])
        )

    before = probes(1)
    assert before != probes(2)
    (tmp_path / "classes.yaml").write_text("ring: circle\n")
    words = probes(1)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "ring" / "1.png")
    assert words not in (before, probes(1))
