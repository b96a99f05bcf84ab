"""What generated scenes are made of, and the sentences that describe them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "moon", "arrow")
BACKGROUNDS = ("grass", "sand", "water", "bricks", "wood", "snow", "sky")
SCENE_CLASSES = SHAPES + BACKGROUNDS
TEXTURES = ("plain", "striped", "spotted", "checkered")
COLOURS = {
    "red": (214, 38, 38),
    "orange": (244, 128, 24),
    "yellow": (250, 214, 44),
    "green": (44, 160, 66),
    "blue": (38, 84, 210),
    "purple": (128, 52, 168),
    "pink": (242, 126, 178),
    "white": (246, 246, 246),
    "black": (32, 32, 36),
}
# Colours that would drown in a background are not drawn on it.
CLASHES = {
    "grass": ("green",),
    "sand": ("yellow", "orange"),
    "water": ("blue",),
    "bricks": ("red", "orange"),
    "wood": ("orange", "yellow"),
    "snow": ("white",),
    "sky": ("blue", "white"),
}
# Most things have a usual colour, as in photos; a model can start from it before it knows the shape.
USUAL_COLOURS = {
    "circle": "orange",
    "square": "blue",
    "triangle": "green",
    "star": "yellow",
    "ring": "purple",
    "cross": "white",
    "heart": "red",
    "moon": "pink",
    "arrow": "black",
}
USUAL_SHARE = 0.8

_PLURALS = {shape: f"{shape}es" if shape.endswith("s") else f"{shape}s" for shape in SHAPES}
_COUNTS = {2: "two", 3: "three", 4: "four"}
_MARGIN = 0.08  # of the side: how clearly a relation must hold before a caption states it


@dataclass(frozen=True)
class SceneObject:
    """One object: what it is, and its centre of area and radius as fractions of the side (y points down)."""

    shape: str
    colour: str
    texture: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """A generated picture and everything that is known of it.

    Attributes:
        image: (H,W,3) uint8 RGB.
        mask: (H,W) uint8, for each pixel the index in ``SCENE_CLASSES`` of what is visible there.
        captions: two or three different sentences, all true; some name only a part of what is there.
        objects: from the back to the front.
        backgrounds: the one that covers most first; with two, the second is the sky above it.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    captions: tuple[str, ...]
    objects: tuple[SceneObject, ...]
    backgrounds: tuple[str, ...]


def describe(
    rng: random.Random, objects: Sequence[SceneObject], backgrounds: Sequence[str], horizon: float
) -> tuple[str, ...]:
    """Two or three captions: all objects, a spatial relation where a clear one holds, and a part of the objects.

    ``horizon`` is the height (fraction of the side, from the top) where ``backgrounds[1]`` ends; 0 with one background.
    """
    groups = [[thing for thing in objects if thing.shape == shape] for shape in dict.fromkeys(o.shape for o in objects)]
    rng.shuffle(groups)
    whole, part = rng.sample(range(4), 2)  # two different forms, so that the two sentences differ
    captions = [_sentence(rng, whole, groups, backgrounds, horizon)]
    related = _relation(rng, groups)
    if related is not None:
        place = _place([*groups[0], *groups[1]], backgrounds, horizon) if rng.random() < 0.6 else ""
        captions.append(f"{related} {place}".rstrip())
    captions.append(_sentence(rng, part, groups[: rng.randint(1, 2)], backgrounds, horizon))
    return tuple(captions)


def _sentence(
    rng: random.Random,
    form: int,
    groups: Sequence[Sequence[SceneObject]],
    backgrounds: Sequence[str],
    horizon: float,
) -> str:
    names = [_noun_phrase(rng, group) for group in groups]
    things = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    place = _place([thing for group in groups for thing in group], backgrounds, horizon)
    stuff = " under the ".join(backgrounds)
    return (f"{things} {place}", f"{stuff} with {things}", f"a picture of {things} {place}", f"{things} and {stuff}")[
        form
    ]


def _noun_phrase(rng: random.Random, group: Sequence[SceneObject]) -> str:
    """ "a striped circle", "two red squares": colour and texture are said sometimes, and only where all share them."""
    colours, textures = ({getattr(thing, name) for thing in group} for name in ("colour", "texture"))
    words: list[str] = []
    if len(textures) == 1 and rng.random() < 0.3:
        words += textures - {"plain"}
    if len(colours) == 1 and rng.random() < 0.4:
        words += colours
    words.append(group[0].shape if len(group) == 1 else _PLURALS[group[0].shape])
    count = _COUNTS.get(len(group)) or ("an" if words[0][0] in "aeiou" else "a")
    return " ".join((count, *words))


def _place(things: Sequence[SceneObject], backgrounds: Sequence[str], horizon: float) -> str:
    """Where all the things are: "on grass", "in the sky", or "in front of grass and sky" where they are on both."""
    if len(backgrounds) == 1 or all(thing.y - thing.radius > horizon for thing in things):
        ground = backgrounds[0]
    elif all(thing.y + thing.radius < horizon for thing in things):
        ground = backgrounds[1]
    else:
        return f"in front of {' and '.join(backgrounds)}"
    return "in the sky" if ground == "sky" else f"on {ground}"


def _relation(rng: random.Random, groups: Sequence[Sequence[SceneObject]]) -> str | None:
    """How the first group lies to the second, if every member does so clearly; None otherwise."""
    if len(groups) < 2:
        return None
    first, second = groups[:2]
    across = _offset([thing.x for thing in first], [thing.x for thing in second])
    down = _offset([thing.y for thing in first], [thing.y for thing in second])
    if max(abs(across), abs(down)) < _MARGIN:
        return None
    words, gap = (("left of", "right of"), across) if abs(across) > abs(down) else (("above", "below"), down)
    word = words[0] if gap > 0 else words[1]
    return f"{_noun_phrase(rng, first)} {word} {_noun_phrase(rng, second)}"


def _offset(first: Sequence[float], second: Sequence[float]) -> float:
    """The gap between two sets of coordinates: positive where all of the first come before all of the second."""
    after, before = min(second) - max(first), min(first) - max(second)
    return after if after > 0 else -max(before, 0.0)
