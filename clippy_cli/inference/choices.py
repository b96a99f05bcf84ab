"""The choices of inference, spelled once for Python, flags and YAML; nothing heavy is imported for them."""

from __future__ import annotations

from enum import StrEnum


class Refinement(StrEnum):
    """How masks are drawn along the photo's edges, see ``refine/``."""

    GUIDED = "guided"
    PAMR = "pamr"
    CRF = "crf"


class GroupMethod(StrEnum):
    """How patches are grouped without words, see :func:`~clippy_cli.inference.group.group_patches`."""

    PCA = "pca"
    KMEANS = "kmeans"
    SPECTRAL = "spectral"


class Competition(StrEnum):
    """What competes for a pixel.

    entries: the synonyms of a label (or class) are merged by their maximum on the patch grid, and the softmax is taken
    over labels and single background words. texts: each text competes by itself after upsampling, and the softmax is
    taken over all of them, as SCLIP's public code does.
    """

    ENTRIES = "entries"
    TEXTS = "texts"


class WindowAverage(StrEnum):
    """Where overlapping windows are averaged.

    patches: embeddings on the patch grid. pixels: scores after each window is upsampled, as SCLIP's public code does.
    """

    PATCHES = "patches"
    PIXELS = "pixels"


class Sizes(StrEnum):
    """Sides of a resized image: the multiples of the patch next to its aspect's, or exactly those of its aspect."""

    PATCH = "patch"
    EXACT = "exact"


class Filter(StrEnum):
    """How images are resized: bicubic and antialiased (Pillow), or bilinear without antialiasing (OpenCV)."""

    BICUBIC = "bicubic"
    BILINEAR = "bilinear"


NO_REFINEMENT = "none"
DEFAULT_REFINEMENT = Refinement.GUIDED
DEFAULT_GROUPS = 8  # the paper's n
DEFAULT_BATCH = 8  # most photos of one size in a forward pass
