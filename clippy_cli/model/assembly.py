"""A configuration of anyone -> a model whose size is known to be bearable before there is memory for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from clippy_cli.errors import ClippyError, first_line
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.compat.torch import sized_weights
from clippy_cli.model.config import ModelConfig
from clippy_cli.model.text_tower import LaterText, TextTower


@dataclass(frozen=True)
class Extent:
    """How large a model may become while it is built.

    Attributes:
        elements, tensors: at most, all together.
        given_by: what they follow from, for the error.
        fill: whether its random weights are drawn.
    """

    elements: int
    tensors: int
    given_by: str
    fill: bool

    @classmethod
    def of(cls, state: Mapping[str, Tensor], given_by: str) -> Self:
        """Room for the model whose weights these are, and for the halves of encoders that are built and let go."""
        elements = sum(value.numel() for value in state.values())
        return cls(4 * elements + (1 << 26), 16 * len(state) + (1 << 12), given_by, fill=False)


# A new model has no weights yet that would say; 16 GB in float32.
NEW = Extent(elements=1 << 32, tensors=1 << 16, given_by="clippy's limits", fill=True)


def assemble(
    config: ModelConfig,
    tokenizer_files: str | None,
    *,
    where: str,
    extent: Extent = NEW,
    bare: bool = False,
    later: LaterText | None = None,
) -> Clippy:
    """The model of ``config``, which ``where`` names in errors.

    With ``bare`` the towers that clippy has itself take no memory (they are on torch's device ``meta``) and import no
    library, until ``load_state_dict(assign=True)`` gives them weights under the usual names. ``later`` is a text tower
    that is not to be built now.

    ClippyError where its libraries cannot build it, whatever they raise on sizes that make no sense, and as soon as it
    outgrows ``extent``.
    """
    with _bearable(where, extent):
        return Clippy(config, tokenizer_files=tokenizer_files, bare=bare, later=later)


def assemble_text(config: ModelConfig, tokenizer_files: str | None, *, where: str, extent: Extent) -> TextTower:
    """The text tower of ``config`` alone, as :func:`assemble` with ``bare`` makes it."""
    with _bearable(where, extent):
        return TextTower(config.text, config.embed_dim, tokenizer_files, bare=True)


@contextmanager
def _bearable(where: str, extent: Extent) -> Iterator[None]:
    budget = Budget(extent, where)
    try:
        with sized_weights(budget.take, fill=extent.fill):
            yield
    except ClippyError:
        raise
    except Exception as error:  # ZeroDivisionError, AssertionError, AttributeError, ...: any check that a library makes
        raise ClippyError(
            f"{where} does not describe a model that can be built: {type(error).__name__}: {first_line(error)}",
            "Compare it with clippy_cli/model/architectures/*.yaml.",
        ) from error


class Budget:
    """What is left of an extent; ClippyError, which says what ``where`` describes, as soon as it is used up."""

    def __init__(self, extent: Extent, where: str) -> None:
        self._extent, self._where = extent, where
        self._elements = self._tensors = 0

    def take(self, elements: int) -> None:
        """Count one tensor of that many elements."""
        self._elements += elements
        self._tensors += 1
        if self._elements > self._extent.elements or self._tensors > self._extent.tensors:
            raise ClippyError(
                f"{self._where} describes a model of over {self._elements:,} values in {self._tensors:,} tensors, more "
                f"than {self._extent.given_by} allow for.",
                "Check its widths and depths.",
            )
