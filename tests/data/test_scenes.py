"""Scenes are the same on every run, their masks are exact, and their captions true."""

from __future__ import annotations

import pickle
import random
import re

import numpy as np
import pytest

from clippy_cli.data.benchmarks.scenes import SceneBenchmark
from clippy_cli.data.scene_drawing import draw_object
from clippy_cli.data.scene_vocabulary import BACKGROUNDS, COLOURS, SCENE_CLASSES, SHAPES, TEXTURES, Scene, SceneObject
from clippy_cli.data.scenes import SceneSource, draw_scene

COUNTS = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4}
NOUN = re.compile(
    rf"\b({'|'.join(COUNTS)})((?: (?:{'|'.join((*TEXTURES, *COLOURS))}))*) ({'|'.join(SHAPES)})(?:e?s)?\b"
)
RELATION = re.compile(rf"({'|'.join(SHAPES)})(?:e?s)? (left of|right of|above|below) .*?({'|'.join(SHAPES)})(?:e?s)?\b")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(3, index, 96) for index in range(250)]


def test_a_scene_depends_on_seed_index_and_resolution_only() -> None:
    first, again = draw_scene(7, 42, 96), draw_scene(7, 42, 96)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert first.captions == again.captions
    assert (first.image != draw_scene(7, 43, 96).image).any()
    assert (first.image != draw_scene(8, 42, 96).image).any()
    large = draw_scene(7, 42, 192)
    assert large.captions == first.captions
    assert (large.mask[1::2, 1::2] == first.mask).mean() > 0.97


def test_the_series_is_the_one_that_recorded_figures_were_measured_on() -> None:
    scene = draw_scene(0, 0, 96)
    assert scene.captions[0] == "a picture of a circle, a purple ring, a pink moon and a heart in the sky"
    assert [(thing.shape, thing.colour, thing.texture) for thing in scene.objects] == [
        ("heart", "green", "plain"),
        ("moon", "pink", "plain"),
        ("ring", "purple", "plain"),
        ("circle", "orange", "spotted"),
    ]
    counts = np.bincount(scene.mask.ravel(), minlength=len(SCENE_CLASSES))
    np.testing.assert_allclose(
        counts[counts > 0], [743, 580, 711, 351, 6831], atol=8
    )  # OpenCV may move an edge by a hair


def test_masks_show_exactly_what_is_listed(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.image.shape == (96, 96, 3)
        assert scene.image.dtype == scene.mask.dtype == np.uint8
        names = {SCENE_CLASSES[index] for index in np.unique(scene.mask)}
        assert names == {thing.shape for thing in scene.objects} | set(scene.backgrounds)
        assert 1 <= len(scene.objects) <= 4
        ground = [int((scene.mask == SCENE_CLASSES.index(name)).sum()) for name in scene.backgrounds]
        assert ground == sorted(ground, reverse=True)


def test_every_class_and_attribute_occurs(scenes: list[Scene]) -> None:
    things = [thing for scene in scenes for thing in scene.objects]
    assert {thing.shape for thing in things} == set(SHAPES)
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {thing.texture for thing in things} == set(TEXTURES)
    assert {scene.backgrounds[0] for scene in scenes} == set(BACKGROUNDS)
    words = {word for scene in scenes for caption in scene.captions for word in re.findall(r"\w+", caption)}
    assert set(BACKGROUNDS) <= words


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mask_is_where_the_paint_is(shape: str) -> None:
    canvas, mask = np.full((3, 64, 64), 255, np.float32), np.zeros((64, 64), np.uint8)
    draw_object(canvas, mask, SceneObject(shape, "black", "plain", 0.5, 0.5, 0.3), 1, random.Random(0))
    brightness = canvas.mean(axis=0)  # 18 to 45 where covered, 255 elsewhere, in between where half covered
    assert brightness[mask == 1].max() < 152
    assert brightness[mask == 0].min() > 135
    rows, columns = np.nonzero(mask)
    assert abs(rows.mean() - 31.5) < 1.2  # the centre of area is where the object says it is
    assert abs(columns.mean() - 31.5) < 1.2


def test_captions_name_only_what_is_there_and_count_it_right(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert 2 <= len(scene.captions) <= 3
        assert len(set(scene.captions)) == len(scene.captions)
        shown = [thing.shape for thing in scene.objects]
        for caption in scene.captions:
            named = NOUN.findall(caption)
            assert named
            for count, attributes, shape in named:
                group = [thing for thing in scene.objects if thing.shape == shape]
                assert COUNTS[count] == len(group), (caption, shown)
                for word in attributes.split():
                    assert all(word in (thing.colour, thing.texture) for thing in group), (caption, scene.objects)
            assert {word for word in BACKGROUNDS if re.search(rf"\b{word}\b", caption)} <= set(scene.backgrounds)


def test_relations_hold_between_the_visible_pixels(scenes: list[Scene]) -> None:
    told = 0
    for scene in scenes:
        centres = {}
        for shape in {thing.shape for thing in scene.objects}:
            rows, columns = np.nonzero(scene.mask == SCENE_CLASSES.index(shape))
            centres[shape] = (rows.mean(), columns.mean())
        for caption in scene.captions:
            match = RELATION.search(caption)
            if match is None:
                continue
            told += 1
            (row, column), (other_row, other_column) = centres[match[1]], centres[match[3]]
            truth = {
                "left of": column < other_column,
                "right of": column > other_column,
                "above": row < other_row,
                "below": row > other_row,
            }
            assert truth[match[2]], (caption, scene.objects)
    assert told > 40


def test_places_hold_for_the_horizon(scenes: list[Scene]) -> None:
    checked = 0
    for scene in scenes:
        if len(scene.backgrounds) == 1:
            continue
        horizon = np.nonzero((scene.mask == SCENE_CLASSES.index("sky")).any(axis=1))[0].max()
        for caption in scene.captions:
            place = re.search(r"(in the sky|on \w+)$", caption)
            if place is None:
                continue
            checked += 1
            for _, _, shape in NOUN.findall(caption):
                rows = np.nonzero(scene.mask == SCENE_CLASSES.index(shape))[0]
                inside = rows.mean() <= horizon if place[1] == "in the sky" else rows.mean() > horizon
                assert inside, (caption, scene.objects)
    assert checked > 10


def test_source_and_benchmark_serve_the_same_kind_of_scene() -> None:
    source = pickle.loads(pickle.dumps(SceneSource(5, 1, 64)))
    sample = source.read(3)
    assert len(source) == 5
    np.testing.assert_array_equal(sample.image, draw_scene(1, 3, 64).image)
    assert "5 generated scenes" in source.describe()
    benchmark = SceneBenchmark(2, 64)
    item = benchmark.read(1)
    assert item.key == benchmark.key(1)
    assert item.mask.dtype == np.uint8
    assert item.image.shape == (64, 64, 3)
    assert item.mask.max() < len(benchmark.classes)
    assert (item.image != source.read(1).image).any()
