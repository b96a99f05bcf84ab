"""Photos segmented and grouped, one contact sheet a set, to be looked at: what a figure does not show.

A row is a photo, its segmentation, its groups and, where there is one, its annotation, drawn as ``clippy segment`` and
``clippy group`` draw them. Photos are not chosen by hand: a set is cut into as many equal parts as photos are asked
for, and the middle photo of each part is taken. Words asked for:

- PASCAL VOC and COCO: the classes that the photo's annotation holds; on VOC against the set's context words, which
  stay untinted like its background;
- CamVid: all 11 classes;
- Flickr8k: the words of a short list that the captions hold. A photo with fewer than two gives way to the next one.

    python benchmarks/contact_sheets.py --data-root ~/data
    python benchmarks/contact_sheets.py --data-root ~/data --count 2 --refine none --out /tmp/sheets
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from clippy_cli.data.benchmarks.base import IGNORE, SegmentationSet
from clippy_cli.data.benchmarks.captioned import CaptionedSet, open_captioned
from clippy_cli.data.benchmarks.catalogue import find_set, open_set
from clippy_cli.data.labels import Label, Vocabulary
from clippy_cli.data.prompts import prompt_embeddings, resolve_templates
from clippy_cli.files import write_whole
from clippy_cli.inference.features import Encoded, Failed, encode_images, patch_embeddings
from clippy_cli.inference.group import group_patches
from clippy_cli.inference.label_map import LabelMap
from clippy_cli.inference.refine.refinement import METHODS, Method, parse_refinement
from clippy_cli.inference.segment import segment_patches
from clippy_cli.model import DEFAULT_MODEL
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.store import load_model
from clippy_cli.reporting.overlay import draw_overlay
from clippy_cli.reporting.products import legend_items

ANNOTATED = ("voc", "coco", "camvid-val")
WHOLE_VOCABULARY = "camvid-val"
NOUNS = [
    "man",
    "woman",
    "child",
    "boy",
    "girl",
    "baby",
    "dog",
    "cat",
    "horse",
    "bird",
    "grass",
    "water",
    "snow",
    "sand",
    "sky",
    "tree",
    "rock",
    "mountain",
    "road",
    "street",
    "building",
    "wall",
    "fence",
    "bicycle",
    "bike",
    "skateboard",
    "car",
    "boat",
    "ball",
    "shirt",
]
PLURALS = {"men": "man", "women": "woman", "children": "child", "babies": "baby"}
GAP = 16  # pixels
console = Console()


@dataclass(frozen=True)
class Photo:
    """A photo (H,W,3), the words to ask for, its annotation in their codes (H,W) if any, and what its row is called."""

    key: str
    image: NDArray[np.uint8]
    vocabulary: Vocabulary
    annotation: NDArray[np.int16] | None
    title: str


def evenly(total: int, count: int) -> list[int]:
    """The middle of each of ``count`` equal parts of ``total``; all there are where they are fewer."""
    count = min(total, count)
    return [(2 * part + 1) * total // (2 * count) for part in range(count)]


def read_annotated(images: SegmentationSet, index: int) -> Photo:
    """A photo of an annotated set with its own classes; the background class and pixels that do not count are 0."""
    sample = images.read(index)
    whole = images.info.name == WHOLE_VOCABULARY
    asked = range(len(images.classes)) if whole else [int(value) for value in np.unique(sample.mask)]
    asked = [value for value in asked if value not in (IGNORE, images.background)]
    code_of = np.zeros(256, np.int16)
    code_of[asked] = np.arange(1, len(asked) + 1)
    labels = tuple(Label(prompts[0], prompts) for prompts in (images.classes[value].prompts for value in asked))
    vocabulary = Vocabulary(labels, tuple(Label(word, (word,)) for word in images.context))
    title = f"{sample.key}   {', '.join(label.name for label in labels)}"
    if images.context:
        title += f"; {len(images.context)} context words"
    return Photo(sample.key, sample.image, vocabulary, code_of[sample.mask], title)


def nouns_in(captions: Sequence[str]) -> list[str]:
    """The words of the list that captions hold, in singular or plural, in the list's order."""
    words = set(re.findall(r"[a-z]+", " ".join(captions).lower()))
    forms = {form for word in words for form in (word, word.removesuffix("s"), PLURALS.get(word, word))}
    return [noun for noun in NOUNS if noun in forms]


