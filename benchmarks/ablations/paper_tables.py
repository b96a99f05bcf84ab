"""The ablations of CLIPpy (arXiv 2210.09996) in small, on photos: pooling, initialisation, token sub-sampling, frozen.

Each group changes one thing of the reference: max pooling, a supervised trunk that learns on at a low rate, half of the
patch tokens dropped. All runs have the same steps, batches and photos; a configuration of several groups runs once a
seed. Every finished run is a line of OUT/runs.jsonl, and the same command goes on from there; Ctrl-C loses the current
run only. At the end a table of means and spreads goes to benchmarks/results/, with what the paper's orderings become.

    python benchmarks/ablations/paper_tables.py --data-root DIR --models DIR --minilm DIR
    python benchmarks/ablations/paper_tables.py --data-root DIR --models DIR --table-only
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from clippy_cli.data.benchmarks import open_benchmark
from clippy_cli.errors import ClippyError, ExitCode
from clippy_cli.evaluation.protocol import load_protocol
from clippy_cli.evaluation.set_evaluation import evaluate_set
from clippy_cli.evaluation.settings import Overrides
from clippy_cli.evaluation.tasks import Task
from clippy_cli.evaluation.tasks.base import Options
from clippy_cli.files import write_whole
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.device import resolve_device
from clippy_cli.model.patch_forms import with_patch_form
from clippy_cli.recipe.loading import load_recipe
from clippy_cli.training.run import train

sys.path.insert(0, str(Path(__file__).parents[1]))

from orderings import COLUMNS, FIGURES, GROUPS, SELF_DISTILLED, Configuration, Measured, statements, table_rows
from results_file import write_results
from self_distillation import STEPS as DISTILLATION_STEPS
from self_distillation import distil, photos

TRUNK = "vit_tiny_patch16_224.augreg.safetensors"
TRUNK_LR = 1e-4
DEV = "flickr8k/dev-00000.tar"
MASKS: tuple[tuple[str, tuple[Task, ...], str], ...] = (
    ("voc20", ("segment",), "plain"),
    ("voc20", ("segment",), "centred"),
    ("voc", ("segment", "group"), "plain"),
    ("coco", ("group",), "plain"),
    ("bsds500", ("group",), "plain"),
)
console = Console(soft_wrap=True)


@dataclass(frozen=True)
class Budget:
    """What all runs have in common; with the configuration and the seed the key of a finished run."""

    steps: int
    batch_size: int
    resolution: int
    shards: int
    limit: int
    dev_limit: int
    distillation_steps: int
    overrides: tuple[str, ...]

    def key(self, configuration: Configuration, seed: int) -> dict[str, Any]:
        """Plain values, as JSON gives them back; the steps of self-distillation only where there is any."""
        fields = asdict(self) | {"overrides": list(self.overrides)}
        if configuration.init != SELF_DISTILLED:
            del fields["distillation_steps"]
        return asdict(configuration) | {"seed": seed} | fields


class Runs:
    """The finished runs in a file of JSON lines; a line that is cut short does not count."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: list[dict[str, Any]] = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                self._records.append(json.loads(line))
            except ValueError:
                console.print(f"{path}: a damaged line is passed over")

    def figures(self, key: Mapping[str, Any]) -> dict[str, float] | None:
        """What this run measured; None where it is still to be done."""
        return next((record["figures"] for record in self._records if record["settings"] == key), None)

    def add(self, key: Mapping[str, Any], figures: Mapping[str, float], seconds: Mapping[str, float]) -> None:
        self._records.append({"settings": dict(key), "figures": dict(figures), "seconds": dict(seconds)})
        lines = "".join(json.dumps(record) + "\n" for record in self._records)
        write_whole(self._path, lambda stream: stream.write(lines.encode()))


