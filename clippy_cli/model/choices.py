"""What can be chosen of a model. Flags, recipes, files and their help texts take the values from here.

Importing this loads nothing heavy. A new member needs its function: of a pooling in ``pooling.py``, of a dense mode in
``dense/block.py``, of a resampling rule in ``positions.py``.
"""

from __future__ import annotations

from enum import StrEnum


class Pooling(StrEnum):
    """How image tokens become one vector; for ``lse``, one score a text."""

    MAX = "max"
    AVG = "avg"
    CLS = "cls"
    CLS_AVG = "cls+avg"
    LSE = "lse"

    @property
    def takes_raw_tokens(self) -> bool:
        """Whether it runs over the patch tokens as they are, of any norm."""
        return self not in (Pooling.CLS, Pooling.LSE)

    @property
    def takes_prefix_among_patches(self) -> bool:
        """Whether the prefix tokens can be counted among the patches."""
        return self in (Pooling.MAX, Pooling.AVG)

    @property
    def needs_class_token(self) -> bool:
        """Whether it reads the class token."""
        return self in (Pooling.CLS, Pooling.CLS_AVG)

    @property
    def parts(self) -> int:
        """Token widths that the pooled vector is made of: 2 where two vectors are set side by side."""
        return 2 if self is Pooling.CLS_AVG else 1


class PatchForm(StrEnum):
    """What ``embed_patches`` gives: plain as in the paper, minus the mean training patch, or shared by affinity."""

    PLAIN = "plain"
    CENTERED = "centred"
    SHARED = "shared"


class PositionResampling(StrEnum):
    """How a position table is resampled to a grid that is not its own; see ``positions.py``."""

    TIMM = "timm"
    DINO = "dino"
    PLAIN = "plain"


class DenseMode(StrEnum):
    """How the last block attends where patches are wanted; ``dense/block.py`` names each paper."""

    PLAIN = "plain"
    MASKCLIP = "maskclip"
    SCLIP = "sclip"
    NACLIP = "naclip"
    CLEARCLIP = "clearclip"
    RESCLIP = "resclip"
    PROXYCLIP = "proxyclip"


AUTO = "auto"


class Precision(StrEnum):
    """What the products of an image tower are computed in."""

    FP32 = "fp32"
    BF16 = "bf16"
