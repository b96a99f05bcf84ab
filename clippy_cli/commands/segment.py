"""``clippy segment``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.commands.image_run import input_files, load_model
from clippy_cli.commands.region_run import Regions, run_regions
from clippy_cli.errors import ClippyError
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
    dense: options.Dense = None,
    proxy: options.Proxy = None,
    resolution: options.Resolution = None,
    scales: options.Scales = None,
    flip: options.Flip = None,
    window: options.Window = None,
    stride: options.Stride = None,
    refine: options.Refine = "guided",
    regions: options.RegionFolder = None,
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
      photo+regions_...   with --regions: the same again, one label a region

    \b
    A file that cannot be used is reported and the others are done; the exit
    code is then 3.

    \b
    Examples:
      clippy segment photo.jpg --labels dog,grass
      clippy segment photos/ --labels "dog|puppy,cat" --background wall,sky
      clippy segment photo.jpg --labels dog --background grass --save cutouts
      clippy segment photo.jpg --labels dog,grass --scales 1,2 --flip --refine guided
      clippy segment "photos/**/*.jpg" --labels car,road --save none --json
    """
    from functools import partial

    from clippy_cli.data.labels import Vocabulary, parse_labels
    from clippy_cli.data.prompts import prompt_embeddings, resolve_templates
    from clippy_cli.inference.features import read_with_regions
    from clippy_cli.inference.refine.refinement import parse_refinement
    from clippy_cli.inference.segment import score_kind, segment_patches
    from clippy_cli.inference.views import Views, fit_windows, parse_scales, view_embeddings
    from clippy_cli.reporting.masks import check_label_count, write_scores

    vocabulary = Vocabulary(parse_labels(labels), () if background is None else parse_labels(background))
    names = [label.name for label in vocabulary.labels]
    entries = [label.name for label in (*vocabulary.labels, *vocabulary.background)]
    kinds = options.parse_kinds(save, KINDS)
    if {"overlay", "mask"}.intersection(kinds):
        check_label_count(len(names))
    factors = parse_scales(scales) if scales else (1.0,)
    method = parse_refinement(refine or "none")
    if stride is not None and not window:
        raise ClippyError("--stride needs windows", "Give --window PIXELS too, or leave --stride out.")
    fit_windows(window or None, stride, 1)
    if regions is not None:
        options.check_folder(regions, "--regions")
    paths = input_files(images, out)
    stems = [path.stem for path in paths]
    if regions is not None and len(set(stems)) < len(stems):
        shared = next(stem for stem in stems if stems.count(stem) > 1)
        raise ClippyError(
            f"{stems.count(shared)} photos are called {shared}, and would take the same file of --regions",
            "Segment them one folder at a time, each with a --regions folder of its own.",
        )
    prompts = None if templates is None else resolve_templates(templates)
    clip = load_model(model, device, dense=dense, proxy=proxy, texts=True)
    prompts = prompts or resolve_templates(clip.defaults.templates)
    short_side = resolution or clip.defaults.resolution
    views = Views(factors, bool(flip), *fit_windows(window or None, stride, clip.preprocess.patch_size))
    texts = prompt_embeddings(clip, vocabulary.texts, prompts)
    kind = score_kind(vocabulary)
    settings: dict[str, Any] = {
        "command": "segment",
        "model": model,
        "dense": dense,
        "proxy": proxy,
        "labels": {label.name: list(label.synonyms) for label in vocabulary.labels},
        "background": [label.name for label in vocabulary.background],
        "templates": list(prompts),
        "resolution": short_side,
        "scales": list(views.scales),
        "flip": views.flip,
        "window": views.window,
        "stride": views.stride,
        "refine": method,
        "threshold": threshold,
        "score_kind": kind,
    }

    def divide(encoded: Encoded[ImageFile]) -> Regions:
        image, photo_regions = encoded.sample.image, encoded.sample.regions
        height, width = image.shape[:2]
        result = segment_patches(
            encoded.output,
            texts,
            vocabulary,
            height,
            width,
            logit_scale=clip.defaults.logit_scale,
            threshold=threshold,
            refinement=None if method is None else (method, image),
        )
        scores = partial(
            write_scores, similarity=result.similarity.numpy(), entries=entries, height=height, width=width
        )
        voted = None if photo_regions is None else result.with_regions(photo_regions)
        writers = {"scores": ("_scores.npz", scores)}
        return Regions(result.label_map, names, scored=True, writers=writers, voted=voted)

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
        resolution=views.short_side(short_side),
        batch_size=batch_size,
        json=json,
        encode=lambda batch: view_embeddings(clip, batch, views).cpu(),
        read=None if regions is None else partial(read_with_regions, regions),
    )
