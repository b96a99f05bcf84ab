"""The paper's central claim in miniature: one budget, four poolings of the image tokens, on generated scenes.

    python benchmarks/pooling_ablation.py [--set FIELD=VALUE ...]

Trains recipes/quickstart.yaml once for each pooling and measures, on held-out scenes: mIoU of the label map (patch
embeddings plain, and minus the mean training patch), accuracy of the scene's background as a zero-shot class, and
retrieval between images and captions. Prints a table and writes it to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence

import torch
from results_file import write_results
from rich.console import Console
from rich.table import Table
from torch import Tensor

from clippy_cli.data.benchmarks.scenes import HELD_OUT_SEED, SceneBenchmark
from clippy_cli.data.images import to_tensor
from clippy_cli.data.prompts import prompt_embeddings, resolve_templates
from clippy_cli.data.scenes import BACKGROUNDS, Scene, draw_scene
from clippy_cli.evaluation.protocol import load_protocol
from clippy_cli.evaluation.set_evaluation import evaluate_set
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.device import resolve_device
from clippy_cli.model.patch_forms import with_patch_form
from clippy_cli.recipe.loading import load_recipe
from clippy_cli.training.run import train

POOLINGS = ("max", "avg", "cls", "lse")
SCENES = 500
BATCH = 50
COLUMNS = (
    "pooling",
    "mIoU, plain",
    "mIoU, centred",
    "background accuracy",
    "caption R@1",
    "image R@1",
    "cos(pooled, patch)",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--poolings", nargs="+", default=POOLINGS, choices=POOLINGS)
    parser.add_argument("--scenes", type=int, default=SCENES, help="held-out scenes to measure on")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    console = Console()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for pooling in options.poolings:
            console.print(f"training with pooling {pooling}")
            overrides = [*options.overrides, f"model.pooling={pooling}", f"output={folder}/{pooling}"]
            rows.append(measure(pooling, overrides, options.scenes, options.device))
    table = Table(*COLUMNS, title="same budget, four poolings")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    command = " ".join(["python benchmarks/pooling_ablation.py", *(f"--set {text}" for text in options.overrides)])
    settings = f"`{command}`: {options.scenes} held-out scenes."
    path = write_results("pooling_ablation", settings, COLUMNS, rows, resolve_device(options.device))
    console.print(f"written to {path}")


def measure(pooling: str, overrides: Sequence[str], count: int, device: str) -> list[str]:
    """Train once and measure; one row of the table."""
    result = train(load_recipe("quickstart", overrides), device=device)
    model, resolution = result.model, result.model.preprocess.resolution
    assert result.offset is not None
    benchmark = SceneBenchmark(count, resolution)
    miou = [
        evaluate_set(with_patch_form(model, form), benchmark, load_protocol("clippy"), tasks=("segment",))
        .results[0]
        .metrics["miou"]
        for form in ("plain", "centred")
    ]
    scenes = [draw_scene(HELD_OUT_SEED, index, resolution) for index in range(count)]
    assert None not in miou
    shares = [*miou, background_accuracy(model, scenes), *retrieval(model, scenes)]
    return [
        pooling,
        *(f"{share:.1%}" for share in shares),
        f"{result.offset.pooled_patch_cosine:+.2f}",
    ]


def background_accuracy(model: Clippy, scenes: Sequence[Scene]) -> float:
    """Share of scenes whose best-scoring background word names a background that is there."""
    texts = prompt_embeddings(model, BACKGROUNDS, resolve_templates(model.defaults.templates))
    best = scores(model, scenes, texts).argmax(dim=1).tolist()
    return sum(BACKGROUNDS[k] in scene.backgrounds for k, scene in zip(best, scenes, strict=True)) / len(scenes)


def retrieval(model: Clippy, scenes: Sequence[Scene]) -> tuple[float, float]:
    """R@1 of captions for images and of images for captions; an equal caption of another scene counts as found."""
    captions = [scene.captions[0] for scene in scenes]
    table = scores(model, scenes, model.embed_texts(captions))  # (B,K)
    by_image, by_caption = (
        sum(captions[k] == caption for k, caption in zip(best, captions, strict=True)) / len(scenes)
        for best in (table.argmax(dim=1).tolist(), table.argmax(dim=0).tolist())
    )
    return by_image, by_caption


def scores(model: Clippy, scenes: Sequence[Scene], texts: Tensor) -> Tensor:
    """(B,K) image-text scores on the CPU."""
    parts = []
    for start in range(0, len(scenes), BATCH):
        images = to_tensor([scene.image for scene in scenes[start : start + BATCH]]).to(model.device)
        parts.append(model.score_images(model.preprocess.normalize(images), texts).cpu())
    return torch.cat(parts)


if __name__ == "__main__":
    main()
