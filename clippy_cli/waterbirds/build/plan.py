"""Which object goes into which split and on which background: all that is random in a set, drawn from one seed.

The rules are those of dataset_scripts/generate_waterbirds.py in kohpangwei/group_DRO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clippy_cli.errors import ClippyError
from clippy_cli.waterbirds.build.backgrounds import Backgrounds
from clippy_cli.waterbirds.build.foregrounds import Foregrounds, Split
from clippy_cli.waterbirds.dataset import SPLITS, GroupCounts

VAL_FRACTION = 0.2  # of the training data
TEST_FRACTION = 0.5  # of each class, where objects have no split of their own; CUB's test split is 49 % of it
_TRAIN, _VAL, _TEST = range(len(SPLITS))


@dataclass(frozen=True)
class Placement:
    """One composite to be made: an object by its index, the codes of its row, and its background's file."""

    foreground: int
    key: str
    class_index: int
    split: int
    place: int
    background: str


@dataclass(frozen=True)
class PlacementPlan:
    """All composites of a set, in the order of the objects.

    Attributes:
        reused: for each place, how many composites get a background that another one has already.
    """

    placements: tuple[Placement, ...]
    reused: tuple[int, int]

    def counts(self) -> dict[str, GroupCounts]:
        """Composites of each split in each group, 2 * class + place."""
        table = np.zeros((len(SPLITS), 4), np.int64)
        for row in self.placements:
            table[row.split, 2 * row.class_index + row.place] += 1
        return {split: (int(a), int(b), int(c), int(d)) for split, (a, b, c, d) in zip(SPLITS, table, strict=True)}


def plan_placements(foregrounds: Foregrounds, backgrounds: Backgrounds, *, strength: float, seed: int) -> PlacementPlan:
    """Draw splits, places and backgrounds; the same for the same arguments, on every machine.

    In training ``strength`` (0 to 1) of class 0 lie on place 0 and as many of class 1 on place 1; in the other splits
    half. A background serves once until there is none left. ClippyError where a split would be empty.
    """
    if not 0 <= strength <= 1:
        raise ClippyError(f"The strength must be from 0 to 1, it is {strength}", "The published set has 0.95.")
    if seed < 0:
        raise ClippyError(f"The seed must not be negative, it is {seed}", "Give 0 or more.")
    rng = np.random.default_rng(seed)
    classes = np.array([file.class_index for file in foregrounds.files])
    splits = draw_splits([file.split for file in foregrounds.files], classes, rng)
    sizes = {name: int(np.sum(splits == index)) for index, name in enumerate(SPLITS)}
    if not all(sizes.values()):
        raise ClippyError(
            f"{foregrounds.folder}: {len(classes)} objects are too few; the splits would get "
            f"{', '.join(f'{size} ({name})' for name, size in sizes.items())}",
            "Every split needs an object; ten objects of each class are enough.",
        )
    places = draw_places(classes, splits, strength, rng)
    names = np.empty(len(classes), object)
    reused = []
    for place, files in enumerate(backgrounds.files):
        wanted = int(np.sum(places == place))
        drawn = _deal(len(files), wanted, rng)
        names[places == place] = [files[index] for index in drawn]
        reused.append(wanted - min(wanted, len(files)))
    columns = zip(foregrounds.files, classes, splits, places, names, strict=True)
    placements = tuple(
        Placement(index, file.key, int(class_index), int(split), int(place), name)
        for index, (file, class_index, split, place, name) in enumerate(columns)
    )
    return PlacementPlan(placements, (reused[0], reused[1]))


def draw_splits(own: Sequence[Split | None], classes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """(N,) indices into SPLITS: objects keep their own split, the others are parted; then a part of training is val.

    Free objects are parted class by class. Those that come with a split give validation as the published generator
    takes it, from all classes together.
    """
    splits = np.array([_TEST if split == "test" else _TRAIN for split in own])
    free = np.array([split is None for split in own])
    for class_index in (0, 1):
        members = np.flatnonzero(free & (classes == class_index))
        splits[_some(members, TEST_FRACTION, rng)] = _TEST
        splits[_some(members[splits[members] == _TRAIN], VAL_FRACTION, rng)] = _VAL
    splits[_some(np.flatnonzero(~free & (splits == _TRAIN)), VAL_FRACTION, rng)] = _VAL
    return splits


def draw_places(
    classes: NDArray[np.int64], splits: NDArray[np.int64], strength: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """(N,) class indices and (N,) splits -> (N,) places, 0 or 1, in exact proportions rounded half to even."""
    places = np.zeros(len(classes), np.int64)
    for split in range(len(SPLITS)):
        for class_index in (0, 1):
            fraction = 0.5 if split != _TRAIN else strength if class_index == 1 else 1 - strength
            members = np.flatnonzero((splits == split) & (classes == class_index))
            places[_some(members, fraction, rng)] = 1
    return places


def _some(members: NDArray[np.int64], fraction: float, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.permutation(members)[: round(fraction * len(members))]


def _deal(files: int, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """``wanted`` indices below ``files``; each comes once more only when all have come equally often."""
    rounds = [rng.permutation(files) for _ in range(-(-wanted // files))]
    return np.concatenate([*rounds, np.empty(0, np.int64)])[:wanted]
