"""Fifty steps of the shipped tiny model on generated scenes, against the losses that they had.

Whatever changes the computation shows here: samples, captions, crops, dropped tokens, initial weights, both towers,
pooling, loss, optimizer, schedule, decay. Another number of threads or another instruction set moves the losses by less
than 1e-5; a logit scale or a learning rate that is 1 % off, or an Adam beta of 0.981 for 0.98, by more than 1e-3. After
a change that is meant, write what the test prints in the place of LOSSES, and say in the change log why.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from clippy_cli.recipe.loading import load_recipe
from clippy_cli.training.events import StepReport
from clippy_cli.training.run import train

TOLERANCE = 1e-4  # relative
# fmt: off
LOSSES = [
    2.564667, 2.195581, 2.451450, 2.922011, 2.389743, 3.298276, 2.960817, 1.971838, 2.741853, 2.461078,
    1.978422, 2.298523, 1.918216, 1.815511, 1.751981, 1.680651, 1.482232, 2.285105, 1.380236, 2.052643,
    2.103559, 1.863106, 2.036497, 1.767089, 1.853872, 2.055471, 1.662238, 1.596557, 1.396970, 1.774817,
    1.933140, 1.565346, 2.293097, 1.748270, 1.962982, 1.696135, 1.651134, 1.993509, 1.353976, 1.872529,
    1.587072, 1.839510, 1.605227, 1.642855, 2.089078, 1.501420, 1.548517, 1.502784, 1.830490, 1.798678,
]
# fmt: on
SETTINGS = {
    "data.source": {"kind": "scenes", "count": 400, "seed": 1},
    "data.resolution": 32,
    "data.workers": 0,
    "train.steps": 50,
    "train.batch_size": 8,
    "train.warmup_steps": 5,
    "train.log_every": 1,
    "evaluate.scenes": 0,
}


def curve(folder: Path, **changes: object) -> list[float]:
    losses: list[float] = []
    recipe = load_recipe("quickstart", {**SETTINGS, "output": folder, **changes})
    train(recipe, device="cpu", on_event=lambda e: losses.append(e.loss) if isinstance(e, StepReport) else None)
    return losses


def test_fifty_steps_have_the_losses_that_they_had(tmp_path: Path) -> None:
    found = curve(tmp_path / "run")
    assert found == pytest.approx(LOSSES, rel=TOLERANCE), f"LOSSES = {[round(loss, 6) for loss in found]}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"train.logit_scale_init": 1.01 / 0.07},
        {"train.betas": [0.9, 0.981]},
        {"train.weight_decay": 0.11},
        {"train.lr": 2.02e-3},
        {"train.drop_rate": 0.45},
    ],
)
def test_a_slightly_changed_computation_is_seen(tmp_path: Path, change: dict[str, object]) -> None:
    found = curve(tmp_path / "run", **change)
    worst = max(abs(now - then) / then for now, then in zip(found, LOSSES, strict=True))
    assert worst > 10 * TOLERANCE
