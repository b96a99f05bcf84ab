from __future__ import annotations

from collections import Counter

from clippy_cli.training.step_shapes import StepShape, StepShapes


def test_the_final_part_has_its_own_drop_rate_resolution_and_chunk(tiny) -> None:
    recipe = tiny(
        "train.drop_rate=0.8", "train.chunk_size=4", "train.final={share: 0.2, resolution: 16, chunk_size: 2}"
    )
    shapes = StepShapes(recipe, (32,), 10)
    assert [shapes.at(step) for step in range(10)] == [StepShape(32, 0.8, 4)] * 8 + [StepShape(16, 0.0, 2)] * 2
    assert shapes.all_resolutions() == [16, 32]
    plain = StepShapes(tiny("train.drop_rate=0.8"), (32,), 10)
    assert {plain.at(step) for step in range(10)} == {StepShape(32, 0.8, None)} and plain.all_resolutions() == [32]


def test_resolutions_are_drawn_evenly_and_follow_the_seed(tiny) -> None:
    sides = [StepShapes(tiny(), (16, 24, 32), 600).at(step).resolution for step in range(600)]
    assert all(150 < count < 250 for count in Counter(sides).values())
    again, other = (StepShapes(tiny(f"seed={seed}"), (16, 24, 32), 600) for seed in (3, 4))
    assert [again.at(step).resolution for step in range(600)] == sides  # the tiny recipe's seed is 3
    assert [other.at(step).resolution for step in range(600)] != sides
