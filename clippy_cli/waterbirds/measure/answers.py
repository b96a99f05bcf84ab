"""What a model makes of each image of Waterbirds (Sagawa et al. 2020), by its pooled embedding and by its patches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.images import dense_size
from clippy_cli.data.labels import Label, parse_labels
from clippy_cli.data.prompts import patch_prompt_embeddings, prompt_embeddings, resolve_templates
from clippy_cli.data.text_cache import TextCache
from clippy_cli.errors import ClippyError
from clippy_cli.inference.classify import image_scores
from clippy_cli.inference.features import Failed, dense_embeddings, encode_images
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.notices import Notice
from clippy_cli.waterbirds.dataset import PlacedBird, WaterbirdsSet
from clippy_cli.waterbirds.measure.vote import PatchVote, patch_votes

BACKGROUND = 2


@dataclass(frozen=True)
class BirdWords:
    """What a model is asked for: words for land birds, for water birds, and for what is no bird."""

    labels: tuple[Label, Label, Label]

    @property
    def texts(self) -> tuple[str, ...]:
        """All words, in order of their classes."""
        return tuple(word for label in self.labels for word in label.synonyms)

    @property
    def classes(self) -> tuple[int, ...]:
        """The class of each word: 0 land bird, 1 water bird, 2 background."""
        return tuple(index for index, label in enumerate(self.labels) for _ in label.synonyms)


@dataclass(frozen=True)
class BirdAnswer:
    """What a model made of one image.

    Attributes:
        index, key: of the image.
        bird, place: as annotated.
        pooled: class that scores higher for the whole image; None where they are equal.
        patch: the vote of the patches.
    """

    index: int
    key: str
    bird: int
    place: int
    pooled: int | None
    patch: PatchVote

    @property
    def group(self) -> int:
        """2 bird + place."""
        return 2 * self.bird + self.place


@dataclass(frozen=True)
class BirdAnswers:
    """All answers of one model at one resolution, what could not be read, and what was assumed of each image."""

    answers: tuple[BirdAnswer, ...]
    failed: tuple[str, ...]
    notices: Mapping[str, tuple[Notice, ...]] = field(default_factory=dict)

    def hits(self, readout: str) -> NDArray[np.bool_]:
        """(N,) whether each answer is right, by ``pooled`` or ``patch``; an undecided one is wrong."""
        given = [answer.pooled if readout == "pooled" else answer.patch.label for answer in self.answers]
        return np.array([guess == answer.bird for guess, answer in zip(given, self.answers, strict=True)], dtype=bool)

    @property
    def groups(self) -> NDArray[np.int64]:
        """(N,) group of each image."""
        return np.array([answer.group for answer in self.answers], dtype=np.int64)


def default_words(birds: tuple[str, str]) -> BirdWords:
    """The names of the two classes, whatever they hold, and "background"."""
    land, water, other = (Label(name, (name,)) for name in (*birds, "background"))
    return BirdWords((land, water, other))


def parse_words(text: str) -> BirdWords:
    """Read ``"land bird|forest bird, water bird, background"``; ClippyError unless there are three labels."""
    labels = parse_labels(text)
    if len(labels) != 3:
        raise ClippyError(
            f"--words takes three labels, {len(labels)} were given",
            "Write the two objects and the background in this order, as in 'land bird,water bird,background'.",
        )
    return BirdWords((labels[0], labels[1], labels[2]))


def answer_birds(
    model: VisionLanguageModel,
    birds: WaterbirdsSet,
    words: BirdWords,
    *,
    resolution: int,
    templates: str,
    limit: int | None = None,
    batch_size: int = 16,
    workers: int = 2,
    on_image: Callable[[], object] = lambda: None,
    cache: TextCache | None = None,
) -> BirdAnswers:
    """Classify every image twice: by its pooled embedding, and by the votes of its patches.

    Images are taken whole at short side ``resolution`` in pixels. ``pooled`` compares the two birds only; ``patch`` has
    the background as a third choice, see :func:`~clippy_cli.waterbirds.measure.vote.patch_votes`.
    """
    prompts = resolve_templates(templates)
    texts = prompt_embeddings(model, words.texts, prompts, cache=cache).float()  # (K,D)
    patch_texts = patch_prompt_embeddings(model, words.texts, prompts, cache=cache).float()  # (K,D)
    classes = torch.tensor(words.classes)
    total = len(birds) if limit is None else min(limit, len(birds))
    answers, failed, noted = [], [], dict[str, tuple[Notice, ...]]()
    results = encode_images(
        range(total),
        birds.read,
        partial(_encode, model, texts, patch_texts),
        patch_size=model.preprocess.patch_size,
        resolution=resolution,
        batch_size=batch_size,
        workers=workers,
    )
    for index, result in enumerate(results):
        if isinstance(result, Failed):
            failed.append(result.error.message)
        else:
            noted[result.sample.key] = result.sample.notices
            height, width = result.sample.image.shape[:2]
            size = dense_size(height, width, resolution, model.preprocess.patch_size)
            grid = [side // model.preprocess.patch_size for side in size]
            answers.append(_answer(index, result.sample, result.output, classes, grid))
        on_image()
    return BirdAnswers(tuple(answers), tuple(failed), noted)


def _encode(
    model: VisionLanguageModel, texts: Tensor, patch_texts: Tensor, images: Sequence[NDArray[np.uint8]]
) -> Tensor:
    """B images -> (B,K,1+h*w) on the CPU: the image's score of each text, then those of its patches."""
    patches = torch.einsum("bhwd,kd->bkhw", dense_embeddings(model, images), patch_texts).flatten(2).cpu()
    return torch.cat([image_scores(model, texts, images)[..., None], patches], dim=2)


def _answer(index: int, sample: PlacedBird, scores: Tensor, classes: Tensor, grid: Sequence[int]) -> BirdAnswer:
    """(K,1+h*w) scores -> both readouts."""
    land, water = (float(scores[classes == bird, 0].max()) for bird in (0, 1))
    pooled = None if land == water else int(water > land)
    similarity = scores[:, 1:].reshape(len(scores), *grid)  # (K,h*w) -> (K,h,w)
    vote = patch_votes(similarity, classes.tolist(), BACKGROUND)
    return BirdAnswer(index, sample.key, sample.bird, sample.place, pooled, vote)
