"""From a checked request and a model to results: the one engine behind Python, the commands and the demo.

An answer prepares what does not depend on a photo (the text side, the views), then encodes photos in batches and turns
each into its result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.labels import Vocabulary
from clippy_cli.data.prompts import (
    OnTexts,
    fill,
    patch_prompt_embeddings,
    prompt_embeddings,
    resolve_templates,
    unheard,
)
from clippy_cli.errors import ClippyError
from clippy_cli.inference.choices import DEFAULT_BATCH
from clippy_cli.inference.classify import image_scores, rank_labels
from clippy_cli.inference.features import (
    DecodedPhoto,
    Encoded,
    Failed,
    encode_images,
    photo_name,
    read_photo,
)
from clippy_cli.inference.group import Components, group_patches
from clippy_cli.inference.label_map import LabelMap
from clippy_cli.inference.requests import ClassifyRequest, GroupRequest, Look, SegmentRequest
from clippy_cli.inference.segment import Entries, Rule, Segmenter
from clippy_cli.inference.views import Views, view_embeddings
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.reporting.debug import Explanation, describe_views
from clippy_cli.reporting.finishing import finish_beside, finishing_threads
from clippy_cli.reporting.model_choice import ModelChoice, arithmetic
from clippy_cli.reporting.results import Classification, Groups, Segmentation
from clippy_cli.stages import LABEL_MAP, TEXTS, stage

R = TypeVar("R", covariant=True)
T = TypeVar("T")
_MANY = 2  # photos from which what follows the encoder runs beside it


class Answer(Protocol[R]):
    """What one request makes of photos."""

    settings: dict[str, Any]
    short_side: int

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """B images (H,W,3) of one size -> (B,...), a row for each."""
        ...

    def result(self, photo: DecodedPhoto, output: Tensor) -> R:
        """One photo and its row -> its result."""
        ...


class _Looked:
    """The encoding side of a request that works on patches."""

    def __init__(self, choice: ModelChoice, look: Look) -> None:
        self.choice, self.model = choice, choice.model
        self.resolution, self.views = look.fit(choice.model)
        self.short_side = self.views.short_side(self.resolution)

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """B images of one size -> (B,h,w,D) patch embeddings averaged over the views, on the host or a CUDA device."""
        patches = view_embeddings(self.model, images, self.views)
        return patches if patches.is_cuda else patches.cpu()


class SegmentAnswer(_Looked):
    """Photos -> :class:`Segmentation`."""

    def __init__(self, choice: ModelChoice, request: SegmentRequest, on_texts: OnTexts = unheard) -> None:
        super().__init__(choice, request.look)
        model, self.vocabulary = choice.model, request.vocabulary
        self.templates = request.templates or resolve_templates(model.defaults.templates)
        entries = Entries.of_vocabulary(self.vocabulary)
        rule = Rule(model.defaults.logit_scale, request.threshold, request.min_area, refine=request.refine)
        with stage(TEXTS):
            texts = patch_prompt_embeddings(model, entries.texts, self.templates, cache=choice.cache, on_texts=on_texts)
        self.segmenter = Segmenter(texts, entries, rule)
        self.settings = {
            **choice.settings("segment"),
            "labels": _synonyms(self.vocabulary),
            "background": [label.name for label in self.vocabulary.background],
            "templates": list(self.templates),
            "resolution": self.resolution,
            "scales": list(self.views.scales),
            "flip": self.views.flip,
            "window": self.views.window,
            "stride": self.views.stride,
            "refine": request.refine,
            "threshold": request.threshold,
            **({} if request.min_area is None else {"min_area": request.min_area}),
            "score_kind": self.segmenter.score_kind,
        }

    def result(self, photo: DecodedPhoto, output: Tensor) -> Segmentation:
        """One photo and its (h,w,D) patches -> its segmentation.

        Everything up to the codes stays on the patches' device. From an accelerator come codes and scores of pixels,
        and the patches and cosines that the result holds; the photo goes there where its masks are refined.
        """
        segmenter, (height, width) = self.segmenter, photo.image.shape[:2]
        cosines = segmenter.text_scores(output)  # (K,h,w)
        scores = segmenter.entries.merge(cosines)  # (E,h,w)
        with stage(LABEL_MAP):
            label_map = segmenter.label_map(scores, photo.image, height, width)
        voted = None if photo.regions is None else segmenter.vote_map(scores, label_map, photo.regions)
        make = partial(self._segmentation, photo, output, cosines, scores)
        return make(label_map, None if voted is None else make(voted, None))

    def _segmentation(
        self,
        photo: DecodedPhoto,
        patches: Tensor,
        cosines: Tensor,
        scores: Tensor,
        label_map: LabelMap,
        by_region: Segmentation | None,
    ) -> Segmentation:
        everything = (*self.vocabulary.labels, *self.vocabulary.background)
        names = tuple(label.name for label in everything)
        explanation = Explanation(
            {text: tuple(fill(template, text) for template in self.templates) for text in self.segmenter.entries.texts},
            tuple(label.name for label in everything for _ in label.synonyms),
            cosines.cpu().numpy(),
            (scores * self.model.defaults.logit_scale).softmax(dim=0).cpu().numpy(),
            names,
            describe_views(self.views, patches.shape[:2], self.model.preprocess.patch_size),
            self.model.preprocess.patch_size,
        )
        return Segmentation(
            photo.key,
            photo.image,
            label_map.codes,
            tuple(label.name for label in self.vocabulary.labels),
            label_map.pixels[1:],
            label_map.scores[1:],
            self.settings,
            names,
            scores.cpu().numpy(),
            patches.cpu().numpy(),
            explanation,
            by_region,
            notices=photo.notices,
        )


class GroupAnswer(_Looked):
    """Photos -> :class:`Groups`."""

    def __init__(self, choice: ModelChoice, request: GroupRequest) -> None:
        super().__init__(choice, request.look)
        self._request = request
        self.settings = {
            **choice.settings("group"),
            "groups": request.groups,
            "method": request.method,
            "resolution": self.resolution,
            **_unusual_views(self.views),
        }

    def result(self, photo: DecodedPhoto, output: Tensor) -> Groups:
        """One photo and its (h,w,D) patches -> its groups."""
        (height, width), request = photo.image.shape[:2], self._request
        components = Components(output.flatten(0, 1))
        with stage(LABEL_MAP):
            label_map = group_patches(
                output, height, width, groups=request.groups, method=request.method, components=components
            )
        names = tuple(f"group {code}" for code in range(1, len(label_map.pixels)))
        pixels, scores = label_map.pixels[1:], label_map.scores[1:]
        return Groups(
            photo.key,
            photo.image,
            label_map.codes,
            names,
            pixels,
            scores,
            self.settings,
            output.cpu().numpy(),
            components,
            notices=photo.notices,
        )


class ClassifyAnswer:
    """Photos -> :class:`Classification`."""

    def __init__(self, choice: ModelChoice, request: ClassifyRequest, on_texts: OnTexts = unheard) -> None:
        model = self.model = choice.model
        self._request = request
        templates = request.templates or resolve_templates(model.defaults.templates)
        with stage(TEXTS):
            self._texts = prompt_embeddings(
                model, request.vocabulary.texts, templates, cache=choice.cache, on_texts=on_texts
            )
        self.short_side = request.resolution or model.preprocess.resolution
        self.settings = {
            "command": "classify",
            "model": choice.source,
            "labels": _synonyms(request.vocabulary),
            "templates": list(templates),
            "resolution": self.short_side,
            **arithmetic(model),
        }

    def encode(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """B images of one size -> (B,K) scores of the texts."""
        return image_scores(self.model, self._texts, images)

    def result(self, photo: DecodedPhoto, output: Tensor) -> Classification:
        """One photo and its (K,) scores -> its best labels."""
        vocabulary, top_k = self._request.vocabulary, self._request.top_k
        scale = self.model.defaults.logit_scale
        guesses = rank_labels(output, vocabulary, logit_scale=scale, top_k=top_k)
        return Classification(photo.key, photo.image, tuple(guesses), self.settings, notices=photo.notices)


@dataclass(frozen=True)
class Failure:
    """A photo that could not be used; the others of its run are not affected.

    Attributes:
        source: its path or name.
        error: why, and what to do next.

    >>> import clippy_cli as clippy
    >>> [failure] = clippy.load().group_many(["missing.jpg"])
    >>> failure.source, failure.error.message
    ('missing.jpg', 'missing.jpg: no such file')
    """

    source: str
    error: ClippyError


def encode_photos(
    model: VisionLanguageModel,
    answer: Answer[Any],
    photos: Sequence[object],
    *,
    batch_size: int = DEFAULT_BATCH,
    regions: object = None,
) -> Iterator[Encoded[DecodedPhoto] | Failed[int]]:
    """Decode ahead and encode in batches; one item a photo, in order. ``regions`` as for ``read_photo``."""
    return encode_images(
        range(len(photos)),
        lambda index: read_photo(photos[index], index + 1, regions=regions),
        answer.encode,
        patch_size=model.preprocess.patch_size,
        resolution=answer.short_side,
        batch_size=batch_size,
    )


def answer_all(
    model: VisionLanguageModel,
    answer: Answer[R],
    photos: Sequence[object],
    finish: Callable[[R, int], T],
    *,
    batch_size: int = DEFAULT_BATCH,
    regions: object = None,
) -> Iterator[T | Failure]:
    """What ``finish`` makes of each result and its place, in order; of a photo that cannot be used a :class:`Failure`.

    Results of several photos are made and finished in threads, while the encoder takes the next. An error of ``finish``
    is raised in its photo's place; photos behind it may be finished by then.
    """

    def finished(item: Encoded[DecodedPhoto] | Failed[int], place: int) -> T | Failure:
        if isinstance(item, Failed):
            return Failure(photo_name(photos[item.key], item.key + 1), item.error)
        return finish(answer.result(item.sample, item.output), place)

    alone = len(photos) < _MANY
    workers = finishing_threads(model.device)
    items = encode_photos(model, answer, photos, batch_size=batch_size, regions=regions)
    numbered = ((item, place) for place, item in enumerate(items))
    if alone:
        for pair in numbered:
            yield finished(*pair)
    else:
        yield from finish_beside(
            numbered, lambda pair: finished(*pair), _pixels, workers=workers, waiting=batch_size + workers
        )


def _pixels(pair: tuple[Encoded[DecodedPhoto] | Failed[int], int]) -> int:
    return pair[0].sample.image.size // 3 if isinstance(pair[0], Encoded) else 0


def _synonyms(vocabulary: Vocabulary) -> dict[str, list[str]]:
    return {label.name: list(label.synonyms) for label in vocabulary.labels}


def _unusual_views(views: Views) -> dict[str, Any]:
    """What differs from one look at the whole photo."""
    return {name: value for name, value in vars(views).items() if value != getattr(Views(), name)}
