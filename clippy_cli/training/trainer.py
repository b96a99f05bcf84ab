"""The loop: batches in, updates, reports, measurements, checkpoints and models out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from clippy_cli.data.streams import START
from clippy_cli.errors import ClippyError
from clippy_cli.model.base import NonFiniteError
from clippy_cli.model.clippy import Clippy
from clippy_cli.processes import ALONE, Processes, Votes
from clippy_cli.training.best import VALIDATION_LOSS
from clippy_cli.training.checkpoint import Checkpoint, RunState, save_checkpoint
from clippy_cli.training.clock import Clock
from clippy_cli.training.compute import Compute, peak_memory_gb
from clippy_cli.training.events import (
    BestChanged,
    CheckpointFailed,
    CheckpointSaved,
    OnEvent,
    SetsEvaluated,
    ShouldStop,
    StepReport,
    Stop,
    StopRequested,
    Validated,
)
from clippy_cli.training.forward import padded_length
from clippy_cli.training.loader import Batch, Feed
from clippy_cli.training.loss import ContrastiveLoss
from clippy_cli.training.model_writer import ModelWriter
from clippy_cli.training.run_folder import RunFolder
from clippy_cli.training.step_shapes import StepShapes
from clippy_cli.training.train_step import StepFigures, TrainStep
from clippy_cli.training.validation import validation_loss

Evaluate = Callable[[Clippy, int], dict[str, float]]


@dataclass(eq=False)
class Trainer:
    """One run from where ``state`` stands to the last step of ``shapes``; every part of it is complete before.

    Attributes:
        update: makes a step; restored already where the run resumes.
        state: where the run stands; it moves on with the steps.
        feed: training batches, and unaugmented images for what models keep beside their weights.
        validation: samples whose loss is measured; None for none.
        writer: writes model directories into ``folder``.
        evaluate: measures the model every ``evaluate.every`` steps and after the last; gets the steps done.
    """

    update: TrainStep
    state: RunState
    shapes: StepShapes
    steps_per_epoch: int
    feed: Feed
    validation: Feed | None
    folder: RunFolder
    writer: ModelWriter
    emit: OnEvent
    should_stop: ShouldStop
    evaluate: Evaluate | None = None
    processes: Processes = ALONE

    def __post_init__(self) -> None:
        self.model, self.recipe, self.total_steps = self.update.model, self.update.recipe, self.shapes.total_steps
        self._compute = Compute(self.model, self.recipe)
        self._unread: list[tuple[int, StepFigures]] = []  # steps whose figures are still on the device
        self._figures: list[list[float]] = []  # of the steps since the last report, as far as they were read

    def fit(self) -> None:
        """Train to the last step, write the model, and measure it.

        StopRequested, with a checkpoint of the step at hand, where the caller asks to stop. ClippyError where the loss,
        a gradient, a weight or an embedding becomes inf or NaN.
        """
        try:
            self._fit()
        except NonFiniteError:
            raise self._diverged(f"Embeddings became inf or NaN after step {self.state.step}.") from None

    def _fit(self) -> None:
        train, state = self.recipe.train, self.state
        checkpoint_every = train.checkpoint_every or self.steps_per_epoch
        batches = self.feed.training(self.update.share, state.step, self.shapes, state.position)
        clock, votes = Clock(state.step), Votes(self.processes)
        self.update.train_mode()
        while state.step < self.total_steps:
            with clock.waiting():
                batch = next(batches)
            shape = self.shapes.at(state.step)
            figures = self.update(batch, shape, state.step)
            state.step += 1
            state.position = batch.after or START
            state.broken |= batch.broken
            self._unread.append((state.step, figures))
            tokens, flops = self._compute.count_pair(shape, self._text_length(batch))
            clock.count(train.batch_size, train.batch_size * tokens, train.batch_size * flops)

            last, stop = state.step == self.total_steps, Stop(votes.cast(int(self.should_stop())))
            if last or stop or state.step % train.log_every == 0:
                self._report(clock)
            with clock.paused():
                if last or stop or state.step % checkpoint_every == 0:
                    self._save_checkpoint()
                if not last:
                    self._measure_and_keep_best()
            if stop and not last:
                votes.close()
                raise StopRequested(stop)
        votes.close()
        self.writer.write_final(state.step, self.folder.model)
        self._measure_and_keep_best()

    def _measure_and_keep_best(self) -> None:
        """Validate and evaluate where they are due; the best model so far is written, with a checkpoint of it.

        Where the caller asks to stop meanwhile, StopRequested after a checkpoint.
        """
        best, step = self.state.best, self.state.step
        before = best.state()
        try:
            figures = self._validate() | self._evaluate()
            if not best.update_if_better(step, figures):
                return
            self.writer.measure(step)
        except StopRequested:
            best.restore(before)
            if step < self.total_steps:
                self._save_checkpoint()
            raise
        self.update.train_mode()
        if self.processes.in_first(self._write_best):
            self._save_checkpoint()
        else:
            best.restore(before)

    def _validate(self) -> dict[str, float]:
        """The validation loss, every ``train.validate_every`` steps and after the last."""
        every = self.recipe.train.validate_every or self.steps_per_epoch
        if self.validation is None or not self._is_due(every):
            return {}
        self.model.eval()
        loss = validation_loss(
            self.update.embeddings,
            ContrastiveLoss(self.recipe.train.loss, self.model.lse_scale),
            self.validation,
            self.recipe.train,
            self.processes,
            self.update.text_length,
        )
        self.update.train_mode()
        self.emit(Validated(self.state.step, loss))
        return {VALIDATION_LOSS: loss}

    def _evaluate(self) -> dict[str, float]:
        """The caller's figures of the model as it would be written now, every ``evaluate.every`` steps and at last."""
        every = self.recipe.evaluate.every
        if self.evaluate is None or not self._is_due(every or self.total_steps):
            return {}
        self.writer.measure(self.state.step)
        self.model.eval()
        figures = self.evaluate(self.model, self.state.step)
        self.update.train_mode()
        if figures:
            self.emit(SetsEvaluated(self.state.step, figures))
        return figures

    def _is_due(self, every: int) -> bool:
        return self.state.step == self.total_steps or self.state.step % every == 0

    def _write_best(self) -> bool:
        """Whether the best model could be written."""
        best, step = self.state.best, self.state.step
        assert best.figure is not None and best.value is not None
        try:
            self.writer.write(step, self.folder.best)
        except ClippyError as error:  # a full disk; training goes on
            self.emit(CheckpointFailed(step, error.message))
            return False
        self.emit(BestChanged(step, best.figure, best.value, self.folder.best))
        return True

    def _save_checkpoint(self) -> None:
        """Write everything that the next step depends on; a full disk is reported and training goes on."""
        self._read_figures()
        update, state = self.update, self.state
        if not all(bool(parameter.isfinite().all()) for parameter in update.trainable):
            raise self._diverged(f"Weights became inf or NaN by step {state.step}.")
        at = state.position
        positions = self.processes.gather((at.passes, at.window, at.offset))
        for broken in self.processes.gather(state.broken):
            state.broken |= broken
        if not self.processes.first:
            return
        bias = update.embeddings.logit_bias
        checkpoint = Checkpoint(
            step=state.step,
            model=self.model.state_dict(),
            optimizer=update.optimizer.state_dict(),
            scaler=update.scaler.state_dict(),
            logit_bias=None if bias is None else float(bias.detach()),
            recipe=self.recipe.model_dump(mode="json"),
            processes=self.processes.size,
            positions=positions,
            samples=len(self.feed),
            broken=state.broken,
            best=state.best.state(),
            terms={name: held for name, term in update.terms.items() if (held := term.state())},
            data=state.data,
        )
        try:
            state.saved = save_checkpoint(self.folder.checkpoints, checkpoint, self.recipe.train.keep_checkpoints)
            self.emit(CheckpointSaved(state.step, state.saved))
        except OSError as error:
            self.emit(CheckpointFailed(state.step, str(error)))

    def _report(self, clock: Clock) -> None:
        """A :class:`StepReport` of the steps since the last one."""
        step, parts = self.state.step, self._unread[-1][1].parts
        self._read_figures()
        values, self._figures = self._figures, []
        loss, image_accuracy, text_accuracy, _, *of_parts = np.mean(values, axis=0).tolist()
        finite_norms = [norm for norm in (row[3] for row in values) if math.isfinite(norm)]  # fp16 skips other steps
        pace, peak = clock.read(step), self._compute.peak
        broken = len(self.state.broken)
        if self.processes.size > 1:
            broken = len(set().union(*self.processes.gather(list(self.state.broken))))
        self.emit(
            StepReport(
                step=step,
                total_steps=self.total_steps,
                epoch=step / self.steps_per_epoch,
                loss=loss,
                image_accuracy=image_accuracy,
                text_accuracy=text_accuracy,
                logit_scale=float(self.model.log_logit_scale.detach().exp()),
                learning_rate=self.recipe.train.lr * self.update.learning_rate_factor(step - 1),
                grad_norm=float(np.mean(finite_norms or [0.0])),
                images_per_second=pace.images,
                tokens_per_second=pace.tokens if self.model.image.can_drop_tokens else None,
                teraflops=pace.flops / 1e12,
                flop_utilisation=pace.flops / (peak * self.processes.size) if peak else None,
                wait_share=pace.wait_share,
                memory_gb=peak_memory_gb(self.model.device),
                seconds_left=pace.step_seconds * (self.total_steps - step),
                broken=broken,
                terms=dict(zip(parts, of_parts, strict=True)),
            )
        )

    def _read_figures(self) -> None:
        """Fetch the figures of the steps so far, means over the processes.

        ClippyError at the first loss or gradient that is inf or NaN, in all processes.
        """
        if not self._unread:
            return
        steps = [step for step, _ in self._unread]
        mine = torch.stack([figures.values for _, figures in self._unread]).tolist()
        self._unread.clear()
        means: list[list[float]] = np.mean(self.processes.gather(mine), axis=0).tolist()  # (steps, 4+T)
        for step, (loss, _, _, norm, *_) in zip(steps, means, strict=True):
            if not math.isfinite(loss):
                raise self._diverged(f"The loss became {loss} at step {step}.")
            if not math.isfinite(norm) and not self.update.scaler.is_enabled():
                raise self._diverged(f"The gradient's norm became {norm} at step {step}.")
        self._figures += means

    def _diverged(self, what: str) -> ClippyError:
        saved = self.state.saved
        good = f"The last good checkpoint is {saved}." if saved else "No checkpoint was written before."
        return ClippyError(
            f"{what} {good}",
            "Train again with a lower train.lr, a longer train.warmup_steps or train.precision=fp32, "
            "and another --set output=FOLDER",
        )

    def _text_length(self, batch: Batch) -> int | None:
        """Tokens of each caption, padding included; None where captions are stored features."""
        if batch.token_ids is None:
            return None
        length, context = int(batch.token_ids.shape[1]), self.update.text_length
        return length if context is None else padded_length(length, context)
