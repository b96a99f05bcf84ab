"""``clippy segment``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.commands.image_run import input_files, load_model
from clippy_cli.commands.region_run import Regions, run_regions
from clippy_cli.model import DEFAULT_MODEL

if TYPE_CHECKING:
    from clippy_cli.inference.features import Encoded, ImageFile

KINDS = ("overlay", "mask", "json", "cutouts", "scores")


def segment(
    images: options.Images,
    labels: options.Labels,
    background: Annotated[
        str | None, typer.Option(metavar="A,B", help="Words that compete like labels but are left unlabelled.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="P",
            help="Leave pixels unlabelled whose score is below this. The score is the label's probability among all "
            "labels and background words; with one label and no background words, its cosine.",
        ),
    ] = None,
    templates: options.Templates = None,
    model: options.Model = DEFAULT_MODEL,
    resolution: options.Resolution = None,
    save: Annotated[
        str, typer.Option(metavar="KINDS", help=f"What to write: any of {', '.join(KINDS)}, with commas; or none.")
    ] = "overlay,mask,json",
    out: options.Out = options.DEFAULT_OUT,
    batch_size: options.BatchSize = options.DEFAULT_BATCH,
    device: options.Device = "auto",
    json: options.Json = False,
) -> None:
    """Give every pixel of photos one of your labels.

    \b
    Writes, for photo.jpg, into the folder of --out:
      photo_overlay.png   the photo tinted by label, with a legend
      photo_mask.png      palette PNG of the photo's size; 0: unlabelled, 1: first
                          label, and so on
      photo.json          share, mean score, box and COCO RLE of each label
      photo_cutouts/      with --save cutouts: a transparent PNG for each label
      photo_scores.npz    with --save scores: cosine of each label and patch

    \b
    A file that cannot be used is reported and the others are done; the exit
    code is then 3.

    \b
    Examples:
      clippy segment photo.jpg --labels dog,grass
      clippy segment photos/ --labels "dog|puppy,cat" --background wall,sky
      clippy segment photo.jpg --labels dog --background grass --save cutouts
      clippy segment "photos/**/*.jpg" --labels car,road --save none --json
    """
    from functools import partial

    from clippy_cli.data.labels import Vocabulary, parse_labels
    from clippy_cli.data.prompts import prompt_embeddings, resolve_templates
    from clippy_cli.inference.segment import score_kind, segment_patches
    from clippy_cli.reporting.masks import check_label_count, write_scores

    vocabulary = Vocabulary(parse_labels(labels), () if background is None else parse_labels(background))
    names = [label.name for label in vocabulary.labels]
    entries = [label.name for label in (*vocabulary.labels, *vocabulary.background)]
    kinds = options.parse_kinds(save, KINDS)
    if {"overlay", "mask"}.intersection(kinds):
        check_label_count(len(names))
    paths = input_files(images, out)
    prompts = None if templates is None else resolve_templates(templates)
    clip = load_model(model, device)
    prompts = prompts or resolve_templates(clip.defaults.templates)
    short_side = resolution or clip.defaults.resolution
    texts = prompt_embeddings(clip, vocabulary.texts, prompts)
    kind = score_kind(vocabulary)
    settings: dict[str, Any] = {
        "command": "segment",
        "model": model,
        "labels": {label.name: list(label.synonyms) for label in vocabulary.labels},
        "background": [label.name for label in vocabulary.background],
        "templates": list(prompts),
        "resolution": short_side,
        "threshold": threshold,
        "score_kind": kind,
    }

    def divide(encoded: Encoded[ImageFile]) -> Regions:
        height, width = encoded.sample.image.shape[:2]
        result = segment_patches(
            encoded.output, texts, vocabulary, height, width, logit_scale=clip.defaults.logit_scale, threshold=threshold
        )
        scores = partial(
            write_scores, similarity=result.similarity.numpy(), entries=entries, height=height, width=width
        )
        return Regions(result.label_map, names, scored=True, writers={"scores": ("_scores.npz", scores)})

    if kind == "cosine" and threshold is None:
        console.print_hint("One label alone gets every pixel; add --background words or a --threshold.")
    run_regions(
        paths,
        clip,
        divide,
        settings,
        verb="segmenting",
        kinds=kinds,
        out=out,
        resolution=short_side,
        batch_size=batch_size,
        json=json,
    )
