"""What makes masks better, and what it costs: mIoU and seconds an image of one model under each kind of inference.

Each row is one ``evaluate_set`` under the protocol named; windows and views are as the protocol words have it. A second
is wall time of the whole evaluation, reading and counting included, divided by the images.

    python benchmarks/sharper_masks.py --data-root ~/data
    python benchmarks/sharper_masks.py --data-root ~/data --sets voc20 --limit 4
"""

from __future__ import annotations

import argparse
from pathlib import Path

from results_file import write_results
from rich.console import Console
from rich.table import Table

from clippy_cli.data.benchmarks import open_benchmark
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.protocol import load_protocol
from clippy_cli.evaluation.set_evaluation import evaluate_set
from clippy_cli.evaluation.settings import Overrides
from clippy_cli.evaluation.tasks.base import Options
from clippy_cli.inference.refine.crf import check_crf
from clippy_cli.model import DEFAULT_MODEL
from clippy_cli.model.store import load_model_directory

COLUMNS = ["set", "images", "inference", "mIoU, %", "pixel accuracy, %", "seconds an image"]
console = Console()


def inferences(window: int, scales: tuple[float, ...]) -> dict[str, Overrides]:
    """What is compared, one change at a time; windows cut an image of twice their size."""
    factors = ", ".join(f"{scale:g}" for scale in scales)
    rows = {
        "whole image": Overrides(),
        f"short side {2 * window}, windows of {window}, stride {window // 2}": Overrides(
            resolution=2 * window, window=window, stride=window // 2
        ),
        f"scales {factors}, flip": Overrides(scales=scales, flip=True),
        "guided filter": Overrides(refine="guided"),
        "PAMR": Overrides(refine="pamr"),
        "CRF": Overrides(refine="crf"),
        f"scales {factors}, flip, guided filter": Overrides(scales=scales, flip=True, refine="guided"),
    }
    try:
        check_crf()
    except ClippyError as error:
        console.print(f"no CRF: {error.message}")
        del rows["CRF"]
    return rows


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["voc20", "voc", "camvid", "coco"])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--protocol", default="clippy")
    parser.add_argument("--limit", type=int, help="take the first images only")
    parser.add_argument("--window", type=int, default=224)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.5])
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", nargs="+", default=[""], help="rows whose name holds one of these words")
    parser.add_argument("--no-file", action="store_true", help="print only")
    options = parser.parse_args()
    model = load_model_directory(options.model, device=options.device)
    protocol = load_protocol(options.protocol)
    rows = []
    for name in options.sets:
        images = open_benchmark(name, options.data_root)
        for label, overrides in inferences(options.window, tuple(options.scales)).items():
            if not any(word in label for word in options.only):
                continue
            (result,) = evaluate_set(
                model,
                images,
                protocol,
                tasks=("segment",),
                overrides=overrides,
                options=Options(batch_size=options.batch_size, limit=options.limit),
            ).results
            figures = [f"{100 * (result.metrics[metric] or 0):.2f}" for metric in ("miou", "pixel_accuracy")]
            seconds = f"{result.seconds / max(1, result.data.images):.2f}"
            rows.append([name, str(result.data.images), label, *figures, seconds])
            console.print("  ".join(rows[-1]))
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if options.no_file:
        return
    limit = "all images" if options.limit is None else f"the first {options.limit} images of each set"
    settings = (
        f"{model.name}, protocol {options.protocol} at the model's resolution ({model.defaults.resolution}), {limit}; "
        "each row changes only what it names. Seconds are wall time, reading and counting included."
    )
    console.print(f"written to {write_results('sharper_masks', settings, COLUMNS, rows, model.device)}")


if __name__ == "__main__":
    main()