class Laboratory:
    """Trains and measures one configuration after another, from the same files on the same device."""

    def __init__(self, data: Path, models: Path, minilm: Path, out: Path, budget: Budget, device: str) -> None:
        self._data, self._models, self._minilm, self._out = data, models, minilm, out
        self._budget, self._device = budget, device
        self._texts: dict[str, Tensor] = {}

    def train(self, configuration: Configuration, seed: int, trunk: str) -> Clippy:
        """Train by recipe flickr8k with what the configuration and the budget change; ``trunk`` is what it starts from.

        ClippyError where ``--set`` names a field that the ablation itself sets.
        """
        budget = self._budget
        shards = ", ".join(str(self._data / "flickr8k" / f"train-{shard:05d}.tar") for shard in range(budget.shards))
        with tempfile.TemporaryDirectory() as folder:
            fields = {
                "output": f"{folder}/run",
                "seed": seed,
                "model.architecture": "clippy-ti",
                "model.pooling": configuration.pooling,
                "model.image.init": trunk,
                "model.image.freeze": "trunk" if configuration.trunk == "frozen" else "none",
                "model.text.init": self._minilm,
                "model.text.freeze": "all",
                "data.source.paths": f"[{shards}]",
                "data.resolution": budget.resolution,
                "data.cache_features": "false",  # a frozen trunk, too, sees the kept patches only
                "train.epochs": "null",
                "train.steps": budget.steps,
                "train.batch_size": budget.batch_size,
                "train.drop_rate": configuration.drop_rate,
                "train.checkpoint_every": budget.steps,
            }
            if clash := fields.keys() & {override.partition("=")[0] for override in budget.overrides}:
                raise ClippyError(f"--set {min(clash)} is what the ablation itself sets.", "Leave it out.")
            defaults = [
                f"model.image.lr={TRUNK_LR}",
                f"train.warmup_steps={budget.steps // 10}",
                "data.workers=0",
            ]
            given = [f"{field}={value}" for field, value in fields.items()]
            return train(load_recipe("flickr8k", [*defaults, *budget.overrides, *given]), device=self._device).model

    def measure(self, model: Clippy) -> dict[str, float]:
        """Every one of ``FIGURES``, as a share."""
        budget = self._budget
        # The text tower is frozen, so that one model's text embeddings are every model's.
        model.embed_texts = partial(self._known_texts, model.embed_texts)  # type: ignore[method-assign]
        protocol, overrides = load_protocol("clippy"), Overrides(resolution=budget.resolution)
        figures: dict[str, float] = {}
        sets = [(name, open_benchmark(name, self._data), tasks, form, budget.limit) for name, tasks, form in MASKS]
        sets.append(("dev", open_benchmark(str(self._data / DEV), None), ("retrieve",), "plain", budget.dev_limit))
        for name, images, tasks, form, limit in sets:
            chosen, options = with_patch_form(model, form), Options(limit=limit)
            evaluated = evaluate_set(chosen, images, protocol, tasks=tasks, overrides=overrides, options=options)
            for result in evaluated.results:
                if result.data.failed:
                    raise ClippyError(f"{name}: {result.data.failed[0]}", "Unpack the set again.")
                suffix = "" if form == "plain" else f".{form}"
                figures |= {
                    f"{name}.{metric}{suffix}": value for metric, value in result.metrics.items() if value is not None
                }
        return {name: figures[name] for name in FIGURES}

    def _known_texts(self, embed: Any, texts: Sequence[str]) -> Tensor:
        unknown = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if unknown:
            self._texts |= dict(zip(unknown, embed(unknown), strict=True))
        return torch.stack([self._texts[text] for text in texts])

    def trunk(self, init: str, seed: int) -> str:
        """What ``model.image.init`` takes; a trunk is self-distilled once a seed and kept in the output folder."""
        if init == "random":
            return init
        supervised = self._models / TRUNK
        if init == "supervised":
            return str(supervised)
        budget = self._budget
        steps, resolution = budget.distillation_steps, budget.resolution
        path = self._out / f"self-distilled-{steps}-steps-{resolution}-pixels-seed-{seed}.safetensors"
        if not path.is_file():
            device = resolve_device(self._device)
            distil(
                supervised,
                path,
                photos(self._data),
                steps=steps,
                resolution=resolution,
                seed=seed,
                device=device,
                say=console.print,
            )
        return str(path)


