from __future__ import annotations

import math

from clippy_cli.training.best import Best


def test_the_highest_evaluated_figure_or_the_lowest_validation_loss_is_best(tiny) -> None:
    evaluated = Best(tiny("evaluate={scenes: 3, best: scenes.miou}"))
    offers = [(1, 0.2), (2, 0.3), (3, 0.3), (4, 0.1), (5, math.nan), (6, 0.4)]
    assert [evaluated.update_if_better(step, {"scenes.miou": value}) for step, value in offers] == [
        True,
        True,
        *[False] * 3,
        True,
    ]
    assert not evaluated.update_if_better(7, {"other.miou": 1.0}) and (evaluated.step, evaluated.value) == (6, 0.4)
    validated = Best(tiny("data.validation={kind: scenes, count: 9}"))
    assert [
        validated.update_if_better(step, {"validation.loss": loss}) for step, loss in ((1, 2.0), (2, 1.0), (3, 1.5))
    ] == [
        True,
        True,
        False,
    ]
    assert not Best(tiny()).update_if_better(1, {"validation.loss": 1.0})


def test_what_was_best_survives_a_checkpoint_unless_another_figure_judges(tiny) -> None:
    before = Best(tiny("evaluate={scenes: 3, best: scenes.miou}"))
    before.update_if_better(4, {"scenes.miou": 0.5})
    same, other = (
        Best(tiny("evaluate={scenes: 3, best: scenes.miou}")),
        Best(tiny("evaluate={scenes: 3, best: scenes.x}")),
    )
    same.restore(before.state())
    other.restore(before.state())
    assert not same.update_if_better(5, {"scenes.miou": 0.4}) and other.update_if_better(5, {"scenes.x": 0.1})
