"""Generated scenes: captioned pictures with exact masks, for training and measuring with no data at hand.

Every scene depends on nothing but (seed, index, resolution).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from clippy_cli.data.captions import CaptionedImage
from clippy_cli.data.pictures import ArrayPicture
from clippy_cli.data.scene_drawing import draw_ground, draw_object, finish
from clippy_cli.data.scene_vocabulary import (
    BACKGROUNDS,
    CLASHES,
    COLOURS,
    SCENE_CLASSES,
    SHAPES,
    TEXTURES,
    USUAL_COLOURS,
    USUAL_SHARE,
    Scene,
    SceneObject,
    describe,
)
from clippy_cli.notices import Notices

__all__ = ["BACKGROUNDS", "SCENE_CLASSES", "SHAPES", "Scene", "SceneObject", "SceneSource", "draw_scene"]

_RADII = {1: (0.17, 0.33), 2: (0.14, 0.25), 3: (0.13, 0.21), 4: (0.12, 0.18)}  # by number of objects, of the side
_HORIZON_SHARE = 0.35
_GROUNDS_UNDER_SKY = ("grass", "sand", "water", "snow")
_TRIES = 40


def draw_scene(seed: int, index: int, resolution: int) -> Scene:
    """Scene number ``index`` of the series ``seed`` as a square picture of ``resolution`` pixels (at least 32).

    One to four objects lie on one background, or on two with a horizon; objects overlap slightly at most. Each shape
    has a usual colour, which four of five bear. The layout and the captions do not depend on the resolution.
    """
    rng = random.Random(f"{seed}/{index}")
    noise = np.random.default_rng(rng.getrandbits(64))
    backgrounds, horizon = _choose_backgrounds(rng)
    objects = _choose_objects(rng, backgrounds)
    captions = describe(rng, objects, backgrounds, horizon)

    canvas = draw_ground(backgrounds[0], resolution, rng, noise)
    mask = np.full((resolution, resolution), SCENE_CLASSES.index(backgrounds[0]), np.uint8)
    if len(backgrounds) > 1:
        rows = round(horizon * resolution)
        canvas[:, :rows] = draw_ground(backgrounds[1], resolution, rng, noise)[:, :rows]
        mask[:rows] = SCENE_CLASSES.index(backgrounds[1])
    for thing in objects:
        draw_object(canvas, mask, thing, SCENE_CLASSES.index(thing.shape), rng)
    return Scene(finish(canvas), mask, captions, objects, backgrounds)


class SceneSource:
    """The first ``count`` scenes of the series ``seed`` as a caption source; they are drawn when they are read."""

    def __init__(self, count: int, seed: int, resolution: int) -> None:
        self._count = count
        self._seed = seed
        self._resolution = resolution
        self.notices = Notices()

    def __len__(self) -> int:
        return self._count

    def read(self, index: int) -> CaptionedImage:
        """Scene ``index``; it has two or three captions."""
        scene = draw_scene(self._seed, index, self._resolution)
        return CaptionedImage(f"scene {self._seed}/{index}", ArrayPicture(scene.image), scene.captions)

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of scene ``index``."""
        return self.read(index).captions

    def describe(self) -> str:
        """One line for the training log."""
        side = self._resolution
        return f"{self._count} generated scenes of {side}x{side} pixels, seed {self._seed}"


def _choose_backgrounds(rng: random.Random) -> tuple[tuple[str, ...], float]:
    """One background, or a ground and the sky above it; with the horizon's height as a fraction from the top."""
    if rng.random() < _HORIZON_SHARE:
        return (rng.choice(_GROUNDS_UNDER_SKY), "sky"), rng.uniform(0.25, 0.42)
    return (rng.choice(BACKGROUNDS),), 0.0


def _choose_objects(rng: random.Random, backgrounds: Sequence[str]) -> tuple[SceneObject, ...]:
    clashing = {colour for ground in backgrounds for colour in CLASHES[ground]}
    colours = [colour for colour in COLOURS if colour not in clashing]
    wanted = rng.randint(1, 4)
    shapes = rng.sample(SHAPES, wanted)
    things: list[SceneObject] = []
    for shape in shapes:
        place = _free_place(rng, wanted, things)
        if place is None:
            continue
        colour, texture = _choose_colour(rng, shape, colours), rng.choice(TEXTURES)
        if things and rng.random() < 0.25:  # one more of the kind before, often in the same colours
            shape = things[-1].shape
            if rng.random() < 0.7:
                colour, texture = things[-1].colour, things[-1].texture
        things.append(SceneObject(shape, colour, texture, *place))
    return tuple(things)


def _choose_colour(rng: random.Random, shape: str, colours: Sequence[str]) -> str:
    usual = USUAL_COLOURS[shape]
    return usual if usual in colours and rng.random() < USUAL_SHARE else rng.choice(colours)


def _free_place(rng: random.Random, wanted: int, things: Sequence[SceneObject]) -> tuple[float, float, float] | None:
    """(x, y, radius) inside the picture and hardly over another object; None where no room was found."""
    for _ in range(_TRIES):
        radius = rng.uniform(*_RADII[wanted])
        x, y = (rng.uniform(1.15 * radius, 1 - 1.15 * radius) for _ in range(2))
        if all((x - o.x) ** 2 + (y - o.y) ** 2 > (0.92 * (radius + o.radius)) ** 2 for o in things):
            return x, y, radius
    return None
