"""What a training run loses when machines, disks, data and networks fail under it: nothing.

    python benchmarks/fault_drill.py                  # all drills, about five minutes on two cores
    python benchmarks/fault_drill.py --only disk url  # some of them

Data that changed, a second run in one folder and a flipped bit are among it: each must be refused or named.

Tiny models train on generated shards through the command line, as a user runs it, and are killed, filled up, cut off
and preempted on the way. Each is then resumed and compared with a run that nothing happened to: the SHA-256 of the
weights, and every step's loss, accuracies, learning rate and gradient norm in log.jsonl, once each and in order. The
table is printed and written to benchmarks/results/; the exit status is 1 where anything was lost.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from drill_ground import (
    BATCH,
    CHECKPOINT_EVERY,
    PATIENCE,
    SCENES,
    SHARDS,
    STEPS,
    Drill,
    Ground,
    checkpoints,
    curve_of,
    records,
    serve,
    small_disk,
)
from results_file import write_results
from rich.console import Console
from rich.table import Table
from trust_drills import changed_before_resume, flipped_bit, masks_replaced, repacked_after_edits, two_at_once

from clippy_cli.errors import ExitCode

OUTAGE = 6.0
console = Console()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=DRILLS, default=list(DRILLS), help="which drills")
    parser.add_argument("--seed", type=int, default=0, help="of the steps at which processes are killed")
    options = parser.parse_args()

    drills = []
    with tempfile.TemporaryDirectory(prefix="fault-drill-") as folder:
        ground = Ground(Path(folder), random.Random(options.seed))
        for name in options.only:
            for make in DRILLS[name]:
                started = time.monotonic()
                drill = Drill()
                make(ground, drill)
                drills.append(drill)
                result = "lost: nothing" if not drill.lost else f"LOST: {'; '.join(drill.lost)}"
                console.print(f"{drill.what}: {result} ({time.monotonic() - started:.0f} s)", highlight=False)
    columns = ("fault", "what was seen", "steps repeated", "samples left out", "weights and curve", "lost")
    rows = [
        (d.what, "; ".join(d.seen), str(d.repeated), d.left_out, d.compared, "; ".join(d.lost) or "nothing")
        for d in drills
    ]
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    settings = (
        f"{STEPS} steps of {BATCH} images, a checkpoint every {CHECKPOINT_EVERY}, two readers for each trainer, "
        f"seed {options.seed} (`benchmarks/fault_drill.py`). Steps repeated are those done again after a resume."
    )
    console.print(f"written to {write_results('fault_drill', settings, columns, rows, torch.device('cpu'))}")
    sys.exit(any(drill.lost for drill in drills))


def killed_at_random_steps(ground: Ground, drill: Drill) -> None:
    steps = sorted(ground.rng.sample(range(2, STEPS - 4), 3))
    drill.what = f"SIGKILL at {len(steps)} random steps of one run"
    folder, options = ground.new("killed"), list[str]()
    reference = ground.reference()
    at = 0
    for step in steps:
        run = ground.start(folder, *options)
        run.until_step(step)
        killed_at = run.send(signal.SIGKILL)
        run.wait()
        drill.resumed(run, at)
        at, options = killed_at, ["--resume"]
        drill.seen.append(f"killed at step {at}")
    last = ground.start(folder, "--resume")
    drill.readable(last, ExitCode.OK)
    drill.resumed(last, at)
    drill.same(reference, folder)


def killed_in_a_checkpoint(ground: Ground, drill: Drill) -> None:
    drill.what = "SIGKILL while a checkpoint is written"
    folder = ground.new("killed")
    run = ground.start(folder)
    run.until("a checkpoint", lambda: bool(checkpoints(folder)))
    run.until("a second one being written", lambda: any(folder.glob("checkpoints/*.tmp")))
    at = run.send(signal.SIGKILL)
    run.wait()
    left = sorted(path.name for path in folder.glob("checkpoints/*"))
    drill.seen.append(f"left: {', '.join(left)}")
    last = ground.start(folder, "--resume")
    drill.readable(last, ExitCode.OK)
    drill.resumed(last, at)
    drill.expect(not list(folder.glob("checkpoints/*.tmp")), "half a checkpoint stays on disk")
    drill.same(ground.reference(), folder)


def shard_cut_while_training(ground: Ground, drill: Drill) -> None:
    drill.what = "a shard cut short while training, then SIGKILL; the shard restored"
    shards, folder = ground.new_shards(), ground.new("cut")
    reference = ground.reference()
    run = ground.start(folder, shards=shards)
    run.until("a checkpoint", lambda: bool(checkpoints(folder)))
    whole = cut(shards)
    run.until("broken samples", lambda: any(record.get("broken") for record in records(folder)))
    at = run.send(signal.SIGKILL)
    run.wait()
    for path in sorted(folder.glob("checkpoints/*.pt"))[1:]:
        path.unlink()  # what the cut shard had a part in
    drill.seen.append(f"training went on to step {at} with other samples in the place of broken ones")
    refused = ground.start(folder, "--resume", shards=shards)
    drill.readable(refused, ExitCode.FAILED)
    drill.seen.append("refused to resume on fewer samples")
    (shards / "00002.tar").write_bytes(whole)
    last = ground.start(folder, "--resume", shards=shards)
    drill.readable(last, ExitCode.OK)
    drill.resumed(last, at)
    drill.same(reference, folder)


def shard_cut_and_left(ground: Ground, drill: Drill) -> None:
    drill.what = "a shard cut short while training, and left so"
    shards, folder = ground.new_shards(), ground.new("cut")
    run = ground.start(folder, shards=shards)
    run.until_step(3)
    cut(shards)
    drill.readable(run, ExitCode.OK)
    broken = records(folder)[-1].get("broken") or max(record.get("broken", 0) for record in records(folder))
    drill.left_out = f"{broken} behind the cut"
    drill.expect(0 < broken <= SCENES // SHARDS, f"{broken} broken samples")
    drill.expect("samples are broken and were skipped" in run.said(), "no warning")
    drill.expect(len(curve_of(folder)) == STEPS, "steps are missing")
    drill.seen.append("warned, went on to the end")


def shard_cut_before(ground: Ground, drill: Drill) -> None:
    drill.what = "a shard cut short before training; SIGKILL"
    shards, folder = ground.new_shards(), ground.new("cut")
    cut(shards)
    reference = ground.reference(shards=shards)
    run = ground.start(folder, shards=shards)
    run.until_step(STEPS // 2)
    at = run.send(signal.SIGKILL)
    run.wait()
    last = ground.start(folder, "--resume", shards=shards)
    drill.readable(last, ExitCode.OK)
    drill.expect("00002.tar" in last.said(), "no warning names the shard")
    samples = json.loads((folder / "model" / "config.json").read_text(encoding="utf-8"))["training"]["samples"]
    drill.left_out = f"{SCENES - samples} behind the cut"
    drill.seen.append("named at the start; its whole samples are used")
    drill.resumed(last, at)
    drill.same(reference, folder)


def cut(shards: Path) -> bytes:
    """Cut a shard off in the middle; its contents before."""
    path = shards / "00002.tar"
    whole = path.read_bytes()
    os.truncate(path, len(whole) // 2)
    return whole


def disk_full(ground: Ground, drill: Drill) -> None:
    with small_disk(ground.new("disk")) as (disk, fill, free, how):
        drill.what = f"a full disk ({how}): until freed, and with SIGKILL"
        folder = disk / "run"
        freed = ground.start(folder)
        freed.until("a checkpoint", lambda: bool(checkpoints(folder)))
        fill(freed)
        before = checkpoints(folder)
        freed.until("a warning", lambda: "training goes on" in freed.said())
        drill.expect(checkpoints(folder) == before, "the checkpoint before is damaged")
        free(freed)
        drill.readable(freed, ExitCode.OK)
        drill.seen.append("warned, went on, was complete once there was space")
        drill.same(ground.reference(), folder)
        shutil.rmtree(folder)

        run = ground.start(folder)
        run.until("a checkpoint", lambda: bool(checkpoints(folder)))
        fill(run)
        run.until("a warning", lambda: "No space left" in run.said() or "too large" in run.said())
        at = run.send(signal.SIGKILL)
        run.wait()
        if how == "tmpfs":
            refused = ground.start(folder, "--resume")
            drill.readable(refused, ExitCode.FAILED)
            drill.seen.append("killed; refused to resume on the full disk")
        free(run)
        last = ground.start(folder, "--resume")
        drill.readable(last, ExitCode.OK)
        drill.resumed(last, at)
        drill.same(ground.reference(), folder)


def asked_to_stop(ground: Ground, drill: Drill, *, number: int, code: int) -> None:
    drill.what = f"{signal.Signals(number).name}, exit code {code}"
    folder = ground.new("stopped")
    run = ground.start(folder)
    run.until_step(STEPS // 3)
    run.send(number)
    drill.readable(run, code)
    at = run.step()
    drill.expect(f"step-{at:08}.pt" in checkpoints(folder), "no checkpoint of the last step")
    drill.seen.append(f"stopped with a checkpoint of step {at}")
    last = ground.start(folder, "--resume")
    drill.readable(last, ExitCode.OK)
    drill.resumed(last, at)
    drill.same(ground.reference(), folder)


def process_removed(ground: Ground, drill: Drill, *, rank: int) -> None:
    drill.what = f"process {rank + 1} of 2 removed by SIGKILL"
    folder = ground.new("two")
    run = ground.start(folder, size=2)
    run.until_step(STEPS // 2)
    at, killed = run.send(signal.SIGKILL, rank), time.monotonic()
    run.processes[1 - rank].wait(PATIENCE)
    seconds = time.monotonic() - killed
    drill.expect(seconds < 15, f"the other one ended after {seconds:.0f} s")
    drill.readable(run, -signal.SIGKILL, ExitCode.FAILED)
    drill.seen.append(f"the other ended after {seconds:.1f} s")
    last = ground.start(folder, "--resume", size=2)
    drill.readable(last, ExitCode.OK)
    drill.resumed(last, at)
    drill.same(ground.reference(size=2), folder)


def url_vanishes(ground: Ground, drill: Drill) -> None:
    drill.what = f"a URL that is gone for {OUTAGE:.0f} s while streaming; SIGKILL in the next outage"
    with serve(ground.shards) as server:
        reference = ground.reference(shards=server.url)
        folder = ground.new("stream")
        run = ground.start(folder, shards=server.url)
        run.until("the first shard", lambda: any(folder.glob("shards/*.tar")))
        server.down = True
        run.until("a failed request", lambda: server.refused > 0)
        time.sleep(OUTAGE)
        server.down = False
        run.until_step(STEPS // 2)
        server.down = True
        at = run.send(signal.SIGKILL)
        run.wait()
        last = ground.start(folder, "--resume", shards=server.url)
        time.sleep(OUTAGE)
        server.down = False
        drill.readable(last, ExitCode.OK)
        drill.seen.append(f"waited, and went on ({server.refused} requests failed)")
        drill.resumed(last, at)
        drill.same(reference, folder)


def shard_gone(ground: Ground, drill: Drill) -> None:
    drill.what = "a shard behind a URL that is gone for good; SIGKILL"
    with serve(ground.shards) as server:
        server.missing = "00003.tar"
        reference = ground.reference(shards=server.url)
        folder = ground.new("stream")
        run = ground.start(folder, shards=server.url)
        run.until_step(STEPS // 2)
        at = run.send(signal.SIGKILL)
        run.wait()
        last = ground.start(folder, "--resume", shards=server.url)
        drill.readable(last, ExitCode.OK)
        drill.expect(server.missing in run.said(), "no warning names the shard")
        drill.left_out = f"{SCENES // SHARDS} of the shard"
        drill.seen.append("named, the others are used")
        drill.resumed(last, at)
        drill.same(reference, folder)


DRILLS: dict[str, tuple[Callable[[Ground, Drill], None], ...]] = {
    "kill": (killed_at_random_steps, killed_in_a_checkpoint),
    "shard": (shard_cut_while_training, shard_cut_and_left, shard_cut_before),
    "disk": (disk_full,),
    "signal": (
        functools.partial(asked_to_stop, number=signal.SIGTERM, code=ExitCode.PREEMPTED),
        functools.partial(asked_to_stop, number=signal.SIGINT, code=ExitCode.INTERRUPTED),
    ),
    "process": (functools.partial(process_removed, rank=1), functools.partial(process_removed, rank=0)),
    "url": (url_vanishes, shard_gone),
    "trust": (two_at_once, changed_before_resume, flipped_bit, masks_replaced, repacked_after_edits),
}

if __name__ == "__main__":
    main()
