"""Evaluation: what comes after the encoder, the counting, and the encoder's share of the time.

The same patch embeddings, texts and masks go through both sides in one process. The other side of the first is the way
of CLIPpy's public notebook: features upsampled to the mask's size, then compared with every text on the CPU, and a
confusion matrix in numpy. On a CUDA device the last rows are images a second of an encoder in bfloat16, with
torch.compile off and on.

    python benchmarks/evaluation_speed.py --data-root ~/data
    python benchmarks/evaluation_speed.py --data-root ~/data --architecture clippy-b16 --device cuda
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from results_file import write_results
from rich.console import Console
from rich.table import Table
from torchmetrics.classification import MulticlassConfusionMatrix

from clippy_cli.data.benchmarks import open_benchmark
from clippy_cli.data.benchmarks.base import IGNORE
from clippy_cli.data.images import dense_size, resize_image
from clippy_cli.data.prompts import patch_prompt_embeddings
from clippy_cli.evaluation.metrics.segmentation import confusion_matrix
from clippy_cli.evaluation.protocol import load_protocol
from clippy_cli.evaluation.set_evaluation import evaluate_set
from clippy_cli.evaluation.settings import Overrides, class_entries, resolve_settings
from clippy_cli.evaluation.tasks.base import Options
from clippy_cli.inference.choices import Competition
from clippy_cli.inference.class_map import class_map
from clippy_cli.inference.features import dense_embeddings
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.build import build_model
from clippy_cli.model.device import resolve_device
from clippy_cli.model.registry import load_architecture
from clippy_cli.model.store import load_model_directory

COLUMNS = ["what", "set", "texts", "ours", "theirs", "ratio", "agreement"]
console = Console()


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["voc", "coco"])
    parser.add_argument("--model", default="clippy-ti")
    parser.add_argument("--architecture", help="random weights of this architecture instead of --model")
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--resolution", type=int, default=448)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = resolve_device(options.device)
    model: Any
    if options.architecture:
        model = build_model(load_architecture(options.architecture), seed=0).eval().to(device)
    else:
        model = load_model_directory(options.model, device=options.device)
    rows = []
    for name in options.sets:
        images = open_benchmark(name, options.data_root)
        rows += after_the_encoder(model, images, options)
        rows.append(share(model, images, options))
    if device.type == "cuda":
        rows += encoders(model, options)
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    command = (
        f"`python benchmarks/evaluation_speed.py --sets {' '.join(options.sets)} --images {options.images} "
        f"--resolution {options.resolution}`, {model.name}, milliseconds an image, medians; {torch.get_num_threads()} "
        "threads."
    )
    console.print(f"written to {write_results('evaluation_speed', command, COLUMNS, rows, device)}")


def after_the_encoder(model: VisionLanguageModel, images: Any, options: argparse.Namespace) -> list[list[str]]:
    """Class of each pixel and counting, against features upsampled; and counting alone, against torchmetrics."""
    settings = resolve_settings(load_protocol("clippy"), images.info, model, Overrides())
    asked = class_entries(images, replace(settings, competition=Competition.TEXTS))
    texts = patch_prompt_embeddings(model, asked.texts, settings.templates).float()
    classes, lookup = len(images.classes), np.array(asked.codes)
    checking = MulticlassConfusionMatrix(classes, ignore_index=IGNORE)
    trusting = MulticlassConfusionMatrix(classes, ignore_index=IGNORE, validate_args=False)
    times: dict[str, list[float]] = {"ours": [], "theirs": [], "count": [], "checking": [], "trusting": []}
    same = pixels = 0
    for index in range(min(options.images, len(images))):
        sample = images.read(index)
        size = dense_size(*sample.image.shape[:2], options.resolution, model.preprocess.patch_size)
        patches = dense_embeddings(model, [resize_image(sample.image, *size)])[0]
        mask = torch.from_numpy(sample.mask)
        on_device = mask.to(patches.device)

        def ours(patches: Any = patches, on_device: Any = on_device, mask: Any = mask) -> tuple[Any, Any]:
            maps = torch.einsum("hwd,kd->khw", patches, texts)
            predicted = class_map(maps, asked.codes, *mask.shape)
            return predicted.cpu(), confusion_matrix(predicted, on_device, classes, IGNORE).cpu()

        def theirs(patches: Any = patches, mask: Any = mask) -> tuple[Any, Any]:
            features = patches.cpu().permute(2, 0, 1)[None]  # (1,D,h,w)
            large = F.interpolate(features, size=mask.shape, mode="bilinear", align_corners=False)[0]
            scores = (large.flatten(1).T @ texts.cpu().T).numpy()  # (H*W,K)
            predicted = lookup[scores.argmax(axis=1)].reshape(mask.shape)
            counted = mask.numpy() != IGNORE
            cells = mask.numpy()[counted].astype(np.int64) * classes + predicted[counted]
            return torch.from_numpy(predicted), np.bincount(cells, minlength=classes**2).reshape(classes, classes)

        one = timed(times["ours"], ours)
        other = timed(times["theirs"], theirs, repeats=1)
        same += int((one[0] == other[0]).sum())
        pixels += mask.numel()
        predicted = one[0]
        mine = timed(times["count"], partial(confusion_matrix, predicted, mask, classes, IGNORE))
        for name, peer in (("checking", checking), ("trusting", trusting)):
            counts = timed(times[name], partial(peer, predicted.long(), mask.long()))
            assert torch.equal(mine, counts)
    ms = {name: 1000 * float(np.median(values)) for name, values in times.items()}
    name, count = images.info.name, str(len(asked.texts))
    return [
        row("after the encoder, against features upsampled", name, count, ms["ours"], ms["theirs"], same / pixels),
        row("counting, against torchmetrics", name, count, ms["count"], ms["checking"], 1.0),
        row("counting, against torchmetrics unchecked", name, count, ms["count"], ms["trusting"], 1.0),
    ]


def share(model: VisionLanguageModel, images: Any, options: argparse.Namespace) -> list[str]:
    """The encoder's share of the wall time of a whole evaluation."""
    settings = Options(batch_size=options.batch_size, workers=options.workers, limit=options.images)
    evaluated = evaluate_set(
        model,
        images,
        load_protocol("clippy"),
        tasks=("segment",),
        overrides=Overrides(resolution=options.resolution),
        options=settings,
    )
    (result,) = evaluated.results
    share, rate = f"{result.encoder_share:.1%}", f"{result.images_per_second:.1f} images/s"
    return ["encoder's share of the wall time", images.info.name, "", share, "", "", rate]


