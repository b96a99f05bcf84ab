from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from clippy_cli.app import app
from clippy_cli.commands import train
from clippy_cli.errors import ClippyError, ExitCode
from clippy_cli.model.store import load_model_directory
from clippy_cli.processes import OtherProcessFailed, Processes
from clippy_cli.training.events import Stop
from tests.fixtures.data import encoded, noise

SMALL = ("data.resolution=32", "data.workers=0", "train.batch_size=4", "train.warmup_steps=0", "train.log_every=1")


def arguments(folder: Path, *sets: str) -> list[str]:
    return ["train", "quickstart", *(f"--set={text}" for text in (f"output={folder}", *SMALL, *sets))]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_train_writes_a_model_and_prints_miou_on_held_out_scenes(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = arguments(folder, "train.steps=2", "evaluate.scenes=3", "evaluate.every=1", "evaluate.best=scenes.miou")
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    said = done.stdout.replace("\n", "")
    assert str(folder / "model") in said and str(folder / "best") in said and "mIoU" in said
    (measured,) = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["results"]
    assert measured["data"]["images"] == 3 and 0 <= measured["metrics"]["miou"] <= 1
    assert sorted(path.name for path in (folder / "evaluations").iterdir()) == [
        "step-00000001.json",
        "step-00000002.json",
    ]
    last = json.loads((folder / "evaluations" / "step-00000002.json").read_text(encoding="utf-8"))
    assert last["results"][0]["confusion"] == measured["confusion"]
    assert load_model_directory(str(folder), device="cpu").name == "quickstart"
    again = CliRunner().invoke(app, command)
    assert again.exit_code == ExitCode.FAILED and "--resume" in again.output


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param(signal.SIGTERM, ExitCode.PREEMPTED, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, ExitCode.INTERRUPTED, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_a_checkpoint_and_says_how_to_go_on(tmp_path: Path, sent, code: int) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "clippy_cli", *arguments(folder, "train.steps=3000", "data.workers=1")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("step 1/"):
                os.kill(process.pid, sent)
    assert process.returncode == code, said
    (checkpoint,) = (folder / "checkpoints").iterdir()
    hint = next(line for line in said if line.startswith("hint: Go on with: "))
    resume = shlex.split(hint.removeprefix("hint: Go on with: "))
    assert resume == ["clippy", *command[3:], "--resume"]
    assert checkpoint.suffix == ".pt" and not (folder / "model").exists()


def test_data_that_could_not_be_used_shows_in_the_exit_code(tmp_path: Path) -> None:
    rows = ["image,caption", "0.png,  "]
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(encoded(noise(seed=number)))
        rows.append(f"{number}.png,picture {number}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    source = f"data.source={{kind: table, path: {tmp_path / 't.csv'}}}"
    command = arguments(tmp_path / "run", source, "train.steps=1", "evaluate.scenes=1")
    refused = CliRunner().invoke(app, [*command, "--strict"])
    assert refused.exit_code == ExitCode.FAILED and "1 row skipped: no caption (line 2)" in refused.output
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == ExitCode.PARTIAL and done.output.count("1 row skipped: no caption (line 2)") == 1
    (notice,) = json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))["notices"]
    assert (notice["kind"], notice["examples"]) == ("skipped", ["line 2"])


def test_a_wrong_recipe_lists_its_problems(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, arguments(tmp_path / "run", "train.lr=fast", "train.batch=3"))
    assert done.exit_code == ExitCode.FAILED
    assert "2 problems" in done.output and "did you mean train.batch_size?" in done.output
    assert not (tmp_path / "run").exists()


def test_the_plan_is_printed_and_nothing_is_trained(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*arguments(tmp_path / "run"), "--plan"])
    assert done.exit_code == 0, done.output
    assert "H100 hours" in done.stdout and "checkpoint" in done.stdout
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_passed_on_by_a_launcher_is_the_same_one_and_a_later_one_leaves(sent, monkeypatch) -> None:
    now = time.monotonic()
    with train._stop_on_signal() as should_stop:
        assert should_stop() == Stop.GO_ON
        monkeypatch.setattr("clippy_cli.commands.train.time.monotonic", lambda: now)
        os.kill(os.getpid(), signal.SIGINT)
        assert should_stop() == Stop.INTERRUPTED
        os.kill(os.getpid(), sent)
        assert should_stop() == Stop.PREEMPTED
        monkeypatch.setattr("clippy_cli.commands.train.time.monotonic", lambda: now + 5)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), sent)
    assert signal.getsignal(sent) == signal.SIG_DFL


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({}, ": clippy train 'a b' --resume"),
        (
            {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"},
            ": torchrun --nproc-per-node 2 -m clippy_cli train 'a b' --resume",
        ),
        (
            {"WORLD_SIZE": "32", "LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "node-3"},
            ", on each of the 4 machines: torchrun --nproc-per-node 8 --nnodes 4 --rdzv-backend c10d "
            "--rdzv-endpoint node-3:29400 -m clippy_cli train 'a b' --resume",
        ),
        ({"WORLD_SIZE": "8"}, ", launched as before: python -m clippy_cli train 'a b' --resume"),
    ],
)
def test_the_line_that_goes_on_has_the_launch_in_it(environment, line: str) -> None:
    assert train.resume_line(["train", "a b", "--resume"], environment) == line


def test_of_several_processes_an_error_says_which() -> None:
    with pytest.raises(ClippyError) as raised, train._naming(Processes(rank=2, size=8)):
        raise ClippyError("It broke.", "Mend it.")
    assert raised.value.message == "process 3 of 8: It broke." and raised.value.hint == "Mend it."
    with pytest.raises(ClippyError) as raised, train._naming(Processes()):
        raise ClippyError("It broke.")
    assert raised.value.message == "It broke."
    with pytest.raises(OtherProcessFailed), train._naming(Processes(rank=2, size=8)):
        raise OtherProcessFailed


def test_the_flags_are_these() -> None:
    command = typer.main.get_group(app).commands["train"]
    flags = {option for parameter in command.params for option in parameter.opts}
    assert flags == {"recipe", "--set", "--resume", "--inexact", "--smoke", "--plan", "--strict", "--device"}
