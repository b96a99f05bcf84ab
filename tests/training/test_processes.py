"""Several processes against one, over gloo on the CPU."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from clippy_cli.model.build import build_model
from clippy_cli.processes import ALONE, Processes, launched_processes
from clippy_cli.recipe.loading import load_recipe
from clippy_cli.training.checkpoint import latest_checkpoint, load_checkpoint
from clippy_cli.training.forward import Embeddings, tower_inputs
from clippy_cli.training.gradient_caching import backward_in_chunks, backward_whole
from clippy_cli.training.loss import ContrastiveLoss
from clippy_cli.training.order import BatchShare, keep_indices
from clippy_cli.training.run import model_config, train
from tests.fixtures.launch import launch
from tests.training.test_gradient_caching import scenes
from tests.training.test_run import assert_same_weights, weights

BATCH = 8
MODES = ((True, True), (False, True), (False, False))  # local_loss, gather_with_grad
CASES = [
    case
    for case in itertools.product(("max", "lse"), ("softmax", "sigmoid"), MODES, (None, 1))
    if case[0] != "lse" or case[2] != (False, False)  # refused
]


def gradients_of_all_cases(recipe_file: str, processes: Processes) -> list[dict[str, torch.Tensor]]:
    """For every case the gradient of one batch with token dropping, in fp64; each process works on its part."""
    found = []
    for pooling, kind, (local_loss, gather_with_grad), chunk in CASES:
        recipe = load_recipe(recipe_file, [f"model.pooling={pooling}"])
        model = build_model(model_config(recipe), seed=2).double()
        embed = Embeddings(model, recipe.model, "fp32", -3.0 if kind == "sigmoid" else None).double()
        wrapped = embed if processes.size == 1 else DistributedDataParallel(embed, gradient_as_bucket_view=True)
        lse_scale = model.config.image.lse_scale if pooling == "lse" else None
        loss = ContrastiveLoss(kind, lse_scale, processes, local_loss, gather_with_grad)
        keep = keep_indices(BATCH, 16, 0.5, seed=1, step=0, device=torch.device("cpu"))
        rows = BatchShare(BATCH, processes.rank, processes.size).rows
        batch, size = scenes(model, BATCH), chunk or BATCH // processes.size
        starts = range(rows.start, rows.stop, size)
        chunks = [tower_inputs(model, batch, keep, slice(start, start + size), None) for start in starts]
        if len(chunks) == 1:
            backward_whole(wrapped, chunks[0], loss, 0, lambda value: value)
        else:
            backward_in_chunks(wrapped, chunks, loss, list(range(len(chunks))), lambda value: value)
        found.append({name: p.grad.clone() for name, p in embed.named_parameters() if p.grad is not None})
    return found


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_processes_together_have_the_gradient_of_one(tiny_recipe_file: Path, tmp_path: Path, size: int) -> None:
    workers = launch(["-m", "tests.training.test_processes", "gradients", str(tiny_recipe_file), str(tmp_path)], size)
    expected = gradients_of_all_cases(str(tiny_recipe_file), ALONE)
    for worker in workers:
        _, errors = worker.communicate(timeout=200)
        assert worker.returncode == 0, errors[-3000:]
    for rank in range(size):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for case, mine, alone in zip(CASES, found, expected, strict=True):
            assert mine.keys() == alone.keys() and "model.log_logit_scale" in mine
            for name, gradient in alone.items():
                assert torch.allclose(mine[name], gradient, rtol=1e-8, atol=1e-12), (case, name)


def finish(workers, code: int = 0) -> list[str]:
    """What the processes wrote to stderr, once all have ended with ``code``."""
    said = [worker.communicate(timeout=200)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [code] * len(workers), said
    return said


def command(recipe_file: Path, folder: Path, *options: str) -> list[str]:
    return ["-m", "clippy_cli", "train", str(recipe_file), f"--set=output={folder}", *options]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


@pytest.mark.slow
def test_two_processes_train_as_one_and_resume_bit_equal_after_a_kill(tiny_recipe_file, tmp_path) -> None:
    options = ("--set=data.workers=1", "--set=train.chunk_size=2", "--set=data.validation={kind: scenes, count: 9}")
    finish(launch(command(tiny_recipe_file, tmp_path / "whole", *options), 2))
    killed = launch(command(tiny_recipe_file, tmp_path / "killed", *options), 2)
    wait_for(tmp_path / "killed" / "checkpoints" / "step-00000004.pt")
    for worker in killed:
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    assert not (tmp_path / "killed" / "model").exists()
    (said, silent) = finish(launch(command(tiny_recipe_file, tmp_path / "killed", *options, "--resume"), 2))
    assert "resuming after step" in said and silent == ""
    assert_same_weights(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    alone = load_recipe(str(tiny_recipe_file), [f"output={tmp_path / 'alone'}"])
    train(alone, device="cpu")
    expected, found = weights(tmp_path / "alone"), weights(tmp_path / "whole")
    for name, value in expected.items():
        assert torch.allclose(found[name], value, atol=2e-3), name  # AdamW's first steps turn rounding into signs
    records = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert len([record for record in records if record["event"] == "validation"]) == 2
    outputs = finish(launch(command(tiny_recipe_file, tmp_path / "killed", *options, "--resume"), 4), code=1)
    assert sum("was trained by 2 processes, and now there are 4" in text for text in outputs) == 1


@pytest.mark.slow
def test_two_processes_self_distil_as_one_does(tiny_recipe_file, tmp_path) -> None:
    term = "train.self_distillation={weight: 1, prototypes: 12, hidden_dim: 24, bottleneck_dim: 8, momentum: 0.9}"
    words = ["train.words={weight: 1, min_images: 2}", "model.text.freeze=all"]
    options = [term, *words, "train.epochs=1", "train.optimizer=lamb"]
    alone = load_recipe(str(tiny_recipe_file), [*options, f"output={tmp_path / 'alone'}"])
    train(alone, device="cpu")
    for name, more in (("whole", []), ("chunks", ["--set=train.chunk_size=2"])):
        sets = [f"--set={option}" for option in options]
        finish(launch(command(tiny_recipe_file, tmp_path / name, *sets, *more), 2))
        first = load_checkpoint(latest_checkpoint(tmp_path / "alone" / "checkpoints"))
        second = load_checkpoint(latest_checkpoint(tmp_path / name / "checkpoints"))
        terms = [of.terms["self_distillation"] for of in (first, second)]
        for key, value in (first.model | terms[0]).items():
            assert torch.allclose((second.model | terms[1])[key], value, atol=1e-4), (name, key)


@pytest.mark.slow
def test_sigterm_saves_in_all_processes_and_has_its_own_code(tiny_recipe_file, tmp_path) -> None:
    workers = launch(command(tiny_recipe_file, tmp_path / "run", "--set=train.epochs=3000"), 2)
    wait_for(tmp_path / "run" / "checkpoints" / "step-00000002.pt")
    workers[1].send_signal(signal.SIGTERM)  # the other one learns of it at the same step
    said = finish(workers, code=75)
    assert "Go on with" in said[0]
    finish(launch(command(tiny_recipe_file, tmp_path / "run", "--set=train.epochs=3000", "--resume"), 1), code=1)


@pytest.mark.slow
def test_sigterm_to_the_readers_as_well_still_saves(tiny_recipe_file, tmp_path) -> None:
    """torchrun and SLURM signal whole process groups."""
    options = ("--set=train.epochs=3000", "--set=data.workers=2")
    worker = subprocess.Popen(
        [sys.executable, *command(tiny_recipe_file, tmp_path / "run", *options)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for(tmp_path / "run" / "checkpoints" / "step-00000002.pt")
    os.killpg(worker.pid, signal.SIGTERM)
    assert "Go on with" in finish([worker], code=75)[0]


@pytest.mark.slow
def test_one_failing_process_ends_all_with_one_readable_error(tiny_recipe_file, tmp_path) -> None:
    run = ["-m", "tests.training.test_processes", "fail", str(tiny_recipe_file), str(tmp_path / "run")]
    said = finish(launch(run, 2), code=1)
    assert said[0].count("error:") + said[1].count("error:") == 1 and "Traceback" not in said[0] + said[1]
    assert said[1] == "error: process 2 of 2: the disk of process 1 is gone\n"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_vanishes_ends_the_other_within_seconds(tiny_recipe_file, tmp_path, rank: int) -> None:
    workers = launch(command(tiny_recipe_file, tmp_path / "run", "--set=train.epochs=3000"), 2)
    wait_for(tmp_path / "run" / "checkpoints" / "step-00000002.pt")
    workers[rank].kill()
    _, said = workers[1 - rank].communicate(timeout=30)
    assert workers[1 - rank].returncode == 1
    assert "Traceback" not in said and "Exception raised from" not in said
    if rank == 1:  # else the first process took the others' store along, and the launcher says so
        assert said.count("error:") == 1 and "exited without reporting an error" in said
    workers[rank].communicate()


if __name__ == "__main__":
    wish, source, target = sys.argv[1:]
    torch.set_num_threads(1)
    if wish == "gradients":
        with launched_processes() as together:
            torch.save(gradients_of_all_cases(source, together), Path(target) / f"{together.rank}.pt")
    else:
        from clippy_cli.app import app
        from clippy_cli.errors import ClippyError
        from clippy_cli.training.train_step import TrainStep

        update = TrainStep.__call__

        def failing(self, batch, shape, step):
            if step == 3 and os.environ["RANK"] == "1":
                raise ClippyError("the disk of process 1 is gone")
            return update(self, batch, shape, step)

        TrainStep.__call__ = failing  # type: ignore[method-assign]
        app(["train", source, f"--set=output={target}"])
