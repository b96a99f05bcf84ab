"""A proxy of Waterbirds from photos at hand: birds, dogs and cats of PASCAL VOC on streets and in nature.

Objects are cut out by VOC's masks and pasted on CamVid streets, and on parts of COCO photos that are water, trees and
grass by their panoptic annotation. "bird" belongs to nature and "pet" (dog or cat) to the street; each object is pasted
several times, on different backgrounds, and all splits are measured together. This is not Waterbirds, and its figures
stand beside those of nobody.

    python benchmarks/waterbirds_proxy.py --data-root ~/data --model clippy-ti --model runs/cls
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from results_file import write_results
from rich.console import Console
from rich.table import Table

from clippy_cli import console as terminal
from clippy_cli.data.benchmarks import open_benchmark
from clippy_cli.model.device import resolve_device
from clippy_cli.model.store import load_model_directory
from clippy_cli.waterbirds.build.backgrounds import open_backgrounds
from clippy_cli.waterbirds.build.build import build_set
from clippy_cli.waterbirds.build.foregrounds import open_foregrounds
from clippy_cli.waterbirds.dataset import SPLITS, PlacedBird, WaterbirdsSet, open_waterbirds
from clippy_cli.waterbirds.measure.answers import parse_words
from clippy_cli.waterbirds.measure.run import BirdQuestion, ModelRun, run_birds
from clippy_cli.waterbirds.report.page import draw_bird_examples, write_waterbirds

CLASSES = {"bird": "bird", "dog": "pet", "cat": "pet"}
NATURE = ("water-other", "sea", "river", "tree-merged", "grass-merged")
LIVING = ("person", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")
COLUMNS = [
    "model", "readout", "bird, nature", "bird, street", "pet, nature", "pet, street", "worst group", "mean over groups",
    "gap, bird", "gap, pet",
]  # fmt: skip
console = Console()


def main() -> None:
    """Build the proxy, measure every model, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--copies", type=int, default=12, help="backgrounds that each object is pasted on")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--report", type=Path, help="write the report with example photos here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        objects = cut_objects(open_benchmark("voc", options.data_root), folder / "objects", options.copies)
        nature = choose_nature(open_benchmark("coco", options.data_root), folder / "places" / "nature")
        streets = choose_streets(options.data_root / "CamVid" / "train", folder / "places" / "street", 80)
        report = build_set(
            open_foregrounds(folder / "objects"), open_backgrounds(folder / "places"), folder / "set", strength=0.5,
            seed=0, workers=2, on_progress=None,
        )  # fmt: skip
        birds: Any = AllSplits([open_waterbirds(report.folder, split) for split in SPLITS])
        words = parse_words("bird,dog|cat,background")
        models = ModelRun(
            options.model,
            lambda source: load_model_directory(source, device=options.device),
            command="benchmarks/waterbirds_proxy.py",
            bar=terminal.progress,
        )
        run = run_birds(models, birds, BirdQuestion(words, "all three", (options.resolution,)))
        if options.report is not None:
            examples = draw_bird_examples(birds, run.shown)
            write_waterbirds(
                options.report, run.document, words, birds.places, examples=examples, examples_of=run.shown_of
            )
    rows = [row(result) for result in run.document.results]
    table = Table(*COLUMNS)
    for cells in rows:
        table.add_row(*cells)
    console.print(table)
    settings = (
        f"A proxy, not Waterbirds: {objects} cut-outs, {nature} views of nature, {streets} of streets, "
        f"{options.copies} backgrounds an object, {len(birds)} images, short side "
        f"{options.resolution}. Accuracy in per cent; gaps in points with 95 % bootstrap intervals over images, which "
        "are too narrow, since an object occurs several times."
    )
    path = write_results("waterbirds_proxy", settings, COLUMNS, rows, resolve_device(options.device))
    console.print(f"written to {path}")


class AllSplits:
    """The images of several splits as one set."""

    def __init__(self, splits: Sequence[WaterbirdsSet]) -> None:
        first = splits[0]
        self.info, self.birds, self.places, self.train_counts = (
            first.info,
            first.birds,
            first.places,
            first.train_counts,
        )
        self._images = [(split, index) for split in splits for index in range(len(split))]

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> PlacedBird:
        """Image ``index`` of all."""
        split, place = self._images[index]
        return split.read(place)


def cut_objects(images: Any, folder: Path, copies: int) -> int:
    """Cut birds, dogs and cats out, with a margin, and return how many there are."""
    indices = {entry.name: index for index, entry in enumerate(images.classes) if entry.name in CLASSES}
    lines, count = ["key,class"], 0
    for index in range(len(images)):
        sample = images.read(index)
        for name, value in indices.items():
            inside = sample.mask == value
            if inside.mean() < 0.01:
                continue
            rows, columns = np.nonzero(inside)
            margin = round(0.35 * max(np.ptp(rows), np.ptp(columns)))
            box = slices(rows, margin, inside.shape[0]), slices(columns, margin, inside.shape[1])
            for copy in range(copies):
                key = f"{sample.key}-{name}-{copy}"
                save(folder / "images" / f"{key}.png", sample.image[box])
                save(folder / "masks" / f"{key}.png", inside[box].astype(np.uint8) * 255)
                lines.append(f"{key},{CLASSES[name]}")
            count += 1
    (folder / "classes.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")
    return count


def choose_nature(images: Any, folder: Path) -> int:
    """Cut the part of each photo, half as wide and high, that is most water, trees and grass with nothing alive in it.

    Parts that are less than three quarters nature are left out.
    """
    names = [entry.name for entry in images.classes]
    nature = [names.index(name) for name in NATURE]
    living = [names.index(name) for name in LIVING]
    count = 0
    for index in range(len(images)):
        sample = images.read(index)
        height, width = (side // 2 for side in sample.mask.shape)
        best, best_share = None, 0.75
        for top in range(0, height + 1, max(1, height // 8)):
            for left in range(0, width + 1, max(1, width // 8)):
                part = slice(top, top + height), slice(left, left + width)
                share = np.isin(sample.mask[part], nature).mean()
                if share >= best_share and not np.isin(sample.mask[part], living).any():
                    best, best_share = part, share
        if best is not None:
            save(folder / f"{sample.key}.png", sample.image[best])
            count += 1
    return count


def choose_streets(source: Path, folder: Path, count: int) -> int:
    """Copy frames evenly spread over the sequence."""
    frames = sorted(source.glob("*.jpg"))
    chosen = frames[:: max(1, len(frames) // count)][:count]
    for frame in chosen:
        save(folder / f"{frame.stem}.png", np.asarray(Image.open(frame).convert("RGB")))
    return len(chosen)


def slices(places: NDArray[np.int64], margin: int, size: int) -> slice:
    """The range of ``places`` with a margin, within an axis."""
    return slice(max(0, int(places.min()) - margin), min(size, int(places.max()) + margin + 1))


def save(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a PNG, making folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def row(result: Any) -> Sequence[str]:
    """One line of the table."""
    accuracies = [f"{100 * group.accuracy:.1f}" for group in result.groups]
    gaps = [f"{100 * gap.value:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})" for gap in result.gaps]
    worst, mean = f"{100 * result.worst:.1f}", f"{100 * result.mean_over_groups:.1f}"
    return [result.model.name, result.readout, *accuracies, worst, mean, *gaps]


if __name__ == "__main__":
    main()
