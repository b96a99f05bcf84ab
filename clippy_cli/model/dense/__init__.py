"""Dense patch features from models that were trained for whole images, by other attention in the last block.

Importing this loads no torch: each file of the folder is imported by who needs it.
"""

from __future__ import annotations

from enum import StrEnum


class DenseMode(StrEnum):
    """How the last block attends where patches are wanted. Each has its function in ``dense/block.py``."""

    PLAIN = "plain"
    MASKCLIP = "maskclip"
    SCLIP = "sclip"
    NACLIP = "naclip"
    PROXYCLIP = "proxyclip"
