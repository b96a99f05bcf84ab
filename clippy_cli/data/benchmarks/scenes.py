"""Generated scenes, held out from training by their seed; every pixel has a class, things and stuff alike."""

from __future__ import annotations

import numpy as np

from clippy_cli.data.benchmarks.base import BenchmarkClass, SegmentedImage
from clippy_cli.data.scenes import SCENE_CLASSES, draw_scene

HELD_OUT_SEED = 2_000_000_011  # no recipe's


class SceneBenchmark:
    """``count`` scenes of ``resolution`` pixels square, from the held-out series."""

    name = "scenes"
    classes = tuple(BenchmarkClass(name, (name,)) for name in SCENE_CLASSES)
    background_index: int | None = None
    context: tuple[str, ...] = ()
    ignore_index = 255

    def __init__(self, count: int, resolution: int) -> None:
        self._count = count
        self._resolution = resolution

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> SegmentedImage:
        """Scene ``index`` with its exact mask."""
        scene = draw_scene(HELD_OUT_SEED, index, self._resolution)
        return SegmentedImage(f"scene {index}", scene.image, scene.mask.astype(np.int64))
