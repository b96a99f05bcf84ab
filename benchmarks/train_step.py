"""Training speed: the step, the tokens that are dropped, the loader, and what a GPU makes of them.

    python benchmarks/train_step.py --part step drop     # anywhere; both sides of a ratio take turns in one process
    python benchmarks/train_step.py --part loader --images ~/data/coco/val2017 --shards '~/data/flickr8k/train-*.tar'
    python benchmarks/train_step.py --part gpu           # needs CUDA and no download; add --profile for its kernels
    python benchmarks/train_step.py --part gpu --device cpu --tiny    # the same code on a model of toy size

step: the trainer's own update, from a uint8 batch in memory to changed weights, against open_clip_train's
train_one_epoch over a loader with one batch in memory, float32 and normalised as its workers would hand it over. There
are two opponents: the very same modules in that loop, so that only the step differs, and open_clip's own CLIP class of
the same size. Data, learning rates, clipping and AdamW's settings are the same; open_clip logs nothing.

drop: the trainer's update of the default model, nothing frozen, with and without token sub-sampling.

loader: shards to batches of crops and token ids, against open_clip's webdataset pipeline with its own transform. Both
read the same tar files, cut (0.9, 1.0) of the area, and use the same tokenizer. Images a second of CPU time, of all
processes, are images a second a core; what is left of it with two workers is wall time.

gpu: random weights and random token ids of the whole context. The largest power of two that fits is the batch.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

import torch
from results_file import write_results
from rich.console import Console
from rich.table import Table
from training_gpu import measure_gpu
from training_loader import measure_loader
from training_updates import Report, measure_drop, measure_step

from clippy_cli.model.device import resolve_device

PARTS = {"step": measure_step, "drop": measure_drop, "loader": measure_loader, "gpu": measure_gpu}
SETTINGS = ["plain", "large", "dropped", "cached"]  # 224; 448; 448 with 80 % dropped; a batch in chunks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=["step", "drop"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--architecture", help="drop: clippy-ti; gpu: clippy-b16")
    parser.add_argument("--batch-size", type=int, help="step 32, drop 16, loader 64; gpu: largest that fits")
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"], help="step")
    parser.add_argument("--steps", type=int, default=12, help="timed steps of each kind")
    parser.add_argument("--text-tokens", type=int, default=24, help="drop: longest caption of a batch")
    parser.add_argument("--shards", nargs="*", default=[], help="loader: shards to read images and captions from")
    parser.add_argument("--images", type=Path, help="loader: folder of JPEG photos")
    parser.add_argument("--samples", type=int, default=640, help="loader: samples of one pass")
    parser.add_argument("--passes", type=int, default=5, help="loader: timed passes of each side")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS, help="gpu: rows to measure")
    parser.add_argument("--large-batch", type=int, default=16384, help="gpu: batch of gradient caching")
    parser.add_argument("--chunk-size", type=int, default=512, help="gpu: its chunk")
    parser.add_argument("--tiny", action="store_true", help="gpu: toy sizes, to try the code on a CPU")
    parser.add_argument("--profile", action="store_true", help="also print torch.profiler's table")
    options = parser.parse_args()
    device, console = resolve_device(options.device), Console()
    for part in options.part:
        if part == "gpu" and device.type != "cuda" and not options.tiny:
            console.print("--part gpu needs a CUDA device; --tiny tries its code on any other.")
            continue
        report = PARTS[part](options, device)
        some = "-".join(["", *options.settings]) if part == "gpu" and options.settings != SETTINGS else ""
        show(console, part + some, report, torch.device("cpu") if part == "loader" else device, keep=not options.tiny)


def show(console: Console, part: str, report: Report, device: torch.device, *, keep: bool) -> None:
    """Print a part's table and keep it as a file; where ``$OUT`` is set, there too."""
    table = Table(*report.columns, title=part)
    for row in report.rows:
        table.add_row(*row)
    console.print(table)
    console.print(report.settings)
    if keep:
        path = write_results(f"train_step_{part}", report.settings, report.columns, report.rows, device)
        console.print(f"written to {path}")
        if out := os.environ.get("OUT"):
            shutil.copy(path, out)


if __name__ == "__main__":
    main()
