"""Generated scenes, held out from training by their seed; every pixel has a class, things and stuff alike."""

from __future__ import annotations

import numpy as np

from clippy_cli.data.benchmarks.base import BenchmarkClass, SegmentationSet, SegmentedImage, SetInfo
from clippy_cli.data.scenes import SCENE_CLASSES, draw_scene

HELD_OUT_SEED = 2_000_000_011  # no recipe's


class SceneBenchmark(SegmentationSet):
    """``count`` scenes of ``resolution`` pixels square, from the held-out series."""

    classes = tuple(BenchmarkClass(name, (name,)) for name in SCENE_CLASSES)
    background: int | None = None
    context: tuple[str, ...] = ()

    def __init__(self, count: int, resolution: int) -> None:
        title = f"{count} generated scenes of {resolution}x{resolution} pixels"
        self.info = SetInfo("scenes", title, catalogued=True)
        self._count = count
        self._resolution = resolution

    def __len__(self) -> int:
        return self._count

    def key(self, index: int) -> str:
        return f"scene-{index}"

    def read(self, index: int) -> SegmentedImage:
        """Scene ``index`` with its exact mask."""
        scene = draw_scene(HELD_OUT_SEED, index, self._resolution)
        return SegmentedImage(self.key(index), scene.image, scene.mask.astype(np.uint8))
