"""The loop: batches in, updates, reports and checkpoints out."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.model.clippy import Clippy
from clippy_cli.recipe_schema import Recipe
from clippy_cli.training.checkpoint import Checkpoint, save_checkpoint
from clippy_cli.training.clock import Clock
from clippy_cli.training.events import CheckpointSaved, Event, StepReport, StopRequested, Validated
from clippy_cli.training.forward import autocast, embed_batch
from clippy_cli.training.loader import Batch, Feed
from clippy_cli.training.loss import image_text_loss
from clippy_cli.training.optim import (
    build_optimizer,
    frozen_parts,
    learning_rate_factor,
    parameter_groups,
    set_learning_rate,
)
from clippy_cli.training.order import keep_indices, step_seed

HOPELESS_STEPS = 10  # so many steps without one usable sample mean that the data is wrong


class Trainer:
    """Model, optimiser and counters of one run; frozen parts of the model are frozen before."""

    def __init__(
        self,
        model: Clippy,
        recipe: Recipe,
        num_patches: int,
        total_steps: int,
        steps_per_epoch: int,
        checkpoints: Path,
        tell: Callable[[Event], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self.model, self.recipe, self.num_patches = model, recipe, num_patches
        self.total_steps, self.steps_per_epoch = total_steps, steps_per_epoch
        self.checkpoints, self.tell, self.should_stop = checkpoints, tell, should_stop
        self.optimizer = build_optimizer(
            parameter_groups(model, recipe.model, recipe.train), recipe.train, model.device
        )
        self.trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=recipe.train.precision == "fp16")
        self.step = 0
        self.broken: dict[int, str] = {}
        self._any_good = False
        self._saved: Path | None = None
        self._unread: list[tuple[int, Tensor]] = []  # steps whose (loss, gradient norm) is still on the device

    def restore(self, checkpoint: Checkpoint, path: Path) -> None:
        """Take over the state that ``checkpoint``, read from ``path``, holds."""
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        self.scaler.load_state_dict(checkpoint.scaler)
        self.step, self.broken = checkpoint.step, dict(checkpoint.broken)
        self._any_good, self._saved = True, path

    def fit(self, feed: Feed, validation: Feed | None) -> None:
        """Go on from ``self.step`` to the last step; StopRequested after a checkpoint where the caller asks to stop."""
        train = self.recipe.train
        checkpoint_every = train.checkpoint_every or self.steps_per_epoch
        validate_every = train.validate_every or self.steps_per_epoch
        batches = feed.training(train.batch_size, self.step, self.total_steps)
        clock = Clock(self.step)
        self._train_mode()
        while self.step < self.total_steps:
            with clock.waiting():
                batch = next(batches)
            self._note_broken(batch)
            if len(batch):
                self._unread.append((self.step + 1, self._update(batch)))
                clock.images += len(batch)
            self.step += 1
            last, stop = self.step == self.total_steps, self.should_stop()
            if last or stop or self.step % train.log_every == 0:
                self._report(clock)
            if validation is not None and (last or self.step % validate_every == 0):
                with clock.paused():
                    self.tell(Validated(self.step, self._validation_loss(validation)))
            if last or stop or self.step % checkpoint_every == 0:
                with clock.paused():
                    self._save()
            if stop and not last:
                raise StopRequested

    def _update(self, batch: Batch) -> Tensor:
        """One optimiser step; (2,) loss and gradient norm before clipping, left on the device."""
        train, seed, device = self.recipe.train, self.recipe.seed, self.model.device
        torch.manual_seed(step_seed(seed, self.step))
        keep = None
        if batch.features is None:
            keep = keep_indices(len(batch), self.num_patches, train.drop_rate, seed=seed, step=self.step, device=device)
        factor = learning_rate_factor(self.step, self.total_steps, train.warmup_steps, train.schedule)
        set_learning_rate(self.optimizer, factor)
        with autocast(train.precision, device):
            tokens, texts = embed_batch(self.model, self.recipe.model, batch, keep)
        loss = image_text_loss(self.model, tokens, texts)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.trainable, train.grad_clip or math.inf)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with torch.no_grad():
            self.model.log_logit_scale.clamp_(0.0, math.log(train.max_logit_scale))
        return torch.stack([loss.detach(), norm])

    def _report(self, clock: Clock) -> None:
        values = self._read()
        if not values:
            return
        train = self.recipe.train
        factor = learning_rate_factor(self.step - 1, self.total_steps, train.warmup_steps, train.schedule)
        finite_norms = [norm for _, norm in values if math.isfinite(norm)]  # fp16 skips the steps whose norm is not
        rate, wait_share, step_seconds = clock.read(self.step)
        self.tell(
            StepReport(
                step=self.step,
                total_steps=self.total_steps,
                epoch=self.step / self.steps_per_epoch,
                loss=float(np.mean([loss for loss, _ in values])),
                logit_scale=float(self.model.log_logit_scale.detach().exp()),
                learning_rate=train.lr * factor,
                grad_norm=float(np.mean(finite_norms or [0.0])),
                images_per_second=rate,
                wait_share=wait_share,
                seconds_left=step_seconds * (self.total_steps - self.step),
                broken=len(self.broken),
            )
        )

    def _read(self) -> list[tuple[float, float]]:
        """(loss, gradient norm) of the steps since the last call; ClippyError at the first that is no number."""
        values: list[list[float]] = torch.stack([value for _, value in self._unread]).tolist() if self._unread else []
        for (step, _), (loss, norm) in zip(self._unread, values, strict=True):
            if not math.isfinite(loss):
                raise self._diverged(f"The loss became {loss} at step {step}.")
            if not math.isfinite(norm) and not self.scaler.is_enabled():
                raise self._diverged(f"The gradient's norm became {norm} at step {step}.")
        self._unread.clear()
        return [(loss, norm) for loss, norm in values]

    def _diverged(self, what: str) -> ClippyError:
        good = f"The last good checkpoint is {self._saved}." if self._saved else "No checkpoint was written before."
        return ClippyError(
            f"{what} {good}",
            "Train again with a lower train.lr, a longer train.warmup_steps or train.precision=fp32, "
            "and another --set output=FOLDER",
        )

    def _save(self) -> None:
        self._read()
        if not all(bool(parameter.isfinite().all()) for parameter in self.trainable):
            raise self._diverged(f"Weights became infinite or no numbers by step {self.step}.")
        checkpoint = Checkpoint(
            step=self.step,
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            scaler=self.scaler.state_dict(),
            recipe=self.recipe.model_dump(mode="json"),
            broken=self.broken,
        )
        self._saved = save_checkpoint(self.checkpoints, checkpoint, self.recipe.train.keep_checkpoints)
        self.tell(CheckpointSaved(self.step, self._saved))

    def _note_broken(self, batch: Batch) -> None:
        self.broken |= batch.broken
        self._any_good = self._any_good or len(batch) > 0
        if not self._any_good and self.step + 1 >= min(HOPELESS_STEPS, self.steps_per_epoch):
            one = next(iter(self.broken.values()))
            raise ClippyError(
                f"All of the first {len(self.broken)} samples are broken. One of them: {one}", "Check data.source."
            )

    @torch.no_grad()
    def _validation_loss(self, feed: Feed) -> float:
        """Mean over whole batches of the training size, since the loss depends on it; every token kept."""
        self.model.eval()
        losses = []
        size = min(self.recipe.train.batch_size, len(feed))
        for batch in feed.plain(np.arange(len(feed) // size * size), size):
            if len(batch):
                with autocast(self.recipe.train.precision, self.model.device):
                    tokens, texts = embed_batch(self.model, self.recipe.model, batch, None)
                losses.append(float(image_text_loss(self.model, tokens, texts)))
        self._train_mode()
        return float(np.mean(losses)) if losses else math.nan

    def _train_mode(self) -> None:
        self.model.train()
        for part in frozen_parts(self.model, self.recipe.model):
            part.eval()
