"""What the page can do with one photo, without the page: values of its fields in, picture, rows and files out."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clippy_cli.api import Clip
from clippy_cli.data.images import decode_image, read_image_bytes
from clippy_cli.data.labels import Label, parse_labels
from clippy_cli.errors import ClippyError
from clippy_cli.inference.choices import NO_REFINEMENT, Refinement
from clippy_cli.inference.features import DecodedPhoto
from clippy_cli.inference.refine.refinement import parse_refinement
from clippy_cli.reporting.files import safe_name
from clippy_cli.reporting.masks import check_label_count
from clippy_cli.reporting.palette import RGB, colour
from clippy_cli.reporting.results import Divided

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

    def __init__(self, clip: Clip, folder: Path) -> None:
        self.clip = clip
        self.folder = folder
        self._results: deque[Path] = deque()
        self._busy = threading.Lock()

    @property
    def reads_texts(self) -> bool:
        """Whether the model can segment and classify; all can group."""
        return self.clip.reads_texts

    def segment(self, photo: str | None, labels: str, background: str, threshold: float, refine: str) -> Outcome:
        """Give every pixel one of the labels, as ``clippy segment`` does; a threshold of 0 leaves none out."""
        names = [label.name for label in _parse(labels)]
        check_label_count(len(names))
        words = background if background.strip() else ()
        if words:
            _parse(background)
        decoded = _read(photo)
        with self._busy:
            result = self.clip.segment(decoded, labels, background=words, threshold=threshold or None, refine=refine)
        note = None
        if result.score_kind == "cosine" and not threshold:
            note = "One label alone gets every pixel: add a second label, background words or a threshold."
        elif result.unlabelled == 1:
            note = "No pixel scores that high: lower the threshold, or name other labels."
        return self._outcome(result, ("label", "share", "score"), note)

    def group(self, photo: str | None, groups: int) -> Outcome:
        """Divide the photo into groups of similar patches, without words, as ``clippy group`` does."""
        decoded = _read(photo)
        with self._busy:
            result = self.clip.group(decoded, int(groups))
        return self._outcome(result, ("group", "share"), None)

    def classify(self, photo: str | None, labels: str, top_k: int) -> Outcome:
        """Say which labels fit the whole photo best, as ``clippy classify`` does."""
        count = len(_parse(labels))
        decoded = _read(photo)
        with self._busy:
            result = self.clip.classify(decoded, labels, top_k=max(1, int(top_k)))
        return Outcome(
            title=f"Best of {_counted(count, 'label')}",
            columns=("label", "probability", "score"),
            rows=tuple(Row(guess.label, None, guess.probability, guess.score) for guess in result.guesses),
            note="Probabilities compare the labels given: they say which fits best, not whether any does.",
        )

    def _outcome(self, result: Divided, columns: tuple[str, ...], note: str | None) -> Outcome:
        stem = safe_name(Path(result.source).stem, set())
        files = result.save(self._result_folder(), ("overlay", "mask"), stem=stem)
        rows = [
            Row(name, colour(code), float(share), float(score) if result.scored else None)
            for code, (name, share, score) in enumerate(
                zip(result.labels, result.shares, result.scores, strict=True), start=1
            )
        ]
        present = sorted((row for row in rows if row.fraction > 0), key=lambda row: -row.fraction)
        absent = [Row(row.name, None, 0.0) for row in rows if row.fraction == 0]
        unlabelled = [Row("unlabelled", None, result.unlabelled)] if result.unlabelled > 0 else []
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
    for method in Refinement:
        with suppress(ClippyError):
            parse_refinement(method)
            usable.append(str(method))
    return [NO_REFINEMENT, *usable]


def _read(photo: str | None) -> DecodedPhoto:
    """Decode an upload; errors name the file, not the folder of uploads."""
    if not photo:
        raise ClippyError("No photo is chosen", "Drop one on the page, or click the example below the photo.")
    path = Path(photo)
    return DecodedPhoto(path.name, decode_image(read_image_bytes(path), where=path.name))


def _parse(text: str) -> tuple[Label, ...]:
    if len(text) > MAX_CHARACTERS:
        raise ClippyError(f"{len(text)} characters of labels are too many", f"Write at most {MAX_CHARACTERS}.")
    try:
        return parse_labels(text)
    except ClippyError as error:
        raise ClippyError(error.message, _LABELS_HINT) from error


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
