"""The loop: batches in, updates, reports and checkpoints out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from clippy_cli.data.streams import START, Position
from clippy_cli.errors import ClippyError
from clippy_cli.model.clippy import Clippy
from clippy_cli.processes import ALONE, Processes, Votes
from clippy_cli.recipe.schema import Recipe
from clippy_cli.training.best import VALIDATION_LOSS, Best
from clippy_cli.training.checkpoint import Checkpoint, load_checkpoint, load_optimizer, save_checkpoint
from clippy_cli.training.clock import Clock
from clippy_cli.training.compilation import compile_towers
from clippy_cli.training.compute import Compute, peak_memory_gb
from clippy_cli.training.events import (
    BestChanged,
    CheckpointFailed,
    CheckpointSaved,
    Evaluated,
    StepReport,
    Stop,
    StopRequested,
    Validated,
)
from clippy_cli.training.forward import Embeddings, tower_inputs_in_chunks
from clippy_cli.training.gradient_caching import backward_in_chunks, backward_whole
from clippy_cli.training.hooks import Hooks
from clippy_cli.training.loader import Batch, Feed
from clippy_cli.training.loss import ContrastiveLoss, LossOfBatch
from clippy_cli.training.optim import (
    build_optimizer,
    frozen_parts,
    learning_rate_factor,
    parameter_groups,
    set_learning_rate,
)
from clippy_cli.training.order import Part, keep_indices, step_seed
from clippy_cli.training.step_shapes import StepShape, StepShapes
from clippy_cli.training.terms import Term
from clippy_cli.training.validation import validation_loss


class Trainer:
    """Model, optimiser and counters of one run; frozen parts of the model are frozen before.

    Attributes:
        terms: what is added to the contrastive loss; set before ``fit``.
    """

    def __init__(
        self,
        model: Clippy,
        recipe: Recipe,
        shapes: StepShapes,
        steps_per_epoch: int,
        checkpoints: Path,
        hooks: Hooks,
        processes: Processes = ALONE,
    ) -> None:
        self.model, self.recipe, self.shapes = model, recipe, shapes
        self.total_steps, self.steps_per_epoch = shapes.total_steps, steps_per_epoch
        self.checkpoints, self.hooks, self.processes = checkpoints, hooks, processes
        self.part = Part(recipe.train.batch_size, processes.rank, processes.size)
        train = recipe.train
        bias = train.logit_bias_init if train.loss == "sigmoid" else None
        if processes.size > 1 and model.image.has_batch_norm and model.device.type == "cuda":
            model.image.trunk = convert_sync_batchnorm(model.image.trunk)  # statistics of the whole batch, as of one
        self.embeddings = Embeddings(model, recipe.model, train.precision, bias)
        groups = parameter_groups(model, recipe.model, train)
        if self.embeddings.logit_bias is not None:
            groups.append(
                {"params": [self.embeddings.logit_bias], "lr": train.lr, "peak_lr": train.lr, "weight_decay": 0.0}
            )
        self.optimizer = build_optimizer(groups, train, model.device)
        self.trainable = [parameter for parameter in self.embeddings.parameters() if parameter.requires_grad]
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=train.precision == "fp16")
        self._loss = ContrastiveLoss(train.loss, model.lse_scale, processes, train.local_loss, train.gather_with_grad)
        self._whole_loss = ContrastiveLoss(train.loss, model.lse_scale)
        self._text_length = model.text.config.context_length if train.compile else None
        if train.compile:
            compile_towers(model)
        self._wrapped: nn.Module = self.embeddings
        if processes.size > 1:
            self._wrapped = DistributedDataParallel(self.embeddings, gradient_as_bucket_view=True)
        self.terms: Sequence[Term] = ()
        self.step = 0
        self.broken: dict[int, str] = {}
        self.best = Best(recipe)
        self._compute = Compute(model, recipe)
        self._position, self._samples = START, 0
        self._saved: Path | None = None
        self._unread: list[tuple[int, Tensor]] = []  # steps whose figures are still on the device
        self._figures: list[list[float]] = []  # of the steps since the last report, as far as they were read

    def restore(self, path: Path) -> None:
        """Take over the state that the checkpoint ``path`` holds."""
        checkpoint = load_checkpoint(path)
        self.model.load_state_dict(checkpoint.model)
        self.scaler.load_state_dict(checkpoint.scaler)
        if self.embeddings.logit_bias is not None and checkpoint.logit_bias is not None:
            with torch.no_grad():
                self.embeddings.logit_bias.fill_(checkpoint.logit_bias)
        self.step, self.broken = checkpoint.step, dict(checkpoint.broken)
        self.best.restore(checkpoint.best)
        if self.processes.rank < len(checkpoint.positions):
            self._position = Position(*checkpoint.positions[self.processes.rank])
        self._saved = path
        del checkpoint
        self.optimizer.load_state_dict(load_optimizer(path))

    def fit(self, feed: Feed, validation: Feed | None) -> None:
        """Go on from ``self.step`` to the last step; StopRequested after a checkpoint where the caller asks to stop."""
        train = self.recipe.train
        checkpoint_every = train.checkpoint_every or self.steps_per_epoch
        batches = feed.training(self.part, self.step, self.shapes, self._position)
        clock, votes = Clock(self.step), Votes(self.processes)
        self._samples = len(feed)
        self._train_mode()
        while self.step < self.total_steps:
            with clock.waiting():
                batch = next(batches)
            self.broken |= batch.broken
            self._position = batch.after or START
            shape = self.shapes.at(self.step)
            self._unread.append((self.step + 1, self._update(batch, shape)))
            tokens, flops = self._compute.of_pair(shape, self._length(batch))
            clock.count(train.batch_size, train.batch_size * tokens, train.batch_size * flops)
            self.step += 1
            last, stop = self.step == self.total_steps, Stop(votes.cast(int(self.hooks.should_stop())))
            if last or stop or self.step % train.log_every == 0:
                self._report(clock)
            with clock.paused():
                if last or stop or self.step % checkpoint_every == 0:
                    self._save()
                try:
                    better = not last and self._measure(validation)
                except StopRequested:
                    self._save()
                    raise
                if better:
                    self._save()
            if stop and not last:
                votes.close()
                raise StopRequested(stop)
        votes.close()

    def conclude(self, validation: Feed | None) -> None:
        """Validate and evaluate after the last step; everything else is on disk by now."""
        if self._measure(validation):
            self._save()

    def _update(self, batch: Batch, shape: StepShape) -> Tensor:
        """One optimiser step; (4,) loss, accuracies and gradient norm before clipping, left on the device."""
        train, seed, device = self.recipe.train, self.recipe.seed, self.model.device
        factor = learning_rate_factor(self.step, self.total_steps, train.warmup_steps, train.schedule)
        set_learning_rate(self.optimizer, factor)
        self.optimizer.zero_grad(set_to_none=True)
        keep = self._keep(batch, shape)
        chunks = tower_inputs_in_chunks(self.model, batch, keep, shape.chunk_size, self._text_length)
        seeds = [step_seed(seed, self.step, self.processes.rank, number) for number in range(len(chunks))]
        objective: LossOfBatch = self._loss
        for term in self.terms:
            objective = term.added_to(objective, batch)
        if len(chunks) == 1:
            loss = backward_whole(self._wrapped, chunks[0], objective, seeds[0], self.scaler.scale)
        else:
            loss = backward_in_chunks(self._wrapped, chunks, objective, seeds, self.scaler.scale)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.trainable, train.grad_clip or math.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with torch.no_grad():
            self.model.log_logit_scale.clamp_(0.0, math.log(train.max_logit_scale))
        figures = (loss.value, loss.image_accuracy, loss.text_accuracy, norm)
        return torch.stack([figure.to(device, torch.float32) for figure in figures])

    def _keep(self, batch: Batch, shape: StepShape) -> Tensor | None:
        """(B,K) patches that this process's images keep: its rows of the draw for the batch of all processes."""
        if batch.features is not None:
            return None
        h, w = self.model.image.grid_size(shape.resolution, shape.resolution)
        keep = keep_indices(
            self.part.batch_size,
            h * w,
            shape.drop_rate,
            seed=self.recipe.seed,
            step=self.step,
            device=self.model.device,
        )
        return None if keep is None else keep[self.part.rows]

    def _length(self, batch: Batch) -> int | None:
        """Tokens of each caption, padding included; None for the whole context."""
        return None if batch.token_ids is None or self._text_length else int(batch.token_ids.shape[1])

    def _report(self, clock: Clock) -> None:
        self._read()
        values, self._figures = self._figures, []
        train = self.recipe.train
        factor = learning_rate_factor(self.step - 1, self.total_steps, train.warmup_steps, train.schedule)
        loss, image_accuracy, text_accuracy = np.mean(values, axis=0)[:3]
        finite_norms = [norm for *_, norm in values if math.isfinite(norm)]  # fp16 skips the steps whose norm is not
        pace = clock.read(self.step)
        peak = self._compute.peak
        broken = len(set().union(*self.processes.gather(list(self.broken)))) if self.processes.size > 1 else None
        self.hooks.tell(
            StepReport(
                step=self.step,
                total_steps=self.total_steps,
                epoch=self.step / self.steps_per_epoch,
                loss=float(loss),
                image_accuracy=float(image_accuracy),
                text_accuracy=float(text_accuracy),
                logit_scale=float(self.model.log_logit_scale.detach().exp()),
                learning_rate=train.lr * factor,
                grad_norm=float(np.mean(finite_norms or [0.0])),
                images_per_second=pace.images,
                tokens_per_second=pace.tokens if self.model.image.can_drop_tokens else None,
                teraflops=pace.flops / 1e12,
                flop_utilisation=pace.flops / (peak * self.processes.size) if peak else None,
                wait_share=pace.wait_share,
                memory_gb=peak_memory_gb(self.model.device),
                seconds_left=pace.step_seconds * (self.total_steps - self.step),
                broken=len(self.broken) if broken is None else broken,
            )
        )

    def _read(self) -> None:
        """Fetch loss, accuracies and gradient norm of the steps so far, means over the processes.

        ClippyError at the first that is no number, in all processes.
        """
        if not self._unread:
            return
        steps = [step for step, _ in self._unread]
        mine = torch.stack([figures for _, figures in self._unread]).tolist()
        self._unread.clear()
        means: list[list[float]] = np.mean(self.processes.gather(mine), axis=0).tolist()  # (steps, 4)
        for step, (loss, _, _, norm) in zip(steps, means, strict=True):
            if not math.isfinite(loss):
                raise self._diverged(f"The loss became {loss} at step {step}.")
            if not math.isfinite(norm) and not self.scaler.is_enabled():
                raise self._diverged(f"The gradient's norm became {norm} at step {step}.")
        self._figures += means

    def _diverged(self, what: str) -> ClippyError:
        good = f"The last good checkpoint is {self._saved}." if self._saved else "No checkpoint was written before."
        return ClippyError(
            f"{what} {good}",
            "Train again with a lower train.lr, a longer train.warmup_steps or train.precision=fp32, "
            "and another --set output=FOLDER",
        )

    def _measure(self, validation: Feed | None) -> bool:
        """Validate and evaluate where they are due; whether the model is the best so far."""
        last = self.step == self.total_steps
        figures: dict[str, float] = {}
        validate_every = self.recipe.train.validate_every or self.steps_per_epoch
        if validation is not None and (last or self.step % validate_every == 0):
            figures[VALIDATION_LOSS] = self._validation_loss(validation)
            self.hooks.tell(Validated(self.step, figures[VALIDATION_LOSS]))
        every = self.recipe.evaluate.every
        if last or (every is not None and self.step % every == 0):
            self.model.eval()
            measured = self.hooks.evaluate(self.step)
            self._train_mode()
            if measured:
                figures |= measured
                self.hooks.tell(Evaluated(self.step, measured))
        before = self.best.state()
        if not self.best.offer(self.step, figures):
            return False
        self.hooks.settle(self.step)
        self._train_mode()
        written = self.processes.in_first(self._save_best)
        if not written:
            self.best.restore(before)
        return written

    def _save_best(self) -> bool:
        assert self.best.figure is not None and self.best.value is not None
        try:
            path = self.hooks.save_best(self.step)
        except ClippyError as error:  # a full disk; training goes on
            self.hooks.tell(CheckpointFailed(self.step, error.message))
            return False
        self.hooks.tell(BestChanged(self.step, self.best.figure, self.best.value, path))
        return True

    def _save(self) -> None:
        self._read()
        if not all(bool(parameter.isfinite().all()) for parameter in self.trainable):
            raise self._diverged(f"Weights became infinite or no numbers by step {self.step}.")
        at = self._position
        positions = self.processes.gather((at.passes, at.window, at.offset))
        for broken in self.processes.gather(self.broken):
            self.broken |= broken
        if not self.processes.first:
            return
        bias = self.embeddings.logit_bias
        checkpoint = Checkpoint(
            step=self.step,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            logit_bias=None if bias is None else float(bias.detach()),
            recipe=self.recipe.model_dump(mode="json"),
            processes=self.processes.size,
            positions=positions,
            samples=self._samples,
            broken=self.broken,
            best=self.best.state(),
        )
        try:
            self._saved = save_checkpoint(self.checkpoints, checkpoint, self.recipe.train.keep_checkpoints)
            self.hooks.tell(CheckpointSaved(self.step, self._saved))
        except OSError as error:
            self.hooks.tell(CheckpointFailed(self.step, str(error)))

    def _validation_loss(self, feed: Feed) -> float:
        self.model.eval()
        value = validation_loss(
            self.embeddings, self._whole_loss, feed, self.recipe.train, self.processes, self._text_length
        )
        self._train_mode()
        return value

    def _train_mode(self) -> None:
        self.model.train()
        for part in frozen_parts(self.model, self.recipe.model):
            part.eval()