def encoders(model: Any, options: argparse.Namespace) -> list[list[str]]:
    """Images a second of the patch encoder alone in bfloat16, batches on the device, compiled or not."""
    side = options.resolution
    batch = torch.randint(0, 256, (options.batch_size, 3, side, side), dtype=torch.uint8, device=model.device)
    rows = []
    for label, encode in (("eager", model.embed_patches), ("torch.compile", torch.compile(model.embed_patches))):
        times: list[float] = []

        def run(encode: Any = encode) -> Any:
            with torch.autocast("cuda", torch.bfloat16):
                return encode(model.preprocess.normalize(batch))

        for _ in range(5):
            run()
        for _ in range(20):
            timed(times, run, repeats=1)
        rate = options.batch_size / float(np.median(times))
        rows.append([f"encoder in bfloat16, {label}", "", "", f"{rate:.0f} images/s", "", "", ""])
    return rows


def timed(times: list[float], function: Callable[[], Any], repeats: int = 3) -> Any:
    """The value, the best time of a few runs noted in seconds."""
    best = float("inf")
    for _ in range(repeats):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        begun = time.perf_counter()
        value = function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    times.append(best)
    return value


def row(what: str, name: str, texts: str, ours: float, theirs: float, agreement: float) -> list[str]:
    """One line of the table; times in milliseconds."""
    return [what, name, texts, f"{ours:.2f}", f"{theirs:.2f}", f"{theirs / ours:.1f}x", f"{agreement:.4%}"]


if __name__ == "__main__":
    main()
