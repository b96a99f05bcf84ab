"""What the page can do with one photo, without the page: values of its fields in, picture, rows and files out."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.images import decode_image, read_image_bytes
from clippy_cli.data.labels import Label, Vocabulary, parse_labels
from clippy_cli.data.prompts import prompt_embeddings, resolve_templates
from clippy_cli.errors import ClippyError
from clippy_cli.inference.classify import rank_labels
from clippy_cli.inference.features import Encoded, Failed, ImageFile, encode_images, image_scores, patch_embeddings
from clippy_cli.inference.group import group_patches
from clippy_cli.inference.label_map import LabelMap
from clippy_cli.inference.refine.refinement import METHODS, parse_refinement
from clippy_cli.inference.segment import score_kind, segment_patches
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.reporting.files import safe_name
from clippy_cli.reporting.masks import check_label_count
from clippy_cli.reporting.palette import RGB, colour
from clippy_cli.reporting.products import save_label_map

MAX_CHARACTERS = 2000  # of labels or background words
_KEPT = 20  # results whose files stay until the page ends
_LABELS_HINT = "Write labels like this: dog|puppy, grass. Commas separate labels, | joins words for the same thing."


@dataclass(frozen=True)
class Row:
    """One line of the table: its colour in the picture (None: not shown there), ``fraction`` in [0, 1], ``score``."""

    name: str
    colour: RGB | None
    fraction: float
    score: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one photo.

    Attributes:
        title: one line that says what was done.
        columns: headings of name, fraction and, where rows have one, score.
        rows: largest fraction first.
        note: what the user should know about it.
        overlay, mask: PNG files; None for a classification.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str | None = None
    overlay: Path | None = None
    mask: Path | None = None


class Workbench:
    """One model, and a folder that holds the files of the last results.

    Its methods take the values of the page's fields and raise ClippyError for what a user can mend. One at a time runs,
    whoever calls.
    """

    def __init__(self, model: VisionLanguageModel, folder: Path) -> None:
        self.model = model
        self.folder = folder
        self._results: deque[Path] = deque()
        self._busy = threading.Lock()

    @property
    def reads_texts(self) -> bool:
        """Whether the model can segment and classify; all can group."""
        return self.model.reads_texts

    def segment(self, photo: str | None, labels: str, background: str, threshold: float, refine: str) -> Outcome:
        """Give every pixel one of the labels, as ``clippy segment`` does; a threshold of 0 leaves none out."""
        method = parse_refinement(refine)
        vocabulary = Vocabulary(_parse(labels), _parse(background) if background.strip() else ())
        names = [label.name for label in vocabulary.labels]
        check_label_count(len(names))
        texts = self._embed(vocabulary)
        encoded = self._encode(photo, partial(patch_embeddings, self.model), self.model.defaults.resolution)
        image = encoded.sample.image
        label_map = segment_patches(
            encoded.output,
            texts,
            vocabulary,
            *image.shape[:2],
            logit_scale=self.model.defaults.logit_scale,
            threshold=threshold or None,
            refinement=None if method is None else (method, image),
        ).label_map
        kind = score_kind(vocabulary)
        note = None
        if kind == "cosine" and not threshold:
            note = "One label alone gets every pixel: add a second label, background words or a threshold."
        elif label_map.shares[0] == 1:
            note = "No pixel scores that high: lower the threshold, or name other labels."
        return self._divided(encoded.sample, label_map, names, ("label", "share", "score"), note)

    def group(self, photo: str | None, groups: int) -> Outcome:
        """Cut the photo into groups of alike patches, without words, as ``clippy group`` does."""
        encoded = self._encode(photo, partial(patch_embeddings, self.model), self.model.defaults.resolution)
        height, width = encoded.sample.image.shape[:2]
        label_map = group_patches(encoded.output, height, width, groups=int(groups))
        names = [f"group {code}" for code in range(1, len(label_map.pixels))]
        return self._divided(encoded.sample, label_map, names, ("group", "share"), None)

    def classify(self, photo: str | None, labels: str, top_k: int) -> Outcome:
        """Say which labels fit the whole photo best, as ``clippy classify`` does."""
        vocabulary = Vocabulary(_parse(labels))
        texts = self._embed(vocabulary)
        encoded = self._encode(photo, partial(image_scores, self.model, texts), self.model.preprocess.resolution)
        scale = self.model.defaults.logit_scale
        guesses = rank_labels(encoded.output, vocabulary, logit_scale=scale, top_k=max(1, int(top_k)))
        return Outcome(
            title=f"Best of {_counted(len(vocabulary.labels), 'label')}",
            columns=("label", "probability", "score"),
            rows=tuple(Row(guess.label, None, guess.probability, guess.score) for guess in guesses),
            note="Probabilities compare the labels given: they say which fits best, not whether any does.",
        )

    def _embed(self, vocabulary: Vocabulary) -> Tensor:
        """-> (K,D) embeddings of the vocabulary's texts, in the model's own prompts."""
        prompts = resolve_templates(self.model.defaults.templates)
        with self._busy:
            return prompt_embeddings(self.model, vocabulary.texts, prompts)

    def _encode(
        self, photo: str | None, encode: Callable[[Sequence[NDArray[np.uint8]]], Tensor], resolution: int
    ) -> Encoded[ImageFile]:
        if not photo:
            raise ClippyError("No photo is chosen", "Drop one on the page, or click the example below the photo.")
        with self._busy:
            (result,) = encode_images(
                [Path(photo)],
                _read,
                encode,
                patch_size=self.model.preprocess.patch_size,
                resolution=resolution,
                batch_size=1,
                workers=1,
            )
        if isinstance(result, Failed):
            raise result.error
        return result

    def _divided(
        self, photo: ImageFile, label_map: LabelMap, names: Sequence[str], columns: tuple[str, ...], note: str | None
    ) -> Outcome:
        base = self._result_folder() / safe_name(photo.path.stem, set())
        files = save_label_map(base, ("overlay", "mask"), photo.image, label_map, names)
        scored = len(columns) > 2
        rows = [
            Row(name, colour(code), float(share), float(score) if scored else None)
            for code, (name, share, score) in enumerate(
                zip(names, label_map.shares[1:], label_map.scores[1:], strict=True), start=1
            )
        ]
        present = sorted((row for row in rows if row.fraction > 0), key=lambda row: -row.fraction)
        absent = [Row(row.name, None, 0.0) for row in rows if row.fraction == 0]
        unlabelled = [Row("unlabelled", None, float(label_map.shares[0]))] if label_map.shares[0] > 0 else []
        return Outcome(
            title=f"{_counted(len(present), columns[0])} found",
            columns=columns,
            rows=(*present, *unlabelled, *absent),
            note=note,
            overlay=Path(str(files["overlay"])),
            mask=Path(str(files["mask"])),
        )

    def _result_folder(self) -> Path:
        """A new folder of a name that cannot be guessed; the oldest goes where there are too many."""
        folder = Path(tempfile.mkdtemp(prefix="result-", dir=self.folder))
        self._results.append(folder)
        if len(self._results) > _KEPT:
            shutil.rmtree(self._results.popleft(), ignore_errors=True)
        return folder


def refinements() -> list[str]:
    """``none``, and the refinements whose packages are installed."""
    usable = []
    for method in METHODS:
        with suppress(ClippyError):
            parse_refinement(method)
            usable.append(method)
    return ["none", *usable]


def _read(path: Path) -> ImageFile:
    """As of :func:`~clippy_cli.inference.features.read_file`, but errors name the file, not the upload folder."""
    return ImageFile(path, decode_image(read_image_bytes(path), where=path.name))


def _parse(text: str) -> tuple[Label, ...]:
    if len(text) > MAX_CHARACTERS:
        raise ClippyError(f"{len(text)} characters of labels are too many", f"Write at most {MAX_CHARACTERS}.")
    try:
        return parse_labels(text)
    except ClippyError as error:
        raise ClippyError(error.message, _LABELS_HINT) from error


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
