"""What a photo becomes: frozen results in NumPy, which draw, save and show themselves."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clippy_cli.errors import ClippyError
from clippy_cli.inference.classify import Guess
from clippy_cli.inference.group import Components, pca_picture
from clippy_cli.inference.label_map import UNLABELLED, LabelMap
from clippy_cli.notices import Notice
from clippy_cli.own_files import own_files, replacing_own
from clippy_cli.reporting.debug import Explanation
from clippy_cli.reporting.files import (
    COMMON_KINDS,
    ENDINGS,
    GROUP_DEFAULT,
    GROUP_KINDS,
    GROUP_SUFFIX,
    SEGMENT_DEFAULT,
    SEGMENT_KINDS,
    WITH_REGIONS,
)
from clippy_cli.reporting.masks import coco_document, cut_out, region_records
from clippy_cli.reporting.notebook import encoded, figure, swatch
from clippy_cli.reporting.overlay import draw_overlay, shown_size
from clippy_cli.reporting.palette import colour
from clippy_cli.reporting.products import beside, legend_items, save_json
from clippy_cli.reporting.writers import WRITERS
from clippy_cli.stages import JSON, stage

Record = dict[str, Any]
Files = dict[str, Any]


@dataclass(frozen=True, repr=False)
class Divided:
    """A photo of which every pixel has a code; what :class:`Segmentation` and :class:`Groups` share.

    Attributes:
        source: path or name of the photo.
        image: (H,W,3) uint8 RGB, upright.
        mask: (H,W) int16; 0 is unlabelled, code i + 1 is ``labels[i]``.
        labels: L names.
        pixels: (L,) int64, pixels of each label.
        scores: (L,) float64, mean score of each label's pixels; nan where it has none.
        settings: everything that the result depends on, ready for JSON.
        notices: what was assumed when the photo was read, such as the range of its values.
    """

    kinds: ClassVar[tuple[str, ...]] = COMMON_KINDS
    default_kinds: ClassVar[tuple[str, ...]] = SEGMENT_DEFAULT
    suffix: ClassVar[str] = ""
    scored: ClassVar[bool] = True

    source: str
    image: NDArray[np.uint8] = field(repr=False)
    mask: NDArray[np.int16] = field(repr=False)
    labels: tuple[str, ...]
    pixels: NDArray[np.int64] = field(repr=False)
    scores: NDArray[np.float64]
    settings: Mapping[str, Any] = field(repr=False)
    notices: tuple[Notice, ...] = field(default=(), kw_only=True, repr=False)

    @property
    def shares(self) -> NDArray[np.float64]:
        """(L,) fraction of the photo's pixels in [0, 1] that each label has."""
        return self.pixels / self.mask.size

    @property
    def unlabelled(self) -> float:
        """Fraction of the photo's pixels in [0, 1] without a label."""
        return float(self.label_map.shares[UNLABELLED])

    @property
    def label_map(self) -> LabelMap:
        """Codes, counts and scores, those of unlabelled pixels first."""
        unlabelled = self.mask.size - int(self.pixels.sum())
        return LabelMap(self.mask, np.array([unlabelled, *self.pixels]), np.array([np.nan, *self.scores]))

    def __repr__(self) -> str:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in zip(self.labels, self.shares, strict=True))
        height, width = self.mask.shape
        return f"<{type(self).__name__} of {self.source}, {width}x{height}: {shares}>"

    def __getitem__(self, label: str) -> NDArray[np.bool_]:
        """(H,W) bool: the pixels of a label; ClippyError where there is no such label."""
        inside: NDArray[np.bool_] = self.mask == self._code(label)
        return inside

    def overlay(self) -> Image.Image:
        """The photo tinted by label, its legend below; the longer side within 640 to 2048 pixels."""
        return draw_overlay(self.image, self.mask, legend_items(self.label_map, self.labels))

    def cutout(self, label: str) -> Image.Image:
        """RGBA of the photo's size, transparent wherever the label is not; ClippyError where there is no such label."""
        return cut_out(self.image, self[label])

    def record(self) -> Record:
        """Size, and share, mean score, box and COCO RLE of each label, ready for JSON."""
        return deepcopy(self._record)

    @cached_property
    def _record(self) -> Record:
        height, width = self.mask.shape
        return {
            "width": width,
            "height": height,
            "unlabelled": round(self.unlabelled, 6),
            "regions": region_records(self.label_map, self.labels, scored=self.scored),
        }

    def to_coco(self) -> Record:
        """A COCO data set of this photo: ``images``, ``categories``, and an RLE annotation for each label it has."""
        return coco_document(self.source, self.record(), self.pixels.tolist())

    def save(
        self,
        folder: str | Path,
        kinds: Collection[str] | None = None,
        *,
        stem: str | None = None,
        overwrite: bool = False,
        new: bool = False,
    ) -> Files:
        """Write the ``kinds`` of files into ``folder``, made if missing, and return their paths by kind.

        Args:
            folder: where to; ``photo.jpg`` gives ``photo_overlay.png``, ``photo_mask.png``, ``photo.json`` and so on.
            kinds: of the class's ``kinds``; by default overlay, mask and JSON.
            stem: in place of the photo's own.
            overwrite: replace files that clippy did not write, or made from another photo.
            new: replace nothing, not even an earlier result of the same photo.

        Raises:
            ClippyError: an unknown kind; a folder or disk that takes nothing; a stem that leads out of the folder; too
                many labels for a palette image; files in the way that are somebody's.
        """
        wanted = self._wanted(kinds)
        base = Path(folder) / ((stem or self._stem()) + self.suffix)
        if not own_files(Path(folder)).holds(base):
            raise ClippyError(f"The stem {stem!r} leads out of {folder}", "Give a name, and the folder by itself.")
        noted = {"notices": [notice.record() for notice in self.notices]} if self.notices else {}
        with replacing_own(Path(folder), self._made_from(), overwrite=overwrite, new=new):
            files = {kind: WRITERS[kind](self, base) for kind in self.kinds if kind in wanted and kind != "json"}
            if "json" in wanted:  # last, since it names the other files
                path = beside(base, ENDINGS["json"])
                files["json"] = str(path)
                with stage(JSON):
                    save_json(path, {**self.settings, "image": self.source, **self.record(), "files": files, **noted})
        return files

    def _wanted(self, kinds: Collection[str] | None) -> tuple[str, ...]:
        wanted = self.default_kinds if kinds is None else tuple(kinds)
        for kind in wanted:
            if kind not in self.kinds:
                raise ClippyError(f"A {type(self).__name__} cannot save {kind!r}", f"Choose {', '.join(self.kinds)}.")
        return wanted

    def _made_from(self) -> str:
        """What tells the photo from others: its path, or a digest of its pixels where it came from memory."""
        if os.path.lexists(self.source):
            return os.path.abspath(self.source)  # noqa: PTH100
        return f"a photo in memory, {hashlib.sha256(self.image.tobytes()).hexdigest()[:12]}"

    def _stem(self) -> str:
        return Path(self.source).stem or "photo"

    def _code(self, label: str) -> int:
        if label not in self.labels:
            raise ClippyError(f"There is no label {label!r}", f"The labels are {', '.join(self.labels)}.")
        return self.labels.index(label) + 1

    def _repr_png_(self) -> bytes:
        return encoded(self.overlay(), "PNG")

    def _repr_html_(self) -> str:
        order = sorted(range(len(self.labels)), key=lambda index: -int(self.pixels[index]))
        heads = ("", "name", "share", "score") if self.scored else ("", "name", "share")
        rows = []
        for index in order:
            score = "" if np.isnan(self.scores[index]) else f"{self.scores[index]:.3f}"
            cells = [swatch(colour(index + 1)), escape(self.labels[index]), f"{100 * self.shares[index]:.1f} %", score]
            rows.append(cells[: len(heads)])
        if self.unlabelled > 0:
            rows.append(["", "<i>unlabelled</i>", f"{100 * self.unlabelled:.1f} %", ""][: len(heads)])
        return figure(self.overlay(), self.source, heads, rows)


