from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from clippy_cli.app import app
from clippy_cli.errors import ExitCode
from clippy_cli.model.store import load_model

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
    command = arguments(folder, "train.steps=2", "evaluate.scenes=3")
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert str(folder / "model") in done.stdout.replace("\n", "") and "mIoU" in done.stdout
    (measured,) = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))["results"]
    assert measured["data"]["images"] == 3 and 0 <= measured["metrics"]["miou"] <= 1
    assert load_model(str(folder), device="cpu").name == "quickstart"
    again = CliRunner().invoke(app, command)
    assert again.exit_code == ExitCode.FAILED and "--resume" in again.output


def test_ctrl_c_saves_a_checkpoint_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "clippy_cli", *arguments(folder, "train.steps=3000", "data.workers=1")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("step 1/"):
                os.kill(process.pid, signal.SIGINT)
    assert process.returncode == ExitCode.INTERRUPTED, said
    (checkpoint,) = (folder / "checkpoints").iterdir()
    hint = next(line for line in said if line.startswith("hint: Go on with: "))
    resume = shlex.split(hint.removeprefix("hint: Go on with: "))
    assert resume == ["clippy", *command[3:], "--resume"]
    assert checkpoint.suffix == ".pt" and not (folder / "model").exists()


def test_a_wrong_recipe_lists_its_problems(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, arguments(tmp_path / "run", "train.lr=fast", "train.batch=3"))
    assert done.exit_code == ExitCode.FAILED
    assert "2 problems" in done.output and "did you mean train.batch_size?" in done.output
    assert not (tmp_path / "run").exists()
