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
    LSE = "lse"

    @property
    def takes_raw_tokens(self) -> bool:
        """Whether it runs over the patch tokens as they are, of any norm, and over the prefix tokens where asked."""
        return self not in (Pooling.CLS, Pooling.LSE)


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
    """How the last block attends where patches are wanted."""

    PLAIN = "plain"
    MASKCLIP = "maskclip"
    SCLIP = "sclip"
    NACLIP = "naclip"
    PROXYCLIP = "proxyclip"