@dataclass(frozen=True, repr=False)
class Segmentation(Divided):
    """A photo whose pixels each bear one of your labels.

    Attributes:
        entries: E labels, then background words.
        similarity: (E,h,w) float32 cosine in [-1, 1] of each patch with each entry, synonyms merged by their maximum.
        patches: (h,w,D) float32 patch embeddings.
        explanation: prompts, views and the cosine of every single text, for ``save(kinds=["debug"])``.
        by_region: the same after each region from elsewhere took one label; None without regions.

    >>> import clippy_cli as clippy
    >>> seg = clippy.load().segment(clippy.sample_photo(), ["raccoon", "grass"], background=["sky"])
    >>> seg.mask.shape, seg.labels, seg.entries
    ((768, 1024), ('raccoon', 'grass'), ('raccoon', 'grass', 'sky'))
    >>> abs(float(seg.shares.sum()) + seg.unlabelled - 1) < 1e-9
    True
    >>> seg.cutout("raccoon").mode, seg.cutout("raccoon").size
    ('RGBA', (1024, 768))
    >>> sorted(seg.save("clippy_out", ["mask", "json"]))
    ['json', 'mask']
    """

    kinds: ClassVar[tuple[str, ...]] = SEGMENT_KINDS

    entries: tuple[str, ...]
    similarity: NDArray[np.float32] = field(repr=False)
    patches: NDArray[np.float32] = field(repr=False)
    explanation: Explanation = field(repr=False)
    by_region: Segmentation | None = field(default=None, repr=False)

    @property
    def score_kind(self) -> str:
        """What scores mean: ``probability`` among all entries, or the ``cosine`` of the only one."""
        return str(self.settings["score_kind"])

    def save(
        self,
        folder: str | Path,
        kinds: Collection[str] | None = None,
        *,
        stem: str | None = None,
        overwrite: bool = False,
        new: bool = False,
    ) -> Files:
        """As :meth:`Divided.save`, and with regions the overlay, mask, JSON and cut-outs of ``photo+regions`` too.

        ``scores`` is an npz of cosines (see :func:`~clippy_cli.reporting.masks.write_scores`), ``debug`` a folder that
        explains the mask. The paths of the latter files are under ``+regions``.
        """
        files = super().save(folder, kinds, stem=stem, overwrite=overwrite, new=new)
        if self.by_region is not None:
            common = [kind for kind in self._wanted(kinds) if kind in Divided.kinds]
            voted = (stem or self._stem()) + WITH_REGIONS
            files[WITH_REGIONS] = self.by_region.save(folder, common, stem=voted, overwrite=overwrite, new=new)
        return files


