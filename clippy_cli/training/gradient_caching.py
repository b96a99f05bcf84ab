"""Batches that do not fit: embeddings of all chunks first, then the towers once more for each chunk's gradient.

The loss needs every pair of the batch, but its gradient passes through the towers one image and one text at a time. So
embeddings are computed without a graph, the loss gives their gradients, and a second forward pass of each chunk carries
these to the weights (Gao et al., arXiv 2101.06983, section 3). Both passes of a chunk draw the same: kept tokens are
drawn before, and dropout is seeded for each chunk. Memory is that of one chunk, whatever their number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from clippy_cli.training.forward import TowerInputs
from clippy_cli.training.loss import Loss, LossOfBatch


def backward_whole(
    embed: nn.Module, inputs: TowerInputs, loss: LossOfBatch, seed: int, scaled: Callable[[Tensor], Tensor]
) -> Loss:
    """Forward and backward of the batch at once; gradients of ``scaled(loss)`` are added to the parameters."""
    torch.manual_seed(seed)
    result = loss(*embed(inputs))
    torch.autograd.backward(scaled(result.value))
    return _detached(result)


def backward_in_chunks(
    embed: nn.Module,
    chunks: Sequence[TowerInputs],
    loss: LossOfBatch,
    seeds: Sequence[int],
    scaled: Callable[[Tensor], Tensor],
) -> Loss:
    """The same gradients as :func:`backward_whole` of the chunks side by side, but for rounding.

    ``embed`` is an :class:`~clippy_cli.training.forward.Embeddings`, or DDP around one, which then communicates in
    the last chunk only.
    """
    module = embed.module if isinstance(embed, DistributedDataParallel) else embed
    outputs: list[tuple[Tensor, ...]] = []
    with torch.no_grad():
        for inputs, seed in zip(chunks, seeds, strict=True):
            torch.manual_seed(seed)
            outputs.append(module(inputs))
    images, texts = (torch.cat([output[side] for output in outputs]).requires_grad_() for side in (0, 1))
    scale, bias = (outputs[-1][number].clone().requires_grad_() for number in (2, 3))
    sizes = [len(output[0]) for output in outputs]
    del outputs
    result = loss(images, texts, scale, bias)
    torch.autograd.backward(scaled(result.value))
    gradients = [leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in (images, texts)]
    of_scalars = [leaf.grad if leaf.grad is not None else torch.zeros_like(leaf) for leaf in (scale, bias)]
    del images, texts
    of_chunks = zip(*(torch.split(gradient, sizes) for gradient in gradients), strict=True)
    for number, (inputs, seed, of_chunk) in enumerate(zip(chunks, seeds, of_chunks, strict=True)):
        last = number == len(chunks) - 1
        quiet = embed.no_sync() if isinstance(embed, DistributedDataParallel) and not last else nullcontext()
        with quiet:
            torch.manual_seed(seed)
            again = embed(inputs, learning_only=True)
            wanted = [*of_chunk, *(of_scalars if last else [])]
            pairs = [
                (value, gradient)
                for value, gradient in zip(again, wanted, strict=False)
                if value is not None and value.requires_grad
            ]
            if pairs:
                torch.autograd.backward([value for value, _ in pairs], [gradient for _, gradient in pairs])
    return _detached(result)


def _detached(loss: Loss) -> Loss:
    parts = {name: part.detach() for name, part in loss.parts.items()}
    return replace(loss, value=loss.value.detach(), parts=parts)
