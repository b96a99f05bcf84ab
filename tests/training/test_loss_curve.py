"""Fifty steps of the shipped tiny model on generated scenes, against the losses that they had.

Whatever changes the computation shows here: samples, captions, crops, dropped tokens, initial weights, both towers,
pooling, loss, optimizer, schedule, decay. Another number of threads or an older instruction set moves the losses by
about 2e-6, since the learning rate is low; a logit scale that is 1 % off by 4e-3, an Adam beta of 0.981 for 0.98 by
2e-4. After a change that is meant, put what the test prints in the place of LOSSES, and say in the change log why.
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
    2.564667, 2.340313, 2.449555, 2.202208, 2.371134, 2.628548, 2.032534, 2.299606, 2.147862, 2.014066,
    1.996578, 2.107038, 2.036618, 2.066663, 1.695877, 2.142769, 1.962450, 2.076403, 1.521937, 2.147847,
    2.049644, 2.368325, 1.624385, 2.143697, 1.488784, 1.598665, 1.755106, 1.798769, 1.258729, 1.646138,
    1.718576, 1.693995, 1.526075, 1.370614, 1.379274, 1.504590, 1.669649, 1.456732, 1.103334, 1.292567,
    1.170033, 2.199400, 1.352745, 1.812775, 2.092047, 1.368264, 1.460049, 1.198076, 1.997524, 1.743187,
]
# fmt: on
SETTINGS = {
    "data.source": {"kind": "scenes", "count": 400, "seed": 1},
    "data.resolution": 32,
    "data.workers": 0,
    "train.steps": 50,
    "train.batch_size": 8,
    "train.warmup_steps": 5,
    "train.lr": 3e-4,
    "train.logit_scale_lr": 3e-4,
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
        {"train.weight_decay": 0.2},
        {"train.lr": 3.03e-4},
        {"train.drop_rate": 0.45},
    ],
)
def test_a_slightly_changed_computation_is_seen(tmp_path: Path, change: dict[str, object]) -> None:
    found = curve(tmp_path / "run", **change)
    assert found != pytest.approx(LOSSES, rel=TOLERANCE)
