"""``waterbirds.html``: the tables, and photos with what their patches say (arXiv 2210.09996, figure 4A)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from clippy_cli.evaluation.published import published_waterbirds
from clippy_cli.inference.class_map import class_map
from clippy_cli.reporting.overlay import tint
from clippy_cli.reporting.page import data_uri, file_uri, write_page
from clippy_cli.reporting.palette import colour
from clippy_cli.waterbirds.build.demo import DEMO_NOTE, DEMO_SET
from clippy_cli.waterbirds.dataset import WaterbirdsSet
from clippy_cli.waterbirds.measure.answers import BACKGROUND, BirdAnswer, BirdAnswers, BirdWords
from clippy_cli.waterbirds.measure.result import BirdDocument, model_labels


@dataclass(frozen=True)
class BirdExample:
    """A photo, its patches tinted by class, and what both readouts make of it."""

    key: str
    group: str
    patch: str
    pooled: str
    photo: NDArray[np.uint8]
    map: NDArray[np.uint8]


def draw_bird_examples(birds: WaterbirdsSet, answers: BirdAnswers) -> list[BirdExample]:
    """Of each group the first image that the patches got right, and the first that they got wrong."""
    chosen: list[BirdAnswer] = []
    for group in range(4):
        for right in (True, False):
            fitting = (
                answer
                for answer in answers.answers
                if answer.group == group and (answer.patch.label == answer.bird) == right
            )
            chosen += [answer for answer in [next(fitting, None)] if answer is not None]
    return [_draw(birds, answer) for answer in chosen]


def write_waterbirds(
    path: Path,
    document: BirdDocument,
    words: BirdWords,
    places: Sequence[str],
    *,
    examples: Sequence[BirdExample] = (),
    examples_of: str = "",
    sweep: Path | None = None,
) -> Path:
    """Write the report; ``examples_of`` says which model drew them, ``sweep`` is a PNG of :func:`draw_sweep`."""
    return write_page(
        path,
        "waterbirds.html.j2",
        document=document,
        names=model_labels(document.results),
        sweep=None if sweep is None else file_uri(sweep),
        note=DEMO_NOTE if document.data.name == DEMO_SET else "",
        examples=[
            {**vars(example), "photo": data_uri(example.photo), "map": data_uri(example.map)} for example in examples
        ],
        examples_of=examples_of,
        labels=[label.name for label in words.labels],
        colours=["#{:02x}{:02x}{:02x}".format(*colour(bird + 1)) for bird in (0, 1)],
        published=published_waterbirds() if document.data.name == "waterbirds" else (),
        places=places,
    )


def _draw(birds: WaterbirdsSet, answer: BirdAnswer) -> BirdExample:
    sample = birds.read(answer.index)
    height, width = sample.image.shape[:2]
    one_hot = torch.nn.functional.one_hot(torch.as_tensor(answer.patch.class_map).long(), BACKGROUND + 1)
    shown = class_map(one_hot.permute(2, 0, 1).float(), range(BACKGROUND + 1), height, width).numpy()
    codes = np.where(shown == BACKGROUND, 0, shown + 1).astype(np.int16)
    return BirdExample(
        key=answer.key,
        group=f"{birds.birds[answer.bird]} on {birds.places[answer.place]}",
        patch=birds.birds[answer.patch.label],
        pooled="neither" if answer.pooled is None else birds.birds[answer.pooled],
        photo=sample.image,
        map=tint(sample.image, codes),
    )