def main() -> None:
    options = parse_arguments()
    console.print(f"finished runs: {options.out / 'runs.jsonl'}")
    budget = Budget(
        options.steps,
        options.batch_size,
        options.resolution,
        options.shards,
        options.limit,
        options.dev_limit,
        options.distillation_steps,
        tuple(options.overrides),
    )
    try:
        runs = Runs(options.out / "runs.jsonl")
        if not options.table_only:
            laboratory = Laboratory(
                options.data_root, options.models, options.minilm, options.out, budget, options.device
            )
            run_all(laboratory, runs, budget, options.groups, options.seeds)
        report(runs, budget, options)
    except KeyboardInterrupt:
        console.print("Interrupted; the same command goes on with the run that was cut off.")
        sys.exit(int(ExitCode.INTERRUPTED))
    except ClippyError as error:
        sys.exit(f"{error.message}\n{error.hint or ''}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="folder of flickr8k, VOC, COCO, BSDS500, ...")
    parser.add_argument("--models", type=Path, required=True, help=f"folder of {TRUNK}")
    parser.add_argument("--minilm", type=Path, help="folder of MiniLM; default: MODELS/all-MiniLM-L6-v2")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--resolution", type=int, default=128, help="of training and measuring, in pixels")
    parser.add_argument("--shards", type=int, default=2, help="of flickr8k's seven to train on")
    parser.add_argument("--limit", type=int, default=60, help="photos of each annotated set")
    parser.add_argument("--dev-limit", type=int, default=500, help="photos of flickr8k dev for retrieval")
    parser.add_argument("--distillation-steps", type=int, default=DISTILLATION_STEPS)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="FIELD=VALUE", help="all runs")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("runs/paper_tables"), help="finished runs, distilled trunks")
    parser.add_argument("--table-only", action="store_true", help="of what is finished; run nothing")
    parser.add_argument("--no-file", action="store_true", help="print the table only")
    options = parser.parse_args()
    options.minilm = options.minilm or options.models / "all-MiniLM-L6-v2"
    return options


def run_all(laboratory: Laboratory, runs: Runs, budget: Budget, groups: Sequence[str], seeds: Sequence[int]) -> None:
    """Run what is not finished, seed by seed, so that an interrupted ablation has whole seeds."""
    configurations = dict.fromkeys(entry for group in groups for entry in GROUPS[group][1].values())
    for seed in seeds:
        for configuration in configurations:
            key = budget.key(configuration, seed)
            if runs.figures(key) is not None:
                continue
            console.print(f"seed {seed}: {configuration}")
            trunk = laboratory.trunk(configuration.init, seed)
            begun = time.perf_counter()
            model = laboratory.train(configuration, seed, trunk)
            trained = time.perf_counter()
            figures = laboratory.measure(model)
            seconds = {"training": round(trained - begun, 1), "measuring": round(time.perf_counter() - trained, 1)}
            runs.add(key, figures, seconds)
            console.print("  " + ", ".join(f"{FIGURES[name]} {share:.1%}" for name, share in figures.items()))
            console.print("  " + ", ".join(f"{what} {spent:.0f} s" for what, spent in seconds.items()))


def report(runs: Runs, budget: Budget, options: argparse.Namespace) -> None:
    """Print the table and the statements, and write them."""
    measured: Measured = {
        (group, name): [found for seed in options.seeds if (found := runs.figures(budget.key(configuration, seed)))]
        for group in options.groups
        for name, configuration in GROUPS[group][1].items()
    }
    rows, notes = table_rows(measured, options.groups), statements(measured)
    for line in (*(" | ".join(row) for row in (COLUMNS, *rows)), *notes):
        console.print(line, markup=False)
    if options.no_file:
        return
    path = write_results("paper_tables", settings(budget), COLUMNS, rows, resolve_device(options.device), notes)
    console.print(f"written to {path}")


def settings(budget: Budget) -> str:
    """How all of it was made, above the table."""
    changed = f" Changed in every run: {', '.join(budget.overrides)}." if budget.overrides else ""
    return (
        "`python benchmarks/ablations/paper_tables.py`, recipe flickr8k with clippy-ti, text tower frozen. Every run: "
        f"{budget.steps} steps of {budget.batch_size} photos from {budget.shards} of Flickr8k's 7 training shards at "
        f"{budget.resolution} pixels, learning rate of the trunk {TRUNK_LR:g}.{changed} Reference: {Configuration()}. "
        f"The self-supervised stage comes before and is extra: {budget.distillation_steps} steps of DINO and iBOT from "
        "the supervised weights on photos without captions (Flickr8k train, BSDS500 train, ImageNet sample), anew for "
        "each seed.\n\nIn percent, mean ± sample standard deviation over seeds, which change weights, order, captions "
        f"and dropped tokens. Protocol clippy, whole image, short side {budget.resolution}, patch embeddings plain "
        f"unless centred is said, the first {budget.limit} photos of each set. Jaccard is of 8 PCA groups an image, "
        "matched one to one; BSDS500 (val where test is missing) stands for the paper's ADE20K. Retrieval: the first "
        f"{budget.dev_limit} photos of Flickr8k dev with all their captions. The paper: CC-12M, ViT-B/16, "
        "Sentence-T5; its self-supervised trunk is DINO's, without labels."
    )


if __name__ == "__main__":
    main()
