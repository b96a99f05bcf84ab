"""Photos segmented and grouped, one contact sheet a set, to be looked at: what a figure does not show.

A row is photo, segmentation, groups and annotation, drawn as ``clippy segment`` and ``clippy group`` draw them. Nobody
picks photos: a set is cut into as many equal parts as photos are wanted, the middle one of each is taken. Words are, on
PASCAL VOC and COCO, the classes in the photo's annotation (on VOC against the set's context words, left untinted);
on CamVid all 11 classes; on Flickr8k those of a short list that its captions hold, of photos that have two or more.

    python benchmarks/contact_sheets.py --data-root ~/data --count 2 --refine none --out sheets
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from clippy_cli.api import Clip, load
from clippy_cli.data.benchmarks.base import IGNORE, SegmentationSet
from clippy_cli.data.benchmarks.captioned import open_captioned
from clippy_cli.data.benchmarks.catalogue import find_set, open_set
from clippy_cli.data.labels import Label, Vocabulary, parse_labels
from clippy_cli.files import write_whole
from clippy_cli.model import DEFAULT_MODEL
from clippy_cli.reporting.overlay import draw_overlay

NOUNS = parse_labels(
    "man|men, woman|women, child|children|boy|girl|kid|baby, dog, cat, horse, bird, grass, water, snow, sand, sky, "
    "tree, rock, mountain, road|street, building, wall, fence, bicycle|bike, skateboard, car, boat, ball, shirt"
)
GAP = 16  # pixels


@dataclass(frozen=True)
class Photo:
    """A photo (H,W,3), the words to ask for, and its annotation in their codes (H,W), if any."""

    key: str
    image: NDArray[np.uint8]
    vocabulary: Vocabulary
    annotation: NDArray[np.int16] | None = None


def evenly(total: int, count: int) -> list[int]:
    """The middle of each of ``count`` equal parts of ``total``; all where there are fewer."""
    return [(2 * part + 1) * total // (2 * count) for part in range(count)] if count < total else list(range(total))


def read_annotated(images: SegmentationSet, index: int) -> Photo:
    """A photo and the classes to ask for; the background class and pixels that do not count are code 0."""
    sample = images.read(index)
    there = range(len(images.classes)) if images.info.name == "camvid-val" else np.unique(sample.mask).tolist()
    asked = [value for value in there if value not in (IGNORE, images.background)]
    code_of = np.zeros(IGNORE + 1, np.int16)
    code_of[asked] = np.arange(1, len(asked) + 1)
    labels = tuple(Label(prompts[0], prompts) for prompts in (images.classes[value].prompts for value in asked))
    context = tuple(Label(word, (word,)) for word in images.context)
    return Photo(sample.key, sample.image, Vocabulary(labels, context), code_of[sample.mask])


def nouns_in(captions: Sequence[str]) -> tuple[Label, ...]:
    """Those of the list of which a caption holds a synonym, with or without the s of a plural."""
    words = re.findall(r"[a-z]+", " ".join(captions).lower())
    forms = {*words, *(word.removesuffix("s") for word in words)}
    return tuple(noun for noun in NOUNS if forms.intersection(noun.synonyms))


def open_sets(root: Path, count: int) -> Iterator[tuple[str, list[int], Callable[[int], Photo]]]:
    """Each set's name, which photos of it, and what reads one."""
    for name in ("voc", "coco", "camvid-val"):
        images = open_set(name, *find_set(name, root))
        assert images.kind == "segmentation"
        yield name, evenly(len(images), count), partial(read_annotated, images)
    captioned = open_captioned(str(root / "flickr8k" / "dev-*.tar"))
    nouns = [nouns_in(captioned.captions(index)) for index in range(len(captioned))]
    usable = [index for index, found in enumerate(nouns) if len(found) > 1]
    taken = [usable[place] for place in evenly(len(usable), count)]
    yield "flickr8k-dev", taken, lambda at: Photo(captioned.key(at), captioned.read(at).image, Vocabulary(nouns[at]))


def draw_row(clip: Clip, photo: Photo, refine: str) -> list[Image.Image]:
    """Photo, segmentation, groups and annotation, each with its legend."""
    labels, words = (
        ["|".join(label.synonyms) for label in part] for part in (photo.vocabulary.labels, photo.vocabulary.background)
    )
    encoded = clip.image(photo.image)
    segmentation = encoded.segment(labels, background=words, refine=refine)
    plain = draw_overlay(photo.image, np.zeros(photo.image.shape[:2], np.int16), [])
    pictures = [plain, segmentation.overlay(), encoded.group().overlay()]
    if photo.annotation is not None:
        pixels = np.bincount(photo.annotation.ravel(), minlength=len(labels) + 1)[1:]
        unscored = np.full(len(labels), np.nan)
        annotated = replace(segmentation, mask=photo.annotation, pixels=pixels, scores=unscored)
        pictures.append(annotated.overlay())
    return pictures


def draw_sheet(heading: str, rows: Sequence[tuple[Photo, Sequence[Image.Image]]]) -> Image.Image:
    """Rows of pictures, each below its key and words; all columns are as wide as the widest picture."""
    column = max(picture.width for _, row in rows for picture in row) + GAP
    heights = [max(picture.height for picture in row) + 40 + GAP for _, row in rows]
    sheet = Image.new("RGB", (GAP + column * len(rows[0][1]), 60 + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 14), heading, fill="black", font=ImageFont.load_default(28))
    for number, (photo, row) in enumerate(rows):
        top, words = 60 + sum(heights[:number]), ", ".join(label.name for label in photo.vocabulary.labels)
        draw.text((GAP, top + 6), f"{photo.key}: {words}", fill="black", font=ImageFont.load_default(22))
        for place, picture in enumerate(row):
            sheet.paste(picture, (GAP + column * place, top + 40))
    return sheet


def main() -> None:
    """Segment, group, and write a JPEG a set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--count", type=int, choices=range(1, 51), metavar="N", default=5, help="photos of each set")
    parser.add_argument("--refine", default="guided", choices=["none", "guided"])
    parser.add_argument("--out", type=Path, default=Path("contact-sheets"))
    options = parser.parse_args()
    clip = load(options.model)
    for name, indices, read in open_sets(options.data_root, options.count):
        rows = [(photo, draw_row(clip, photo, options.refine)) for photo in map(read, indices)]
        columns = " | ".join(("photo", "segmentation", "groups", "annotation")[: len(rows[0][1])])
        heading = (
            f"{name}, {clip.name}, short side {clip.model.defaults.resolution}, refine {options.refine}: {columns}"
        )
        save = partial(draw_sheet(heading, rows).save, format="JPEG", quality=88)
        print(f"written to {write_whole(options.out / f'{name}.jpg', save)}")


if __name__ == "__main__":
    main()
