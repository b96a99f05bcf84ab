"""The contrastive loss over a batch of image-caption pairs, of one process or of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from clippy_cli.model.pooling import lse_scores
from clippy_cli.processes import ALONE, Processes

LossOfBatch = Callable[[Tensor, Tensor, Tensor, Tensor], "Loss"]  # images, texts, logit scale, logit bias
LSE_CELLS = 1 << 26  # patch-text cosines held at once where similarities are pooled; a quarter of a gigabyte


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise, and the shares of images and of captions that find their own pair first.

    Attributes:
        parts: name -> share of ``value``, weighted, where terms were added to the contrastive loss.
    """

    value: Tensor
    image_accuracy: Tensor
    text_accuracy: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ContrastiveLoss:
    """``softmax`` (CLIP, arXiv 2103.00020, figure 3) or ``sigmoid`` (SigLIP, arXiv 2303.15343, algorithm 1).

    The pairs of a batch are divided evenly among ``processes``. The mean of the values of all is the loss of the whole
    batch, and the mean of their parameters' gradients, which DDP computes, its gradient. With ``local_loss`` a process
    computes the rows of its own pairs, else all. Without ``gather_with_grad`` no gradient travels between processes:
    each then knows the whole loss but only its own pairs' part of the gradient, which the mean would divide once more;
    that does not work under lse, where a row of scores belongs to texts of all.

    Args:
        lse_scale: inverse temperature where scores are log-mean-exp over patches; None where they are dot products.
    """

    kind: str = "softmax"
    lse_scale: float | None = None
    processes: Processes = ALONE
    local_loss: bool = True
    gather_with_grad: bool = True

    def __call__(self, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor) -> Loss:
        """(B,D) unit images, or (B,K,D) unit patches under lse; (B,D) unit texts; scalars."""
        if self.processes.size > 1 and not self.gather_with_grad:
            images, texts = _scaled_gradient(images, self.processes.size), _scaled_gradient(texts, self.processes.size)
        by_image, by_text = self._logits(images, texts, scale)
        first = self.processes.rank * len(images) if len(by_image) == len(images) else 0
        targets = torch.arange(first, first + len(by_image), device=images.device)
        with torch.no_grad():
            image_accuracy, text_accuracy = (
                (logits.argmax(dim=1) == targets).float().mean() for logits in (by_image, by_text)
            )
        if self.kind == "softmax":
            value = (F.cross_entropy(by_image, targets) + F.cross_entropy(by_text, targets)) / 2
        else:
            value = sigmoid_loss(by_image + bias, targets)
        return Loss(value, image_accuracy, text_accuracy)

    def _logits(self, images: Tensor, texts: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of images over all texts and of texts over all images: this process's, or without local_loss all."""
        all_texts = self._gathered(texts)
        if self.lse_scale is None:
            all_images = self._gathered(images)
            if self.local_loss:
                return scale * images @ all_texts.T, scale * texts @ all_images.T
            by_image = scale * all_images @ all_texts.T
            return by_image, by_image.T
        scores = pooled_scores(images, all_texts, self.lse_scale)  # (B,G)
        everything = self._gathered(scores)  # (G,G)
        if self.local_loss:
            first = self.processes.rank * len(images)
            return scale * scores, scale * everything[:, first : first + len(images)].T
        return scale * everything, scale * everything.T

    def _gathered(self, rows: Tensor) -> Tensor:
        """The rows of all processes, one below the other."""
        if self.processes.size == 1 or self.gather_with_grad:
            return gathered(rows, self.processes)
        parts = _all_rows(rows.detach())
        parts[self.processes.rank] = rows
        return torch.cat(parts)


def gathered(rows: Tensor, processes: Processes) -> Tensor:
    """The rows of all processes, one below the other; gradients travel back to where the rows came from.

    Ours rather than open_clip's ``gather_features``, which always gathers images and texts together, while lse pooling
    and word targets need one matrix at a time; it rests on ``torch.distributed.nn.all_gather``, whose backward pass on
    gloo is one scatter for each process and a stack of all parts, where this is one all-reduce.
    """
    if processes.size == 1:
        return rows
    everyones: Tensor = _GatherRows.apply(rows, processes.rank)
    return everyones


class _GatherRows(torch.autograd.Function):
    """Rows of all processes; their gradients come back summed over the processes."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int) -> Tensor:
        ctx.own = slice(rank * len(rows), (rank + 1) * len(rows))
        return torch.cat(_all_rows(rows))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].contiguous()
        if gradient.is_cuda:
            own = torch.empty_like(gradient[ctx.own])
            dist.reduce_scatter_tensor(own, gradient)
            return own, None
        gradient = gradient.clone()
        dist.all_reduce(gradient)  # gloo scatters nothing that it reduces
        return gradient[ctx.own], None


def _all_rows(rows: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, rows.contiguous())
    return parts


def sigmoid_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over rows of the summed binary cross-entropies: (B,G) logits, of which ``targets`` (B,) are the pairs."""
    signs = torch.full_like(logits, -1.0)
    signs[torch.arange(len(logits), device=logits.device), targets] = 1.0
    return -F.logsigmoid(signs * logits).sum() / len(logits)


def scores_of(images: Tensor, texts: Tensor, lse_scale: float | None) -> Tensor:
    """(B,D) unit images, or (B,K,D) unit patches where there is an ``lse_scale``; (G,D) unit texts -> (B,G)."""
    return images @ texts.T if lse_scale is None else pooled_scores(images, texts, lse_scale)


def pooled_scores(patches: Tensor, texts: Tensor, lse_scale: float) -> Tensor:
    """:func:`~clippy_cli.model.pooling.lse_scores` of (B,K,D) and (G,D) -> (B,G), a few images at a time.

    The (B,K,G) cosines of a large batch would not fit; those of a part are computed again when gradients need them.
    """
    rows = max(1, LSE_CELLS // (patches.shape[1] * len(texts)))
    if rows >= len(patches):
        return lse_scores(patches, texts, lse_scale)
    parts = [
        checkpoint(lse_scores, part, texts, lse_scale, use_reentrant=False, preserve_rng_state=False)
        for part in torch.split(patches, rows)
    ]
    return torch.cat(parts)


def _scaled_gradient(values: Tensor, factor: int) -> Tensor:
    """The same values, whose gradient comes back ``factor`` times as large."""
    if values.requires_grad:
        values = values * 1.0
        values.register_hook(lambda gradient: gradient * factor)  # type: ignore[no-untyped-call]
    return values
