"""From strings to token ids, without the encoder that reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Tokenize:
    """A text tower's tokenizer with its settings: small, picklable, without weights.

    Attributes:
        tokenizer: open_clip's SimpleTokenizer or HFTokenizer.
        context_length: tokens a text is cut to.
        pad_id: the id that the encoder masks; None where it reads padding like any other token.
    """

    tokenizer: Callable[..., Tensor]
    context_length: int
    pad_id: int | None

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """K strings -> (K,L) int64 ids on the CPU; L is the longest text where padding is masked, else the context."""
        ids = self.tokenizer(list(texts), context_length=self.context_length)
        if self.pad_id is None:
            return ids
        return ids[:, : int((ids != self.pad_id).sum(dim=1).max())]
