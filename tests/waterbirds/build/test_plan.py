"""Splits, places and backgrounds: counts are exact, and only the seed decides the rest."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clippy_cli.errors import ClippyError
from clippy_cli.waterbirds.build.backgrounds import Backgrounds
from clippy_cli.waterbirds.build.foregrounds import ForegroundFile, Foregrounds
from clippy_cli.waterbirds.build.plan import draw_places, draw_splits, plan_placements

TRAIN, VAL, TEST = range(3)


def birds(land, water, *, split=None):
    files = [ForegroundFile(f"{i}.jpg", Path(), Path(), int(i >= land), split) for i in range(land + water)]
    return Foregrounds(Path("birds"), ("land bird", "water bird"), tuple(files))


def places(land, water):
    names = tuple(tuple(f"{place}/{i}" for i in range(n)) for place, n in (("land", land), ("water", water)))
    return Backgrounds(Path("places"), ("land", "water"), names)


def test_the_published_sizes_give_the_published_groups():
    sizes = {(0, TRAIN): 3682, (1, TRAIN): 1113, (0, VAL): 933, (1, VAL): 266, (0, TEST): 4510, (1, TEST): 1284}
    classes, splits = (np.repeat([key[part] for key in sizes], list(sizes.values())) for part in (0, 1))
    drawn = draw_places(classes, splits, 0.95, np.random.default_rng(0))
    groups = [Counter((2 * classes + drawn)[splits == split].tolist()) for split in (TRAIN, VAL, TEST)]
    assert [[count[group] for group in range(4)] for count in groups] == [
        [3498, 184, 56, 1057],
        [467, 466, 133, 133],
        [2255, 2255, 642, 642],
    ]


def test_cub_keeps_its_split_and_gives_a_fifth_of_training_to_validation():
    splits = draw_splits(["train"] * 5994 + ["test"] * 5794, np.zeros(11788, int), np.random.default_rng(0))
    assert np.bincount(splits).tolist() == [4795, 1199, 5794]
    assert np.all(splits[5994:] == TEST)


@pytest.mark.parametrize(
    ("strength", "train"),
    [(0.95, (30, 2, 0, 8)), (0.75, (24, 8, 2, 6)), (0.5, (16, 16, 4, 4)), (0.0, (0, 32, 8, 0)), (1.0, (32, 0, 0, 8))],
)
def test_group_counts_follow_the_strength(strength, train):
    foregrounds = birds(41, 11)
    own = ["train"] * 40 + ["test"] + ["train"] * 10 + ["test"]
    files = tuple(replace(file, split=split) for file, split in zip(foregrounds.files, own, strict=True))
    seed = next(  # validation takes from both classes as chance will; a draw of 8 and 2 makes counts easy to know
        seed
        for seed in range(100)
        if np.bincount(draw_splits(own, np.array([0] * 41 + [1] * 11), np.random.default_rng(seed))[:41])[VAL] == 8
    )
    plan = plan_placements(replace(foregrounds, files=files), places(60, 60), strength=strength, seed=seed)
    assert plan.counts() == {"train": train, "val": (4, 4, 1, 1), "test": (1, 0, 1, 0)}


@given(st.integers(5, 40), st.integers(5, 40), st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32))
def test_backgrounds_are_used_evenly_and_of_the_right_place(land, water, n_land, n_water, seed):
    plan = plan_placements(birds(land, water), places(n_land, n_water), strength=0.9, seed=seed)
    assert [row.foreground for row in plan.placements] == list(range(land + water))
    assert plan == plan_placements(birds(land, water), places(n_land, n_water), strength=0.9, seed=seed)
    for place, (name, available) in enumerate((("land", n_land), ("water", n_water))):
        used = Counter(row.background for row in plan.placements if row.place == place)
        assert all(background.startswith(name) for background in used)
        times = [used[f"{name}/{index}"] for index in range(available)]
        assert max(times) - min(times) <= 1
        assert plan.reused[place] == sum(max(0, count - 1) for count in times)


def test_the_seed_decides():
    first, second = (plan_placements(birds(20, 20), places(30, 30), strength=0.9, seed=seed) for seed in (0, 1))
    assert first.placements != second.placements


def test_objects_without_a_split_are_parted_by_class():
    plan = plan_placements(birds(20, 10), places(20, 20), strength=0.9, seed=3)
    test = [row.class_index for row in plan.placements if row.split == TEST]
    assert (test.count(0), test.count(1)) == (10, 5)


@pytest.mark.parametrize(
    ("land", "water", "strength", "seed", "problem"),
    [
        (1, 1, 0.9, 0, r"2 objects are too few; the splits would get 2 \(train\), 0 \(val\), 0 \(test\)"),
        (9, 9, 1.01, 0, "from 0 to 1, it is 1.01"),
        (9, 9, float("nan"), 0, "from 0 to 1, it is nan"),
        (9, 9, 0.9, -1, "must not be negative, it is -1"),
    ],
)
def test_plans_that_make_no_sense(land, water, strength, seed, problem):
    with pytest.raises(ClippyError, match=problem):
        plan_placements(birds(land, water), places(9, 9), strength=strength, seed=seed)


def test_objects_without_a_split_are_parted_class_by_class():
    classes = np.array([0] * 20 + [1] * 40)
    splits = draw_splits([None] * 60, classes, np.random.default_rng(0))
    assert [np.bincount(splits[classes == index]).tolist() for index in (0, 1)] == [[8, 2, 10], [16, 4, 20]]
