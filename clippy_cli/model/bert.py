"""BERT's encoder (arXiv 1810.04805), so that loading a model does not wait for transformers.

The arithmetic and the names of weights are those of transformers' ``BertModel`` without a pooler. transformers still
draws the weights of new models, and serves every other encoder.

Shapes: K texts, L token ids of a text, F features; M heads of width d.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Fields of ``config.json`` that change nothing here, and the one value that others may have.
_IDLE = {"architectures", "initializer_range", "use_cache", "classifier_dropout", "transformers_version", "torch_dtype"}
_FIXED = {
    "model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute", "gradient_checkpointing": False,
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """Sizes of an encoder, by the names of its ``config.json``."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    pad_token_id: int
    layer_norm_eps: float
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self | None:
        """The sizes of an encoder's ``config.json``; None where it is another encoder, or says anything unknown."""
        sizes = {name: fields.get(name) for name in cls.__annotations__}
        others = {name: value for name, value in fields.items() if name not in sizes and name not in _IDLE}
        if "model_type" not in others or any(name not in _FIXED or _FIXED[name] != others[name] for name in others):
            return None
        *whole, _, _, _ = sizes.values()
        if not all(type(value) is int for value in whole) or not all(type(v) in (int, float) for v in sizes.values()):
            return None
        shape = cls(**sizes)  # type: ignore[arg-type]  # just looked at
        counts = [
            count for name, count in vars(shape).items() if name.endswith(("size", "layers", "heads", "embeddings"))
        ]
        fits = min(counts) > 0 and shape.hidden_size % shape.num_attention_heads == 0
        fits = fits and 0 <= shape.pad_token_id < shape.vocab_size
        chances = shape.hidden_dropout_prob, shape.attention_probs_dropout_prob
        return shape if fits and all(0 <= chance <= 1 for chance in chances) else None


class BertEncoder(nn.Module):
    """BERT and the mean of its last hidden states, padding left out; to be given the weights of a checkpoint.

    Its one child is called ``transformer``, as in :class:`~clippy_cli.model.compat.transformers.TextEncoder`.
    """

    def __init__(self, fields: Mapping[str, Any], shape: Shape) -> None:
        super().__init__()
        self._fields = dict(fields)
        self.transformer = _Bert(shape)
        self.width, self.pad_id = shape.hidden_size, shape.pad_token_id
        self.rows, self.positions = shape.vocab_size, shape.max_position_embeddings

    @property
    def config(self) -> Any:
        """transformers' configuration of the same encoder, for export."""
        from clippy_cli.model.compat.transformers import encoder_config

        return encoder_config(self._fields)

    def forward(self, token_ids: Tensor) -> Tensor:
        """(K,L) token ids -> (K,F)."""
        mask = token_ids != self.pad_id
        return mean_of_tokens(self.transformer(token_ids, mask), mask.long())


def mean_of_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """(K,L,F) hidden states, (K,L) 1 for a token and 0 for padding -> (K,F)."""
    mean: Tensor = (hidden * mask.unsqueeze(-1)).sum(dim=1) / mask.sum(-1, keepdim=True)
    return mean


class _Bert(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embeddings = _Embeddings(shape)
        self.encoder = _Layers(shape)

    def forward(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        """(K,L) ids, (K,L) bool, false for padding -> (K,L,F)."""
        seen = None  # an export has one graph, which takes padding, too
        if torch.compiler.is_compiling() or not bool(mask.all()):
            seen = mask[:, None, None, :].expand(-1, 1, mask.shape[1], -1)  # (K,1,L,L)
        hidden: Tensor = self.embeddings(token_ids)
        for layer in self.encoder.layer:
            hidden = layer(hidden, seen)
        return hidden


class _Embeddings(nn.Module):
    """Words, positions and the type of the first sentence."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.hidden_size
        self.word_embeddings = nn.Embedding(shape.vocab_size, width, padding_idx=shape.pad_token_id)
        self.position_embeddings = nn.Embedding(shape.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(shape.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=shape.layer_norm_eps)
        self.dropout = nn.Dropout(shape.hidden_dropout_prob)

    def forward(self, token_ids: Tensor) -> Tensor:
        words = self.word_embeddings(token_ids) + self.token_type_embeddings(torch.zeros_like(token_ids))
        places = torch.arange(token_ids.shape[1], device=token_ids.device)[None]  # (1,L)
        hidden: Tensor = self.dropout(self.LayerNorm(words + self.position_embeddings(places)))
        return hidden


class _Layers(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(shape) for _ in range(shape.num_hidden_layers))


class _Layer(nn.Module):
    """Attention and feed-forward, each followed by a residual and a norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention = _Attention(shape)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(shape.hidden_size, shape.intermediate_size)})
        self.output = _Residual(shape.intermediate_size, shape)

    def forward(self, hidden: Tensor, seen: Tensor | None) -> Tensor:
        attended = self.attention(hidden, seen)
        out: Tensor = self.output(F.gelu(self.intermediate["dense"](attended)), attended)
        return out


class _Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.chance = shape.num_attention_heads, shape.attention_probs_dropout_prob
        width = shape.hidden_size
        self.self = nn.ModuleDict({name: nn.Linear(width, width) for name in ("query", "key", "value")})
        self.output = _Residual(width, shape)

    def forward(self, hidden: Tensor, seen: Tensor | None) -> Tensor:
        split = (*hidden.shape[:2], self.heads, -1)
        queries, keys, values = (
            self.self[name](hidden).view(split).transpose(1, 2) for name in ("query", "key", "value")
        )  # (K,M,L,d)
        chance = self.chance if self.training else 0.0
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=seen, dropout_p=chance)
        out: Tensor = self.output(mixed.transpose(1, 2).reshape(hidden.shape), hidden)
        return out


class _Residual(nn.Module):
    """A linear map, its dropout, and the norm of its sum with what came before."""

    def __init__(self, width: int, shape: Shape) -> None:
        super().__init__()
        self.dense = nn.Linear(width, shape.hidden_size)
        self.LayerNorm = nn.LayerNorm(shape.hidden_size, eps=shape.layer_norm_eps)
        self.dropout = nn.Dropout(shape.hidden_dropout_prob)

    def forward(self, mixed: Tensor, before: Tensor) -> Tensor:
        hidden: Tensor = self.LayerNorm(self.dropout(self.dense(mixed)) + before)
        return hidden
