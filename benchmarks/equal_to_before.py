"""Masks, figures, trained weights and imports of an earlier commit, against the working tree: equal, or how different?

Both code bases run through their command line, with the same interpreter, one thread each, on the same photos. "masks"
are segment, group and classify over a grid of settings; "figures" are evaluations; "training" are whole, interrupted
and resumed runs; "imports" is what ``clippy segment`` loads.

How to read the table: "bit-equal" means that every pixel, number and text agrees. Anything else is the size of the
difference: the share of pixels, the largest difference of a number, points of a metric. A difference is allowed only
where ``ANNOUNCED`` in ``equality/settings.py`` names the setting and says why; any other makes the exit code 1. What
only the later side writes is named below the table and is no failure.

    python benchmarks/equal_to_before.py --before 33219e9 --data-root ~/data
    python benchmarks/equal_to_before.py --before 33219e9 --data-root ~/data --part masks --only "segment: *"

The whole takes about ten minutes on two idle cores and writes a result file; parts of it only print. A commit against
itself (``--before HEAD --after HEAD``) shows that the comparison is deterministic.
"""

from __future__ import annotations

import argparse
import fnmatch
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from equality.differences import Differences
from equality.imports import import_table
from equality.settings import (
    SAMPLE,
    Setting,
    figure_settings,
    mask_settings,
    names_without_setting,
    prepare_photos,
)
from equality.sides import Side, Worker, last_words, make_side
from equality.training_runs import Runs, stored_features_recipe
from results_file import write_results
from rich.console import Console

PARTS = ("masks", "figures", "training", "imports")
COLUMNS = ["setting", "values compared", "difference", ""]
console = Console()


def main() -> None:
    """Run both sides, compare, print, write the table; exit code 1 where something differs unannounced."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", required=True, help="revision, or folder of a working tree")
    parser.add_argument("--after", default=str(Path(__file__).parents[1]), help="likewise; default: this working tree")
    parser.add_argument("--data-root", type=Path, required=True, help="folder of VOC, CamVid, COCO, BSDS500, Flickr8k")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; default: all")
    parser.add_argument("--limit", type=int, default=4, help="images of a set; costly settings take half or a quarter")
    parser.add_argument(
        "--only", action="append", metavar="GLOB", help="settings of masks and figures; may be repeated"
    )
    options = parser.parse_args()
    parts = options.part or PARTS
    begun, table = time.monotonic(), Results()
    with tempfile.TemporaryDirectory(prefix="equal-to-before-") as name:
        folder = Path(name)
        before = make_side("before", options.before, folder, options.data_root)
        after = make_side("after", options.after, folder, options.data_root)
        prepare_photos(folder, before.code / SAMPLE, options.data_root, options.limit)
        settings = chosen_settings(options, parts)
        for setting, found in run_settings(before, after, settings):
            table.add(setting.name, found, setting.announced)
        if "training" in parts:
            recipe = stored_features_recipe(folder, before.code, options.data_root)
            for row in Runs(before, after).pairs(recipe):
                table.add(*row)
            if recipe is None:
                table.notes.append("- Not run: stored features, words, classes; trunk or photos are not there.")
        if "imports" in parts:
            lines, failures = import_table(before, after)
            table.notes += ["", *lines]
            table.failures += failures
    for line in table.notes:
        console.print(line, markup=False, soft_wrap=True)
    if options.part is None and options.only is None:
        table.failures += [f"announced, but no setting: {name}" for name in names_without_setting(table.names)]
        described = (
            f"`python benchmarks/equal_to_before.py --before {options.before} --limit {options.limit}`: "
            f"{before.revision} against {after.revision}, one thread a command, {time.monotonic() - begun:.0f} s. "
            f"{len(table.failures)} differences that nobody announced."
        )
        path = write_results("equal_to_before", described, COLUMNS, table.rows, torch.device("cpu"), table.notes)
        console.print(f"written to {path}")
    for failure in table.failures:
        console.print(f"unannounced: {failure}", style="red", markup=False, soft_wrap=True)
    sys.exit(1 if table.failures else 0)


class Results:
    """The table so far, lines below it, and what makes the exit code 1."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = []
        self.names: list[str] = []
        self.notes: list[str] = []
        self.failures: list[str] = []

    def add(self, name: str, found: Differences, announced: str) -> None:
        """One row, printed at once."""
        summary = found.summary()
        allowed = announced and not found.failed
        if not found.equal and not allowed:
            self.failures.append(f"{name}: {summary}")
        if found.added:
            self.notes.append(f"- New in {name}: {', '.join(sorted(found.added))}")
        verdict = "" if found.equal else f"announced: {announced}" if allowed else "**not announced**"
        self.names.append(name)
        self.rows.append([name, f"{found.values:,}", summary.replace("|", "\\|"), verdict])
        console.print(f"{name}: {summary} {verdict}", markup=False, soft_wrap=True)


def chosen_settings(options: argparse.Namespace, parts: Sequence[str]) -> list[Setting]:
    """Settings of the parts that --only names."""
    settings = mask_settings() if "masks" in parts else []
    settings += figure_settings(options.data_root, options.limit) if "figures" in parts else []
    wanted = options.only or ["*"]
    return [setting for setting in settings if any(fnmatch.fnmatchcase(setting.name, glob) for glob in wanted)]


def run_settings(before: Side, after: Side, settings: Sequence[Setting]) -> Iterator[tuple[Setting, Differences]]:
    """Run each setting on both sides at the same time; yield what differs, in order."""
    sides = before, after
    workers, pools = [Worker(side) for side in sides], [ThreadPoolExecutor(1) for _ in sides]
    try:
        queues = [
            [pool.submit(_run, side, worker, setting) for setting in settings]
            for pool, side, worker in zip(pools, sides, workers, strict=True)
        ]
        for setting, *both in zip(settings, *queues, strict=True):
            found = Differences()
            for side, run in zip(sides, both, strict=True):
                if code := run.result():
                    said = last_words(side.work / f"{setting.folder}.log")
                    found.failed.append(f"{side.name}: exit code {code}: {said}")
            folders = [side.work / setting.folder for side in sides]
            if not found.failed:
                found.folders(*folders)
            for folder in folders:
                shutil.rmtree(folder)
            yield setting, found
    finally:
        for pool, worker in zip(pools, workers, strict=True):
            pool.shutdown(wait=False, cancel_futures=True)
            worker.close()


def _run(side: Side, worker: Worker, setting: Setting) -> int:
    folder = side.work / setting.folder
    folder.mkdir()
    where = ["--out", setting.folder]
    if setting.arguments[0] == "classify":  # it prints, and writes CSV only
        where = ["--csv", f"{setting.folder}/classes.csv"]
    arguments = [*setting.arguments, "--device", "cpu", *where, "--json"]
    return worker.clippy(arguments, side.work / f"{setting.folder}.log", folder / "printed.json")


if __name__ == "__main__":
    main()
