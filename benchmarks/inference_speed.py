"""What people wait for: a first photo, many photos, large ones, many texts, an evaluation; and what peers make wait.

    python benchmarks/inference_speed.py --data-root ~/data --before ../clippy-before   # all, about 20 minutes
    python benchmarks/inference_speed.py --data-root ~/data --only cold                 # today's code, one part
    python benchmarks/inference_speed.py --tiny                                         # does it run? no data needed

``--before`` names a folder with an earlier commit (``git worktree add --detach ../clippy-before REV``). Rows are then
measured with both code bases in turn, in processes that find theirs on PYTHONPATH; without it only today's column is
filled. Numbers are medians, with least and most in parentheses; ratios are taken within a round. Run it on an idle
machine: times are wall times, of as many threads as torch takes. ``--clock cpu`` takes the CPU time of all threads
instead, where others use the machine too; what runs side by side then adds up.

cold: fresh processes on one photo, to their end, to the first byte on the terminal, and their peak memory, beside
``import torch``. many: a photo of 126, net of start-up, beside the encoder alone. large: 24 and 108 megapixels. text:
5,000 captions beside the text tower alone, and as labels twice. evaluate: a photo of voc20 and voc. peers: pipelines of
transformers, SCLIP's way from patches to a mask, a command on onnxruntime. The notes below the table say how each is
taken.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from results_file import write_results
from rich.console import Console
from rich.table import Table
from speed.codes import Code
from speed.cold import measure_cold
from speed.ground import Ground
from speed.peers import measure_peers
from speed.photos import measure_evaluation, measure_large, measure_many
from speed.rows import COLUMNS
from speed.texts import measure_texts

PARTS = {
    "cold": measure_cold,
    "many": measure_many,
    "large": measure_large,
    "text": measure_texts,
    "evaluate": measure_evaluation,
    "peers": measure_peers,
}
TINY_PHOTOS = 3
WIDTH = 180  # of the table in a file or pipe
console = Console(width=None if sys.stdout.isatty() else WIDTH)


def main() -> None:
    """Measure the parts, print each as it comes, and write one file."""
    options = parsed_options()
    begun, rows = time.monotonic(), list[list[str]]()
    file = "_".join(["inference_speed", *([] if options.only == list(PARTS) else options.only)])
    with tempfile.TemporaryDirectory(prefix="inference-speed-") as name:
        ground = prepared_ground(options, Path(name).resolve())
        for part in options.only:
            started = time.monotonic()
            measured = [row.cells() for row in PARTS[part](ground)]
            rows += measured
            show(f"{part}, {time.monotonic() - started:.0f} s", measured)
            if not options.tiny:  # after each part, so that a failure loses none of those before
                settings = described(options, ground, time.monotonic() - begun)
                path = write_results(file, settings, COLUMNS, rows, torch.device("cpu"), ground.notes)
    for note in ground.notes:
        console.print(note, markup=False, soft_wrap=True)
    if not options.tiny:
        console.print(f"written to {path}")


def parsed_options() -> argparse.Namespace:
    """Options of the command line, parts in the order of the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="folder of VOCdevkit and flickr8k; only --tiny goes without")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="a checkout of earlier code, to be measured too")
    parser.add_argument(
        "--only", metavar="PARTS", default=",".join(PARTS), help="parts with commas between; default: all"
    )
    parser.add_argument("--rounds", type=int, help="of every part; default: 5 cold, 2 or 3 of the others")
    parser.add_argument("--photos", type=int, default=126, help="at most that many in many and evaluate")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: of all threads, on a busy machine"
    )
    parser.add_argument("--full", action="store_true", help="also 80,000 prompts, and 108 megapixels before")
    parser.add_argument("--tiny", action="store_true", help="all in small, once; the figures mean nothing, no file")
    options = parser.parse_args()
    wanted = options.only.split(",")
    if unknown := [part for part in wanted if part not in PARTS]:
        parser.error(f"--only: there is no {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if options.data_root is None and not options.tiny:
        parser.error("--data-root is needed, or --tiny")
    if options.before is not None and not (options.before / "clippy_cli").is_dir():
        parser.error(f"--before: no clippy_cli in {options.before}")
    options.only = [part for part in PARTS if part in wanted]
    return options


def prepared_ground(options: argparse.Namespace, folder: Path) -> Ground:
    """Both code bases, compiled and found, and what they are measured on."""
    folders = {"today": Path(__file__).resolve().parents[1]}
    if options.before is not None:
        folders = {"before": options.before.resolve(), **folders}
    codes = tuple(Code(name, code, folder / name, options.clock) for name, code in folders.items())
    for code in codes:
        code.prepare()
    photos = TINY_PHOTOS if options.tiny else options.photos
    ground = Ground(codes, folder, options.data_root, options.tiny, options.full, options.rounds, photos)
    if len(ground.photos) < 2:
        raise SystemExit(f"{len(ground.photos)} photos found; at least 2 are needed")
    return ground


def described(options: argparse.Namespace, ground: Ground, seconds: float) -> str:
    """The line above the table."""
    given = ["python benchmarks/inference_speed.py"]
    given += [] if options.only == list(PARTS) else [f"--only {','.join(options.only)}"]
    given += [f"--before {ground.before.revision}"] if ground.before else []
    given += [f"--rounds {options.rounds}"] if options.rounds else []
    given += ["--full"] if options.full else []
    given += ["--clock cpu"] if options.clock == "cpu" else []
    clock = "CPU time of all threads" if options.clock == "cpu" else "wall time"
    return (
        f"`{' '.join(given)}`, today's code: {ground.today.revision}; {len(ground.photos)} photos, "
        f"{torch.get_num_threads()} threads, {seconds:.0f} s. Median (least-most) of rounds in turn; ratios are "
        f"medians of those within rounds. Times are {clock}."
    )


def show(title: str, rows: list[list[str]]) -> None:
    """Print one part's rows, without the columns that are empty in all of them."""
    used = [index for index in range(len(COLUMNS)) if any(row[index] for row in rows)]
    table = Table(*(COLUMNS[index] for index in used), title=title)
    for row in rows:
        table.add_row(*(row[index] for index in used))
    console.print(table)


if __name__ == "__main__":
    main()
