"""Drills of what nobody breaks on purpose: two runs in one folder, data that changed, a bit that flipped.

Part of ``benchmarks/fault_drill.py --only trust``. What could be mixed up without a word must be refused or named.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from drill_ground import PATIENCE, STEPS, Drill, Ground, checkpoints
from PIL import Image

from clippy_cli.errors import ExitCode

_PHOTOS, _SIDE = 48, 320


def two_at_once(ground: Ground, drill: Drill) -> None:
    drill.what = "a second --resume in the run folder of a run that is alive, stopped meanwhile"
    folder = ground.new("two-at-once")
    run = ground.start(folder)
    run.until("a checkpoint", lambda: bool(checkpoints(folder)))
    run.send(signal.SIGSTOP)  # it holds the folder while it stands still, however long the second takes to start
    second = ground.start(folder, "--resume")
    drill.readable(second, ExitCode.FAILED)
    run.send(signal.SIGCONT)
    drill.expect(
        f"process {run.processes[0].pid} on" in second.said(), f"the first is not named: {second.said()[-300:]}"
    )
    drill.readable(run, ExitCode.OK)
    drill.seen.append("the second was refused, the first named")
    drill.same(ground.reference(), folder)


def changed_before_resume(ground: Ground, drill: Drill) -> None:
    drill.what = "SIGKILL, other captions in a shard of the same size, resume; then the old shard again"
    shards, folder = ground.new_shards(), ground.new("changed")
    run = ground.start(folder, shards=shards)
    run.until_step(STEPS // 2)
    at = run.send(signal.SIGKILL)
    run.wait()
    path = shards / "00002.tar"
    before, status = path.read_bytes(), path.stat()
    words = before.replace(b" a ", b" o ")
    drill.expect(words != before and len(words) == len(before), "the drill changed nothing")
    path.write_bytes(words)
    refused = ground.start(folder, "--resume", shards=shards)
    drill.readable(refused, ExitCode.FAILED)
    drill.expect("00002.tar" in refused.said(), f"what changed is not named: {refused.said()[-300:]}")
    drill.seen.append("refused, the shard named")
    path.write_bytes(before)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    last = ground.start(folder, "--resume", shards=shards)
    drill.readable(last, ExitCode.OK)
    drill.resumed(last, at)
    drill.same(ground.reference(), folder)


def flipped_bit(ground: Ground, drill: Drill) -> None:
    drill.what = "SIGKILL, one bit of the newest checkpoint and of the model flipped"
    folder = ground.new("flipped")
    run = ground.start(folder)
    run.until("two checkpoints", lambda: len(checkpoints(folder)) >= 2)
    run.send(signal.SIGKILL)
    run.wait()
    newest = sorted(folder.glob("checkpoints/*.pt"))[-1]
    _flip(newest)
    refused = ground.start(folder, "--resume")
    drill.readable(refused, ExitCode.FAILED)
    drill.expect(newest.name in refused.said(), f"the file is not named: {refused.said()[-300:]}")
    for path in newest.parent.glob(f"{newest.stem}*"):
        path.unlink()
    last = ground.start(folder, "--resume")
    drill.readable(last, ExitCode.OK)
    drill.seen.append("refused, the checkpoint named; went on from the one before")
    drill.same(ground.reference(), folder)
    spoiled = ground.new("spoiled")
    shutil.copytree(folder / "model", spoiled)
    _flip(spoiled / "model.safetensors")
    code, said = _clippy("segment", str(next(iter(ground.images_folder.glob("*.jpg")))), "--labels", "a,b",
                         "--save", "none", "--model", str(spoiled))  # fmt: skip
    drill.expect(code == ExitCode.FAILED and "model.safetensors" in said, f"the model was used: {said[-300:]}")
    drill.seen.append("a model with a flipped bit is refused")


def masks_replaced(ground: Ground, drill: Drill) -> None:
    drill.what = "SIGKILL of an evaluation, masks replaced, the same command again"
    data = ground.new("set")
    data.mkdir()
    rng = np.random.default_rng(0)
    for number in range(_PHOTOS):
        pixels = rng.integers(0, 255, (_SIDE, _SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(data / f"{number:02}.jpg")
        Image.fromarray(np.full((_SIDE, _SIDE), number % 2, np.uint8)).save(data / f"{number:02}.png")
    text = "title: drill\nimages: '{}.jpg'\nmasks: '{}.png'\nclasses: [dog, grass]\n"
    (data / "set.yaml").write_text(text, encoding="utf-8")
    command = ("evaluate", str(data / "set.yaml"), "--task", "segment", "--batch-size", "2", "--workers", "1", "--json")
    out, whole = ground.new("evaluation"), ground.new("evaluation")
    process = subprocess.Popen(
        [sys.executable, "-m", "clippy_cli", *command, "--out", str(out)], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + PATIENCE
    while _counted(out) < _PHOTOS // 4 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    counted = _counted(out)
    drill.expect(0 < counted < _PHOTOS, f"{counted} images were counted when it was killed")
    for number in range(0, counted, 3):
        Image.fromarray(np.full((_SIDE, _SIDE), 1 - number % 2, np.uint8)).save(data / f"{number:02}.png")
    code, said = _clippy(*command, "--out", str(out))
    drill.expect(code == ExitCode.OK and "changed since" in said, f"not named: {said[-300:]}")
    code, said = _clippy(*command, "--out", str(whole))
    found, expected = (json.loads((folder / "result.json").read_text())["results"][0] for folder in (out, whole))
    same = all(found[key] == expected[key] for key in ("metrics", "classes", "confusion"))
    drill.expect(same, "old and new masks are mixed")
    drill.seen.append(f"{counted} of {_PHOTOS} were counted; those whose masks changed were named and counted again")
    drill.compared = "figures equal" if same else "different"


def repacked_after_edits(ground: Ground, drill: Drill) -> None:
    drill.what = "data pack again after photos were edited"
    images, out = ground.new("photos"), ground.new("packed")
    images.mkdir()
    for number in range(6):
        Image.new("RGB", (64, 64), (255, 0, 0)).save(images / f"{number}.png")
        (images / f"{number}.txt").write_text(f"thing {number}", encoding="utf-8")
    drill.expect(_clippy("data", "pack", str(images), str(out))[0] == ExitCode.OK, "packing failed")
    for number in range(6):
        Image.new("RGB", (64, 64), (0, 0, 255)).save(images / f"{number}.png")
    code, said = _clippy("data", "pack", str(images), str(out))
    drill.expect(code != ExitCode.OK, f"the old pixels were kept without a word: {said[-300:]}")
    drill.seen.append("refused; what changed is named")
    drill.compared = "not compared"


def _counted(out: Path) -> int:
    lines = [line for path in out.glob("unfinished/*.jsonl") for line in path.read_text(encoding="utf-8").splitlines()]
    return sum(line.count('"index":') for line in lines) // 2


def _flip(path: Path) -> None:
    """Flip one bit in the middle of a file: a weight's, in a file of weights."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x40]))


def _clippy(*arguments: str) -> tuple[int, str]:
    """A command's exit code, and what it said on stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "clippy_cli", *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return done.returncode, done.stderr
