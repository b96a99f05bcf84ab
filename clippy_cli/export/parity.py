"""Whether an export says what its model says: the same inputs through both, the largest difference of each output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.model.store import WEIGHTS_FILE


@dataclass(frozen=True)
class Difference:
    """One output compared for one input.

    Attributes:
        output: its name, such as ``patches``.
        shape: of the input.
        largest: the largest absolute difference of unit vectors; NaN where either side is.
    """

    output: str
    shape: tuple[int, ...]
    largest: float


@dataclass(frozen=True)
class ExportReport:
    """What was written: the folder, bytes by file, how far each output is from the model's (at most ``limit``).

    ``notes`` are for the user to read, such as what would break the folder.
    """

    folder: Path
    files: dict[str, int]
    limit: float
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()


def refuse_model_folder(out: Path) -> None:
    """ClippyError where ``out`` is a model directory of clippy, which files of an export would spoil."""
    if (out / WEIGHTS_FILE).is_file():
        raise ClippyError(f"{out} is a model directory of clippy.", "Choose another folder for the export.")


def difference(output: str, given: Tensor, exported: Tensor, wanted: Tensor) -> Difference:
    """Compare two tensors of one shape; ClippyError where the shapes differ."""
    if exported.shape != wanted.shape:
        raise ClippyError(
            f"The exported {output} has shape {tuple(exported.shape)} for an input of {tuple(given.shape)}; "
            f"the model gives {tuple(wanted.shape)}. Nothing was written."
        )
    return Difference(output, tuple(given.shape), float((exported.double() - wanted.double()).abs().max()))


def require_parity(differences: Sequence[Difference], limit: float) -> None:
    """ClippyError that lists every output further than ``limit`` from the model's."""
    bad = [found for found in differences if not found.largest <= limit]
    if bad:
        lines = "\n".join(
            f"  {found.output}, input {'x'.join(map(str, found.shape))}: {found.largest:.2e}" for found in bad
        )
        raise ClippyError(
            f"The export differs from the model by more than {limit:.0e}, so nothing was written:\n{lines}",
            "Try other versions of torch and of the package that runs the export.",
        )


def sample_texts() -> list[str]:
    """A short and a longer text, so that a batch of both holds padding."""
    return ["a dog", "a photo of two small brown dogs that run over wet grass beside a wooden fence"]


def sample_images(batch: int, height: int, width: int) -> Tensor:
    """(batch,3,height,width) float32 RGB in [0, 1], the same each time."""
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(height * width))


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file below ``folder``, by its path relative to it."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
    }