def read_captioned(images: CaptionedSet, index: int) -> Photo:
    """A captioned photo with the listed words of its captions."""
    sample = images.read(index)
    labels = tuple(Label(noun, (noun,)) for noun in nouns_in(sample.captions))
    return Photo(sample.key, sample.image, Vocabulary(labels), None, f"{sample.key}   {sample.captions[0]}")


def draw_row(model: VisionLanguageModel, encoded: Encoded[Photo], method: Method | None) -> list[Image.Image]:
    """Photo, segmentation, groups and annotation, with legends."""
    photo, patches = encoded.sample, encoded.output
    image, vocabulary = photo.image, photo.vocabulary
    height, width = image.shape[:2]
    texts = prompt_embeddings(model, vocabulary.texts, resolve_templates(model.defaults.templates))
    refinement = None if method is None else (method, image)
    scale = model.defaults.logit_scale
    found = segment_patches(patches, texts, vocabulary, height, width, logit_scale=scale, refinement=refinement)
    groups = group_patches(patches, height, width)
    names = [label.name for label in vocabulary.labels]
    row = [
        draw_overlay(image, np.zeros((height, width), np.int16), []),
        draw_overlay(image, found.label_map.codes, legend_items(found.label_map, names)),
        draw_overlay(image, groups.codes, legend_items(groups, [f"{code}" for code in range(1, len(groups.pixels))])),
    ]
    if photo.annotation is not None:
        pixels = np.bincount(photo.annotation.ravel(), minlength=len(names) + 1)
        annotated = LabelMap(photo.annotation, pixels, np.full(len(pixels), np.nan))
        row.append(draw_overlay(image, annotated.codes, legend_items(annotated, names)))
    return row


def draw_sheet(heading: str, rows: Sequence[tuple[str, Sequence[Image.Image]]]) -> Image.Image:
    """Rows of pictures below their titles, all columns as wide as the widest picture."""
    big, small = ImageFont.load_default(28), ImageFont.load_default(22)
    column = max(picture.width for _, row in rows for picture in row) + GAP
    heights = [max(picture.height for picture in row) + 40 + GAP for _, row in rows]
    sheet = Image.new("RGB", (GAP + column * max(len(row) for _, row in rows), 60 + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 14), heading, fill="black", font=big)
    top = 60
    for (title, row), height in zip(rows, heights, strict=True):
        draw.text((GAP, top + 6), title, fill="black", font=small)
        for place, picture in enumerate(row):
            sheet.paste(picture, (GAP + column * place, top + 40))
        top += height
    return sheet


def open_sets(root: Path, count: int) -> Iterator[tuple[str, list[int], Callable[[int], Photo]]]:
    """Each set's title, the photos taken of it, and what reads one."""
    for name in ANNOTATED:
        images = cast(SegmentationSet, open_set(name, *find_set(name, root)))
        yield name, evenly(len(images), count), partial(read_annotated, images)
    captioned = open_captioned(str(root / "flickr8k" / "dev-*.tar"))
    usable = [index for index in range(len(captioned)) if len(nouns_in(captioned.captions(index))) > 1]
    starts = evenly(len(captioned), count)
    taken = {next((index for index in usable if index >= start), usable[-1]) for start in starts}
    yield "flickr8k-dev", sorted(taken), partial(read_captioned, captioned)


def main() -> None:
    """Segment, group, and write a JPEG a set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--count", type=int, default=5, help="photos of each set")
    parser.add_argument("--refine", default="guided", choices=["none", *METHODS])
    parser.add_argument("--out", type=Path, default=Path("contact-sheets"))
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    model = load_model(options.model, device=options.device)
    method = parse_refinement(options.refine)
    patch, resolution = model.preprocess.patch_size, model.defaults.resolution
    for name, indices, read in open_sets(options.data_root, options.count):
        rows = []
        encode = partial(patch_embeddings, model)
        for result in encode_images(indices, read, encode, patch_size=patch, resolution=resolution, batch_size=1):
            if isinstance(result, Failed):
                raise result.error
            rows.append((result.sample.title, draw_row(model, result, method)))
        columns = " | ".join(("photo", "segmentation", "groups", "annotation")[: len(rows[0][1])])
        sheet = draw_sheet(f"{name}, {model.name}, short side {resolution}, refine {options.refine}: {columns}", rows)
        path = write_whole(options.out / f"{name}.jpg", partial(sheet.save, format="JPEG", quality=88))
        console.print(f"written to {path}")


if __name__ == "__main__":
    main()
