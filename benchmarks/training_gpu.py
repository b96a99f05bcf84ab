"""What a CUDA device makes of the trainer's update: throughput, utilisation, memory, and batches that do not fit."""

from __future__ import annotations

import argparse
import gc

import torch
from training_updates import Report, Update, clock, print_profile

from clippy_cli.model.config import ModelConfig
from clippy_cli.model.registry import load_architecture
from clippy_cli.training.compute import Compute, peak_memory_gb
from clippy_cli.training.step_shapes import StepShape

WARM_UP = 3


def measure_gpu(options: argparse.Namespace, device: torch.device) -> Report:
    """Each setting at the largest batch that fits; then gradient caching."""
    config = load_architecture(options.architecture or ("clippy-nano" if options.tiny else "clippy-b16"))
    small, large = (64, 128) if options.tiny else (224, 448)
    chunk, whole = (4, 16) if options.tiny else (options.chunk_size, options.large_batch)
    steps = 2 if options.tiny else options.steps
    first, limit = (2, 8) if options.tiny else (32, 4096)
    settings = {"plain": (small, 0.0), "large": (large, 0.0), "dropped": (large, 0.8)}
    rows = []
    for name in options.settings:
        if name in settings:
            shape = StepShape(*settings[name], None)
            batch = options.batch_size or largest_batch(config, device, shape, first, limit)
            rows += [row(config, device, batch, shape, compiled, steps, options.profile) for compiled in (False, True)]
            continue
        for side, rate in (settings["plain"], settings["dropped"]):
            shape = StepShape(side, rate, chunk)
            rows += [
                row(config, device, whole, shape, compiled, max(2, steps // 4), False) for compiled in (False, True)
            ]
    columns = ("resolution", "dropped", "batch", "chunk", "compiled", "images/s", "step, s", "MFU", "peak GB")
    return Report(
        columns,
        rows,
        f"{config.name} with random weights, bf16, captions of {config.text.context_length} tokens, batches in pinned "
        f"memory and copied in each step; the largest power of two from {first} to {limit} that fits; means of {steps} "
        f"updates on end ({max(2, steps // 4)} with chunks). MFU counts a forward pass three times, whatever is "
        f"computed again.",
    )


def row(
    config: ModelConfig,
    device: torch.device,
    batch: int,
    shape: StepShape,
    compiled: bool,
    steps: int,
    profiled: bool,
) -> tuple[str, ...]:
    """Measure one setting; a batch that does not fit leaves its figures empty."""
    label = (f"{shape.resolution}", f"{shape.drop_rate:.0%}", f"{batch}", f"{shape.chunk_size or ''}")
    label = (*label, "yes" if compiled else "no")
    forget(device)
    try:
        update = _update(config, device, batch, shape, compiled)
        for _ in range(min(WARM_UP, steps)):
            update()
        started = clock(device)
        for _ in range(steps):
            update.start()
        taken = (clock(device) - started) / steps
    except torch.OutOfMemoryError:
        return (*label, "out of memory", "", "", "")
    memory = peak_memory_gb(device)
    compute = Compute(update.model, update.update.recipe)
    used = batch * compute.count_pair(shape)[1] / taken
    share = f"{used / compute.peak:.1%}" if compute.peak else f"{used / 1e12:.2f} TFLOP/s"
    if profiled:
        print(", ".join(label))
        print_profile(update, device)
    line = (*label, f"{batch / taken:.0f}", f"{taken:.3f}", share, f"{memory:.1f}")
    print(" | ".join(line), flush=True)  # a table that takes minutes may be cut off
    return line


def largest_batch(config: ModelConfig, device: torch.device, shape: StepShape, first: int, limit: int) -> int:
    """The largest of ``first``, its double and so on up to ``limit`` whose update fits into the device's memory."""
    batch = first
    while 2 * batch <= limit and fits(config, device, 2 * batch, shape):
        batch *= 2
    return batch


def fits(config: ModelConfig, device: torch.device, batch: int, shape: StepShape) -> bool:
    forget(device)
    try:
        update = _update(config, device, batch, shape, compiled=False)
        for _ in range(2):  # the optimiser's state comes with the first
            update()
    except torch.OutOfMemoryError:
        return False
    return True


def forget(device: torch.device) -> None:
    """Give back what the last setting held."""
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _update(config: ModelConfig, device: torch.device, batch: int, shape: StepShape, compiled: bool) -> Update:
    return Update(config, device, batch, shape, config.text.context_length, precision="bf16", compile=compiled)
