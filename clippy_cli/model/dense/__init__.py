"""Dense patch features from models that were trained for whole images, by other attention in the last block.

Importing this loads no torch: each file of the folder is imported by who needs it.
"""

from clippy_cli.model.choices import DenseMode

__all__ = ["DenseMode"]
