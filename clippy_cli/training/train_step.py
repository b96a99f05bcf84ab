"""One update of the model by a batch: forward, loss and its terms, backward, clipping, optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
import torch.distributed as dist
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from clippy_cli.model.clippy import Clippy
from clippy_cli.processes import ALONE, Processes
from clippy_cli.recipe.schema import Recipe
from clippy_cli.training.checkpoint import Checkpoint
from clippy_cli.training.forward import Embeddings, compile_towers, tower_inputs_in_chunks
from clippy_cli.training.gradient_caching import backward_in_chunks, backward_whole
from clippy_cli.training.loader import Batch
from clippy_cli.training.loss import ContrastiveLoss, Loss
from clippy_cli.training.optim import (
    build_optimizer,
    frozen_parts,
    learning_rate_factor,
    parameter_groups,
    set_learning_rate,
)
from clippy_cli.training.order import BatchShare, keep_indices, step_seed
from clippy_cli.training.step_shapes import StepShape
from clippy_cli.training.terms.base import Pairs, Term

CONTRASTIVE = "contrastive"


class StepFigures(NamedTuple):
    """What a step measured, left on the device.

    Attributes:
        values: (4+T,) float32: loss, accuracy of images, of captions, gradient norm before clipping, T parts.
        parts: names of the T parts of the loss; none where it is the contrastive one alone.
    """

    values: Tensor
    parts: tuple[str, ...]


class TrainStep:
    """The update, with what it remembers: optimizer, gradient scaler, logit bias, and the terms' own state.

    Attributes:
        embeddings: both towers; the model's frozen parts are frozen before.
        share: the rows of each batch that this process works on.
        trainable: every parameter that the optimizer moves, the terms' own included.
    """

    def __init__(
        self,
        model: Clippy,
        recipe: Recipe,
        total_steps: int,
        terms: Mapping[str, Term] | None = None,
        processes: Processes = ALONE,
    ) -> None:
        train = recipe.train
        self.model, self.recipe, self.processes = model, recipe, processes
        self.terms = dict(terms or {})
        self.share = BatchShare(train.batch_size, processes.rank, processes.size)
        self.text_length = model.text.config.context_length if train.compile else None
        self._total_steps = total_steps
        if processes.size > 1 and model.image.has_batch_norm and model.device.type == "cuda":
            model.image.trunk = convert_sync_batchnorm(model.image.trunk)  # statistics of the whole batch, as of one
        bias = train.logit_bias_init if train.loss == "sigmoid" else None
        self.embeddings = Embeddings(model, recipe.model, train.precision, bias)
        groups = parameter_groups(model, recipe.model, train)
        if self.embeddings.logit_bias is not None:
            groups.append(
                {"params": [self.embeddings.logit_bias], "lr": train.lr, "peak_lr": train.lr, "weight_decay": 0.0}
            )
        self._term_parameters = [parameter for term in self.terms.values() for parameter in term.parameters()]
        for term in self.terms.values():
            groups += term_groups(term, recipe)
        self.optimizer = build_optimizer(groups, train, model.device)
        self.trainable = [parameter for parameter in self.embeddings.parameters() if parameter.requires_grad]
        self.trainable += self._term_parameters
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=train.precision == "fp16")
        self._contrastive = ContrastiveLoss(
            train.loss, model.lse_scale, processes, train.local_loss, train.gather_with_grad
        )
        if train.compile:
            compile_towers(model)
        self._wrapped: nn.Module = self.embeddings
        if processes.size > 1:
            self._wrapped = DistributedDataParallel(self.embeddings, gradient_as_bucket_view=True)

    def __call__(self, batch: Batch, shape: StepShape, step: int) -> StepFigures:
        """Make 0-based ``step`` with this process's part of the batch."""
        train, device = self.recipe.train, self.model.device
        set_learning_rate(self.optimizer, self.learning_rate_factor(step))
        self.optimizer.zero_grad(set_to_none=True)
        chunks = tower_inputs_in_chunks(
            self.model, batch, self._kept_patches(batch, shape, step), shape.chunk_size, self.text_length
        )
        seeds = [step_seed(self.recipe.seed, step, self.processes.rank, number) for number in range(len(chunks))]
        objective = partial(self.loss, batch, shape, step)
        if len(chunks) == 1:
            loss = backward_whole(self._wrapped, chunks[0], objective, seeds[0], self.scaler.scale)
        else:
            loss = backward_in_chunks(self._wrapped, chunks, objective, seeds, self.scaler.scale)
        self._average_term_gradients()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.trainable, train.grad_clip or math.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with torch.no_grad():
            self.model.log_logit_scale.clamp_(0.0, math.log(train.max_logit_scale))
        for term in self.terms.values():
            term.after_update(step)
        figures = (loss.value, loss.image_accuracy, loss.text_accuracy, norm, *loss.parts.values())
        values = torch.stack([figure.to(device, torch.float32) for figure in figures])
        return StepFigures(values, tuple(loss.parts))

    def loss(
        self, batch: Batch, shape: StepShape, step: int, images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor
    ) -> Loss:
        """The contrastive loss of the towers' outputs, plus every term's."""
        contrastive = self._contrastive(images, texts, scale, bias)
        if not self.terms:
            return contrastive
        pairs = Pairs(images, texts, scale, bias, step, shape)
        value, parts = contrastive.value, {CONTRASTIVE: contrastive.value}
        for term in self.terms.values():
            for name, part in term.loss(batch, pairs).items():
                value, parts[name] = value + part, part
        return replace(contrastive, value=value, parts=parts)

    def learning_rate_factor(self, step: int) -> float:
        """Share of each peak learning rate that 0-based ``step`` is made with."""
        train = self.recipe.train
        return learning_rate_factor(step, self._total_steps, train.warmup_steps, train.schedule)

    def train_mode(self) -> None:
        """All of the model in training mode but what is frozen."""
        self.model.train()
        for part in frozen_parts(self.model, self.recipe.model):
            part.eval()

    def restore(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint's state, all but the model's and the optimizer's."""
        self.scaler.load_state_dict(checkpoint.scaler)
        if self.embeddings.logit_bias is not None and checkpoint.logit_bias is not None:
            with torch.no_grad():
                self.embeddings.logit_bias.fill_(checkpoint.logit_bias)
        for name, term in self.terms.items():
            term.restore(checkpoint.terms.get(name, {}))

    def _kept_patches(self, batch: Batch, shape: StepShape, step: int) -> Tensor | None:
        """(B,K) patches that this process's images keep: its rows of the draw for the batch of all processes."""
        if batch.features is not None:
            return None
        h, w = self.model.image.grid_size(shape.resolution, shape.resolution)
        keep = keep_indices(
            self.share.batch_size, h * w, shape.drop_rate, seed=self.recipe.seed, step=step, device=self.model.device
        )
        return None if keep is None else keep[self.share.rows]

    def _average_term_gradients(self) -> None:
        """What DDP does for the model's gradients, for those of the terms' own parameters."""
        if self.processes.size == 1:
            return
        for parameter in self._term_parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
            parameter.grad /= self.processes.size


def term_groups(term: Term, recipe: Recipe) -> list[dict[str, object]]:
    """The optimizer's groups for a term's own parameters, if it has any; vectors without decay."""
    rate = term.learning_rate or recipe.train.lr
    groups = []
    for decay, decayed in ((recipe.train.weight_decay, True), (0.0, False)):
        parameters = [parameter for parameter in term.parameters() if (parameter.ndim >= 2) == decayed]
        if parameters:
            groups.append({"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay})
    return groups
