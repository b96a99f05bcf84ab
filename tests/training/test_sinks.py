"""TensorBoard files are read back with TensorBoard's own reader; W&B is a stand-in that notes its calls."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from clippy_cli.errors import ClippyError
from clippy_cli.extras import install_command
from clippy_cli.training.events import CheckpointFailed, SetsEvaluated, StepReport, Validated
from clippy_cli.training.sinks import Sinks, check_sinks, open_sinks


def report(step: int, loss: float = 2.0) -> StepReport:
    return StepReport(
        step=step, total_steps=9, epoch=0.5, loss=loss, image_accuracy=0.4, text_accuracy=0.3, logit_scale=14.0,
        learning_rate=1e-3, grad_norm=1.0, images_per_second=100.0, tokens_per_second=None, teraflops=0.1,
        flop_utilisation=None, wait_share=0.1, memory_gb=1.5, seconds_left=60.0, broken=2,
    )  # fmt: skip


class Wandb(ModuleType):
    def __init__(self):
        super().__init__("wandb")
        self.begun, self.logged, self.finished = [], [], 0

    def init(self, **settings):
        self.begun.append(settings)
        return self

    def log(self, figures, step):
        self.logged.append((step, figures))

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    module = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def test_a_resumed_curve_has_no_step_twice(tiny, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    recipe = tiny("log.tensorboard=true")
    first = open_sinks(recipe, tmp_path, 0)
    for step in (1, 2, 3):
        first.write(report(step, loss=step))
    first.write(CheckpointFailed(3, "full"))
    first.close()
    again = open_sinks(recipe, tmp_path, 2)
    again.write(report(3, loss=30.0))
    again.write(Validated(3, 2.5))
    again.write(SetsEvaluated(3, {"voc20.miou": 0.25}))
    again.close()
    drawn = curves(tmp_path)
    assert drawn["train/loss"] == [(1, 1.0), (2, 2.0), (3, 30.0)]
    assert drawn["validation/loss"] == [(3, 2.5)] and drawn["evaluation/voc20.miou"] == [(3, 0.25)]
    assert "train/flop_utilisation" not in drawn and "train/total_steps" not in drawn


def test_wandb_goes_on_with_the_same_run(tiny, tmp_path: Path, wandb: Wandb) -> None:
    recipe = tiny("log.wandb=birds")
    for step in (1, 2):
        sinks = open_sinks(recipe, tmp_path, step - 1)
        sinks.write(report(step))
        sinks.close()
    one, two = wandb.begun
    assert one["id"] == two["id"] and one["resume"] == "allow" and one["project"] == "birds"
    assert one["config"]["train"]["batch_size"] == 8 and one["name"] == "tiny" and one["dir"] == str(tmp_path)
    assert [step for step, _ in wandb.logged] == [1, 2] and wandb.finished == 2
    assert wandb.logged[0][1]["train/text_accuracy"] == 0.3


@pytest.mark.parametrize("field", ["log.tensorboard=true", "log.wandb=birds"])
def test_a_missing_package_is_named_with_what_installs_it(tiny, monkeypatch, field: str) -> None:
    package = field.split("=")[0].removeprefix("log.")
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ClippyError, match="not installed") as raised:
        check_sinks(tiny(field))
    assert install_command(package) in raised.value.hint
    check_sinks(tiny())


def test_a_folder_called_wandb_is_no_package(tiny, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ClippyError, match="not installed"):
        check_sinks(tiny("log.wandb=birds"))
    monkeypatch.delitem(sys.modules, "wandb", raising=False)


def test_a_refusal_ends_the_run_before_it_starts(tiny, tmp_path: Path, wandb: Wandb, monkeypatch) -> None:
    pytest.importorskip("tensorboard")

    def refuse(**_):
        raise RuntimeError("api_key not configured\nmore")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ClippyError, match=r"could not start: api_key not configured [(]Run wandb login"):
        open_sinks(tiny("log.wandb=birds", "log.tensorboard=true"), tmp_path / "run", 0)
    assert not list((tmp_path / "run").iterdir())


def test_a_sink_that_fails_is_dropped_and_the_others_go_on(caplog) -> None:
    class Noting:
        name = "noting"

        def __init__(self):
            self.steps = []

        def write(self, step, figures):
            self.steps.append(step)

        def close(self):
            self.steps.append("closed")

    class Failing(Noting):
        name = "failing"

        def write(self, step, figures):
            super().write(step, figures)
            raise OSError(28, "No space left on device")

    failing, noting = Failing(), Noting()
    sinks = Sinks([failing, noting])
    sinks.write(report(1))
    sinks.write(report(2))
    sinks.close()
    assert failing.steps == [1] and noting.steps == [1, 2, "closed"]
    (record,) = caplog.records
    assert "failing" in record.getMessage() and "No space left" in record.getMessage()
