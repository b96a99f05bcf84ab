"""``clippy classify``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.commands.image_run import MOST_TABLES, Record, input_files, load_model, run_images
from clippy_cli.model import DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clippy_cli.inference.features import Encoded, ImageFile

CSV_COLUMNS = ("image", "rank", "label", "probability", "score")


def classify(
    images: options.Images,
    labels: options.Labels,
    top_k: Annotated[int, typer.Option(min=1, metavar="K", help="How many labels to give for each image.")] = 5,
    templates: options.Templates = None,
    model: options.Model = DEFAULT_MODEL,
    resolution: options.Resolution = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write image, rank, label, probability, score as CSV.")
    ] = None,
    batch_size: options.BatchSize = options.DEFAULT_BATCH,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Say which of your labels fit whole photos best.

    \b
    The whole photo is used: its short side is resized to the model's training
    resolution, its aspect is kept, nothing is cropped. The probability is a
    softmax over the labels given: it says which of them fits best, not whether
    any of them does.

    \b
    Examples:
      clippy classify photo.jpg --labels "dog|puppy,cat,horse"
      clippy classify photos/ --labels indoor,outdoor --csv places.csv
      clippy classify photo.jpg --labels beach,forest --templates openai --json
    """
    from functools import partial

    from clippy_cli.data.labels import Vocabulary, parse_labels
    from clippy_cli.data.prompts import prompt_embeddings, resolve_templates
    from clippy_cli.inference.classify import rank_labels
    from clippy_cli.inference.features import image_scores
    from clippy_cli.reporting.products import save_csv

    vocabulary = Vocabulary(parse_labels(labels))
    paths = input_files(images)
    prompts = None if templates is None else resolve_templates(templates)
    clip = load_model(model, device, texts=True)
    prompts = prompts or resolve_templates(clip.defaults.templates)
    short_side = resolution or clip.preprocess.resolution
    texts = prompt_embeddings(clip, vocabulary.texts, prompts)
    settings: dict[str, Any] = {
        "command": "classify",
        "model": model,
        "labels": {label.name: list(label.synonyms) for label in vocabulary.labels},
        "templates": list(prompts),
        "resolution": short_side,
    }

    def handle(encoded: Encoded[ImageFile], stem: str) -> Record:
        guesses = rank_labels(encoded.output, vocabulary, logit_scale=clip.defaults.logit_scale, top_k=top_k)
        return {"guesses": [asdict(guess) for guess in guesses]}

    run = run_images(
        paths,
        partial(image_scores, clip, texts),
        handle,
        verb="classifying",
        patch_size=clip.preprocess.patch_size,
        resolution=short_side,
        batch_size=batch_size,
    )
    if csv is not None:
        save_csv(csv, CSV_COLUMNS, _rows(run.done))
    if json:
        console.print_json({**settings, "images": run.done, "failed": run.failed})
    else:
        _print_guesses(run.done)
    run.finish()


def _rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    return [
        {"image": record["image"], "rank": rank, **guess}
        for record in records
        for rank, guess in enumerate(record["guesses"], start=1)
    ]


def _print_guesses(records: Sequence[Record]) -> None:
    for record in records:
        if len(records) > MOST_TABLES:
            guesses = ", ".join(f"{guess['label']} {100 * guess['probability']:.1f} %" for guess in record["guesses"])
            console.out.print(Text.assemble((record["image"], "bold"), f"  {guesses}"), soft_wrap=True)
            continue
        console.out.print(Text(record["image"], "bold"), soft_wrap=True)
        table = Table("label", box=None, pad_edge=False)
        table.add_column("probability", justify="right")
        table.add_column("score", justify="right")
        for guess in record["guesses"]:
            table.add_row(Text(guess["label"]), f"{100 * guess['probability']:.1f} %", f"{guess['score']:.3f}")
        console.out.print(table)