@dataclass(frozen=True, repr=False)
class Groups(Divided):
    """A photo divided into groups of similar patches, the largest first, without words.

    Attributes:
        patches: (h,w,D) float32 patch embeddings.
        components: their principal components; None for computing them when they are drawn.

    >>> import clippy_cli as clippy
    >>> groups = clippy.load().group(clippy.sample_photo(), 3)
    >>> groups.labels, bool((groups.shares[:-1] >= groups.shares[1:]).all())
    (('group 1', 'group 2', 'group 3'), True)
    >>> groups.pca().size
    (1024, 768)
    """

    kinds: ClassVar[tuple[str, ...]] = GROUP_KINDS
    default_kinds: ClassVar[tuple[str, ...]] = GROUP_DEFAULT
    suffix: ClassVar[str] = GROUP_SUFFIX
    scored: ClassVar[bool] = False

    patches: NDArray[np.float32] = field(repr=False)
    components: Components | None = field(default=None, repr=False)

    def pca(self) -> Image.Image:
        """The first three principal components of the patches as red, green and blue, as large as the overlay."""
        rows, columns = shown_size(*self.mask.shape)
        picture = Image.fromarray(pca_picture(self.patches, self.components))
        return picture.resize((columns, rows), Image.Resampling.BILINEAR)


@dataclass(frozen=True, repr=False)
class Classification:
    """The labels that fit a whole photo best.

    Attributes:
        source: path or name of the photo.
        image: (H,W,3) uint8 RGB, upright.
        guesses: best first: label, probability in [0, 1] among all labels, score in [-1, 1].
        settings: everything that the result depends on, ready for JSON.
        notices: what was assumed when the photo was read.

    >>> import clippy_cli as clippy
    >>> found = clippy.load().classify(clippy.sample_photo(), ["car", "raccoon"])
    >>> found.best, found.labels
    ('raccoon', ('raccoon', 'car'))
    >>> abs(float(found.probabilities.sum()) - 1) < 1e-6
    True
    """

    source: str
    image: NDArray[np.uint8] = field(repr=False)
    guesses: tuple[Guess, ...]
    settings: Mapping[str, Any] = field(repr=False)
    notices: tuple[Notice, ...] = field(default=(), kw_only=True, repr=False)

    @property
    def best(self) -> str:
        """The label that fits best."""
        return self.guesses[0].label

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, best first."""
        return tuple(guess.label for guess in self.guesses)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """(K,) probability in [0, 1] of each, among all labels that were asked about."""
        return np.array([guess.probability for guess in self.guesses])

    @property
    def scores(self) -> NDArray[np.float64]:
        """(K,) the model's score of each, in [-1, 1]."""
        return np.array([guess.score for guess in self.guesses])

    def __repr__(self) -> str:
        guesses = ", ".join(f"{guess.label} {guess.probability:.1%}" for guess in self.guesses)
        return f"<Classification of {self.source}: {guesses}>"

    def record(self) -> Record:
        """The guesses, ready for JSON."""
        return {"guesses": [dict(vars(guess)) for guess in self.guesses]}

    def _repr_png_(self) -> bytes:
        return encoded(Image.fromarray(self.image), "PNG")

    def _repr_html_(self) -> str:
        rows = [[escape(g.label), f"{100 * g.probability:.1f} %", f"{g.score:.3f}"] for g in self.guesses]
        return figure(Image.fromarray(self.image), self.source, ("label", "probability", "score"), rows)
