"""A loaded model that can be asked about photos, and a photo that it has encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, Unpack

import numpy as np
from numpy.typing import NDArray

from clippy_cli.data.prompts import OnTexts, unheard
from clippy_cli.inference.choices import DEFAULT_BATCH, DEFAULT_GROUPS, GroupMethod
from clippy_cli.inference.features import DecodedPhoto, Failed, read_photo
from clippy_cli.inference.requests import (
    DEFAULT_TOP_K,
    ClassifyRequest,
    GroupRequest,
    Look,
    RuleOptions,
    SegmentOptions,
    SegmentRequest,
    ViewOptions,
    Words,
)
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.reporting.answers import (
    Answer,
    ClassifyAnswer,
    Failure,
    GroupAnswer,
    SegmentAnswer,
    answer_all,
    encode_photos,
)
from clippy_cli.reporting.embeddings import EmbedsPhotos
from clippy_cli.reporting.model_choice import ModelChoice
from clippy_cli.reporting.results import Classification, Groups, Segmentation

R = TypeVar("R")


class Clip(EmbedsPhotos):
    """A loaded model. Its methods never change it; it may serve any number of photos.

    ``photo`` is everywhere a path, a Pillow image, an (H,W,3) uint8 array or a (3,H,W) tensor; ``labels`` is a sequence
    such as ``["dog|puppy", "grass"]``, in which ``|`` joins synonyms, or one text with commas between labels.
    """

    def __init__(self, choice: ModelChoice) -> None:
        self._choice = choice

    @property
    def name(self) -> str:
        """What tables and reports call the model."""
        return self._choice.model.name

    @property
    def source(self) -> str:
        """How the model was asked for."""
        return self._choice.source

    @property
    def model(self) -> VisionLanguageModel:
        """The model itself, for work with torch tensors."""
        return self._choice.model

    @property
    def reads_texts(self) -> bool:
        """Whether it can segment and classify; every model can group."""
        return self.model.reads_texts

    def __repr__(self) -> str:
        return f"<Clip {self.name} on {self.model.device}>"

    def image(self, photo: object, **options: Unpack[ViewOptions]) -> Photo:
        """Encode a photo once, to ask about it often.

        Args:
            photo: path, Pillow image, array or tensor.
            options: how it is looked at, see :class:`~clippy_cli.inference.requests.ViewOptions`.

        Raises:
            ClippyError: a photo or options that cannot be used.

        >>> import clippy_cli as clippy
        >>> clip = clippy.load()
        >>> photo = clip.image(clippy.sample_photo())
        >>> photo.patches.shape  # 224x304 pixels in patches of 16
        (14, 19, 384)
        >>> photo.group(4).labels
        ('group 1', 'group 2', 'group 3', 'group 4')
        """
        look = Look.read(options)
        return Photo(self, look, self._encode(GroupAnswer(self._choice, GroupRequest(look=look)), photo))

    def segment(
        self, photo: object, labels: Words, *, regions: object = None, **options: Unpack[SegmentOptions]
    ) -> Segmentation:
        """Give every pixel of a photo one of your labels.

        Args:
            photo: path, Pillow image, array or tensor.
            labels: what to look for.
            regions: (H,W) whole numbers from 1, 0 for none, or a folder of such files: each region then takes the label
                of most of its pixels, in the result's ``by_region``.
            options: ``background``, ``threshold``, ``min_area``, ``templates``, ``refine`` (see
                :class:`~clippy_cli.inference.requests.RuleOptions`), and those of :meth:`image`.

        Raises:
            ClippyError: a photo, labels or options that cannot be used.

        >>> import clippy_cli as clippy
        >>> clip = clippy.load()
        >>> labels = ["raccoon|racoon", "grass"]
        >>> seg = clip.segment(clippy.sample_photo(), labels, background=["sky"], refine="guided")
        >>> bool(seg["raccoon"].any()), bool((seg.mask <= 2).all())
        (True, True)
        >>> [category["name"] for category in seg.to_coco()["categories"]]
        ['raccoon', 'grass']
        """
        answer = SegmentAnswer(self._choice, SegmentRequest.read(labels, options))
        return answer.result(*self._encode(answer, photo, regions))

    def group(
        self,
        photo: object,
        groups: int = DEFAULT_GROUPS,
        *,
        method: str = GroupMethod.PCA,
        **options: Unpack[ViewOptions],
    ) -> Groups:
        """Divide a photo into groups of similar patches, without words (arXiv 2210.09996, section 3.5).

        Args:
            photo: path, Pillow image, array or tensor.
            groups: how many, at most; empty ones are left out.
            method: pca (the paper's), kmeans or spectral.
            options: those of :meth:`image`.

        Raises:
            ClippyError: a photo or options that cannot be used; more groups than patches.

        >>> import clippy_cli as clippy
        >>> clip = clippy.load()
        >>> clip.group(clippy.sample_photo(), 3).labels
        ('group 1', 'group 2', 'group 3')
        """
        answer = GroupAnswer(self._choice, GroupRequest.read(groups, method, options))
        return answer.result(*self._encode(answer, photo))

    def classify(
        self,
        photo: object,
        labels: Words,
        *,
        top_k: int = DEFAULT_TOP_K,
        templates: str | None = None,
        resolution: int | None = None,
    ) -> Classification:
        """Rank labels for a whole photo.

        Args:
            photo: path, Pillow image, array or tensor.
            labels: what to choose from.
            top_k: how many to return.
            templates: name of a prompt set, or one template with ``{}``; None for the model's own.
            resolution: short side in pixels; None for the model's training resolution.

        Raises:
            ClippyError: a photo, labels or options that cannot be used.

        >>> import clippy_cli as clippy
        >>> clip = clippy.load()
        >>> clip.classify(clippy.sample_photo(), ["raccoon", "car"]).best
        'raccoon'
        """
        answer = ClassifyAnswer(self._choice, ClassifyRequest.read(labels, top_k, templates, resolution))
        return answer.result(*self._encode(answer, photo))

    def segment_many(
        self,
        photos: Sequence[object],
        labels: Words,
        *,
        regions: str | Path | None = None,
        batch_size: int = DEFAULT_BATCH,
        **options: Unpack[SegmentOptions],
    ) -> Iterator[Segmentation | Failure]:
        """As :meth:`segment` for many photos: decoded ahead in threads, those of one size encoded together.

        A photo that cannot be used gives a :class:`Failure` in its place, with its name and error. ``regions`` is a
        folder of region files named as the photos. Labels and options are checked at once, before the first result.

        >>> import clippy_cli as clippy
        >>> clip = clippy.load()
        >>> photos = [clippy.sample_photo(), "missing.jpg"]
        >>> results = clip.segment_many(photos, ["raccoon", "grass"], refine="none")
        >>> [type(result).__name__ for result in results]
        ['Segmentation', 'Failure']
        """
        answer = self.prepare(SegmentRequest.read(labels, options))
        return self.answer(answer, photos, regions=regions, batch_size=batch_size)

    def group_many(
        self,
        photos: Sequence[object],
        groups: int = DEFAULT_GROUPS,
        *,
        method: str = GroupMethod.PCA,
        batch_size: int = DEFAULT_BATCH,
        **options: Unpack[ViewOptions],
    ) -> Iterator[Groups | Failure]:
        """As :meth:`group` for many photos; see :meth:`segment_many`.

        >>> import clippy_cli as clippy
        >>> clip = clippy.load()
        >>> [groups.labels for groups in clip.group_many([clippy.sample_photo()], 2)]
        [('group 1', 'group 2')]
        """
        answer = self.prepare(GroupRequest.read(groups, method, options))
        return self.answer(answer, photos, batch_size=batch_size)

    def classify_many(
        self,
        photos: Sequence[object],
        labels: Words,
        *,
        top_k: int = DEFAULT_TOP_K,
        templates: str | None = None,
        resolution: int | None = None,
        batch_size: int = DEFAULT_BATCH,
    ) -> Iterator[Classification | Failure]:
        """As :meth:`classify` for many photos; see :meth:`segment_many`.

        >>> import clippy_cli as clippy
        >>> clip = clippy.load()
        >>> [found.best for found in clip.classify_many([clippy.sample_photo()], ["raccoon", "car"])]
        ['raccoon']
        """
        answer = self.prepare(ClassifyRequest.read(labels, top_k, templates, resolution))
        return self.answer(answer, photos, batch_size=batch_size)

    def answer(
        self,
        answer: Answer[R],
        photos: Sequence[object],
        *,
        regions: str | Path | None = None,
        batch_size: int = DEFAULT_BATCH,
    ) -> Iterator[R | Failure]:
        """One result a photo, in order, or a :class:`Failure`; ``answer`` comes from :meth:`prepare`.

        Results are made in threads, ahead of the one that is asked for: a batch and a few photos more, within 64
        million pixels.
        """
        return answer_all(
            self.model, answer, photos, lambda result, place: result, regions=regions, batch_size=batch_size
        )

    def prepare(
        self, request: SegmentRequest | GroupRequest | ClassifyRequest, on_texts: OnTexts = unheard
    ) -> Answer[Any]:
        """The part of an answer that no photo changes, such as embedded texts; ``settings`` go into its results.

        ``on_texts`` is called with the texts embedded so far and all of them, where there are many.
        """
        match request:
            case SegmentRequest():
                return SegmentAnswer(self._choice, request, on_texts)
            case GroupRequest():
                return GroupAnswer(self._choice, request)
            case ClassifyRequest():
                return ClassifyAnswer(self._choice, request, on_texts)

    def _encode(self, answer: Answer[Any], photo: object, regions: object = None) -> tuple[DecodedPhoto, Any]:
        """One photo, decoded, and what the model made of it."""
        (item,) = encode_photos(self.model, answer, [photo], batch_size=1, regions=regions)
        if isinstance(item, Failed):
            raise item.error
        return item.sample, item.output


class Photo:
    """A photo that a model has looked at; made by :meth:`Clip.image`.

    Segmenting and grouping use the same patch embeddings each time. Classifying scores the whole photo at the model's
    training resolution, which is a forward pass of its own.
    """

    def __init__(self, clip: Clip, look: Look, encoded: tuple[DecodedPhoto, Any]) -> None:
        self._clip, self._look = clip, look
        self._photo, self._patches = encoded

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(H,W,3) uint8 RGB, upright."""
        return self._photo.image

    @property
    def patches(self) -> NDArray[np.float32]:
        """(h,w,D) float32 patch embeddings; unit norm, or less where views were averaged."""
        patches: NDArray[np.float32] = self._patches.cpu().numpy()
        return patches

    def __repr__(self) -> str:
        h, w, _ = self.patches.shape
        return f"<Photo {self._photo.key}, {w}x{h} patches of {self._clip.name}>"

    def segment(self, labels: Words, *, regions: object = None, **options: Unpack[RuleOptions]) -> Segmentation:
        """As :meth:`Clip.segment`, without encoding the photo again.

        >>> import clippy_cli as clippy
        >>> clip = clippy.load()
        >>> photo = clip.image(clippy.sample_photo())
        >>> photo.segment(["raccoon", "grass"]).labels, photo.segment(["animal", "sky"]).labels
        (('raccoon', 'grass'), ('animal', 'sky'))
        """
        request = SegmentRequest.read(labels, {**options, **self._look.options()})
        photo = read_photo(self._photo, regions=regions)
        return SegmentAnswer(self._clip._choice, request).result(photo, self._patches)

    def group(self, groups: int = DEFAULT_GROUPS, *, method: str = GroupMethod.PCA) -> Groups:
        """As :meth:`Clip.group`, without encoding the photo again.

        >>> import clippy_cli as clippy
        >>> clip = clippy.load()
        >>> clip.image(clippy.sample_photo()).group(2).labels
        ('group 1', 'group 2')
        """
        request = GroupRequest.read(groups, method, self._look.options())
        return GroupAnswer(self._clip._choice, request).result(self._photo, self._patches)

    def classify(self, labels: Words, *, top_k: int = DEFAULT_TOP_K, templates: str | None = None) -> Classification:
        """As :meth:`Clip.classify`.

        >>> import clippy_cli as clippy
        >>> clip = clippy.load()
        >>> clip.image(clippy.sample_photo()).classify(["raccoon", "car"]).best
        'raccoon'
        """
        return self._clip.classify(self._photo, labels, top_k=top_k, templates=templates)
