"""The trainer's update by itself: against open_clip's training loop, and with tokens dropped."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import open_clip
import torch
from open_clip_train.scheduler import cosine_lr
from open_clip_train.train import train_one_epoch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from clippy_cli.model.clippy import Clippy
from clippy_cli.model.config import ModelConfig
from clippy_cli.model.registry import load_architecture, parse_model_config
from clippy_cli.recipe.schema import Recipe
from clippy_cli.training.loader import Batch
from clippy_cli.training.step_shapes import StepShape
from clippy_cli.training.train_step import TrainStep

WARM_UP = 2
NOISE = 64  # images of noise, over and over in a larger batch
LR, DECAY, BETAS, CLIP = 1e-4, 0.2, (0.9, 0.98), 1.0
SIZE = {"width": 192, "heads": 3, "layers": 12}  # of ViT-Ti
TEXT = {"width": 256, "heads": 4, "layers": 6}
EMBED_DIM = 256


@dataclass(frozen=True)
class Report:
    """A part's table, and what was measured how."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    settings: str


class Update:
    """The trainer's update on one random batch; calling it gives the loss."""

    def __init__(
        self, config: ModelConfig, device: torch.device, batch_size: int, shape: StepShape, tokens: int, **train: Any
    ) -> None:
        recipe = Recipe.model_validate(
            {
                "name": "benchmark",
                "output": "benchmark",
                "model": {"architecture": config.name},
                "data": {"source": {"kind": "scenes", "count": batch_size}, "resolution": shape.resolution},
                "train": {
                    "steps": 1_000_000,
                    "batch_size": batch_size,
                    "lr": LR,
                    "betas": BETAS,
                    "weight_decay": DECAY,
                    "grad_clip": CLIP,
                    "drop_rate": shape.drop_rate,
                    "chunk_size": shape.chunk_size,
                    **train,
                },
            }
        )
        torch.manual_seed(0)
        self.shape, self.device = shape, device
        self.model = Clippy(config, tokenizer_files=None).to(device)
        self.update, self.step = TrainStep(self.model, recipe, 1_000_000), 0
        self.update.train_mode()
        self.batch = random_batch(config, batch_size, shape.resolution, tokens, pin=device.type == "cuda")

    def start(self) -> Tensor:
        """The update's figures, which may still be on their way on the device."""
        figures = self.update(self.batch, self.shape, self.step).values
        self.step += 1
        return figures

    def __call__(self) -> float:
        return float(self.start()[0])


def random_batch(config: ModelConfig, batch_size: int, side: int, tokens: int, *, pin: bool) -> Batch:
    """Noise and token ids; the highest id is last, where CLIP's text tower looks for the end."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (min(batch_size, NOISE), 3, side, side), dtype=torch.uint8, generator=generator)
    images = images.repeat(-(-batch_size // NOISE), 1, 1, 1)[:batch_size]
    words = int(config.text.encoder["vocab_size"])
    ids = torch.randint(2, words - 1, (batch_size, tokens), generator=generator)
    ids[:, -1] = words - 1
    batch = Batch(list(range(batch_size)), [("",)] * batch_size, images=images, token_ids=ids)
    return batch.pin_memory() if pin else batch


def measure_step(options: argparse.Namespace, device: torch.device) -> Report:
    """One update in fp32 and bf16, without dropping, against open_clip's loop."""
    config = small_clip()
    count, side = options.batch_size or 32, 224
    rows = []
    for precision in options.precision:
        ours = Update(config, device, count, StepShape(side, 0.0, None), 77, precision=precision)
        rivals: dict[str, Callable[[], float]] = {"ours": ours}
        models = {
            "the same modules": InOpenClip(ours.model, config).to(device),
            "open_clip's CLIP class": native(device),
        }
        for name, model in models.items():
            rivals[name] = OpenClipUpdate(model, ours, precision)
        seconds, losses = take_turns(rivals, options.steps, device)
        if options.profile:
            print_profile(ours, device)
        mine = statistics.median(seconds["ours"])
        for name, model in models.items():
            theirs = statistics.median(seconds[name])
            rows.append(
                (
                    f"{precision}, {name}",
                    f"{spread(seconds['ours'])}",
                    f"{spread(seconds[name])}",
                    f"{theirs / mine:.2f}x",
                    f"{paired_ratio(seconds['ours'], seconds[name])}",
                    f"{losses['ours']:.4f} / {losses[name]:.4f}",
                    f"{millions(ours.model)} / {millions(model)}",
                )
            )
    columns = ("against", "ours, ms", "theirs, ms", "ratio", "ratios of turns", "last losses", "parameters, M")
    return Report(
        columns,
        rows,
        f"CLIP with a ViT-Ti/16 and a text tower of width {TEXT['width']}, {TEXT['layers']} layers; batch {count}, "
        f"{side} pixels, no dropping; medians of {options.steps} updates each, in turn, with quartiles; "
        f"{clock_name(device)}.",
    )


def measure_drop(options: argparse.Namespace, device: torch.device) -> Report:
    """One update at 448 pixels with no and with 80 % of patch tokens dropped, and where the time of both goes."""
    config = load_architecture(options.architecture or "clippy-ti")
    count, side, tokens = options.batch_size or 16, 448, options.text_tokens
    updates = {rate: Update(config, device, count, StepShape(side, rate, None), tokens) for rate in (0.0, 0.8)}
    first = updates[0.0]
    first_ids = first.batch.token_ids
    assert first_ids is not None
    ids = first_ids.to(device)

    def text() -> float:
        first.update.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(first.model.text_vectors(ids).sum())
        return 0.0

    def rest() -> float:
        torch.nn.utils.clip_grad_norm_(first.update.trainable, CLIP)
        first.update.optimizer.step()
        return 0.0

    rivals: dict[str, Callable[[], float]] = {"text": text}
    rivals |= {f"{rate:.0%} dropped": update for rate, update in updates.items()}
    rivals["optimiser"] = rest
    seconds, _ = take_turns(rivals, options.steps, device)
    if options.profile:
        for update in updates.values():
            print_profile(update, device)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    fixed = medians["text"] + medians["optimiser"]
    rows = [
        (
            name,
            f"{count / medians[name]:.2f}",
            spread(seconds[name]),
            f"{1000 * (medians[name] - fixed):.0f}",
            f"{1000 * medians['text']:.0f}",
            f"{1000 * medians['optimiser']:.0f}",
        )
        for name in ("0% dropped", "80% dropped")
    ]
    none, most = medians["0% dropped"], medians["80% dropped"]
    columns = ("tokens", "images/s", "ms", "image tower and loss, ms", "text tower, ms", "clip and optimiser, ms")
    return Report(
        columns,
        rows,
        f"{config.name}, nothing frozen, {side} pixels, batch {count}, captions of {tokens} tokens, fp32; medians of "
        f"{options.steps} updates each, in turn, with quartiles; {clock_name(device)}. Ratio "
        f"**{none / most:.2f}x** (of turns: {paired_ratio(seconds['80% dropped'], seconds['0% dropped'])}), image "
        f"tower alone {(none - fixed) / (most - fixed):.2f}x.",
    )


def take_turns(
    rivals: dict[str, Callable[[], float]], steps: int, device: torch.device
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each call, each kind once a round so that a drifting clock meets all; and the last values."""
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    values: dict[str, float] = {}
    names = list(rivals)
    for number in range(WARM_UP + steps):
        for name in names if number % 2 else reversed(names):
            started = clock(device)
            values[name] = rivals[name]()
            if number >= WARM_UP:
                seconds[name].append(clock(device) - started)
    return seconds, values


def clock(device: torch.device) -> float:
    """Seconds; those of this process alone where it is one thread on a CPU, which others may want at the same time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


def clock_name(device: torch.device) -> str:
    if device.type == "cuda":
        return "wall time"
    threads = torch.get_num_threads()
    return "CPU time of one thread" if threads == 1 else f"wall time of {threads} threads"


def spread(seconds: list[float]) -> str:
    """Median and quartiles in milliseconds."""
    low, middle, high = (1000 * value for value in statistics.quantiles(seconds, n=4))
    return f"{middle:.0f} ({low:.0f}-{high:.0f})"


def paired_ratio(ours: list[float], theirs: list[float]) -> str:
    """Quartiles of the ratios within each round."""
    low, middle, high = statistics.quantiles([b / a for a, b in zip(ours, theirs, strict=True)], n=4)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def millions(model: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.2f}"


def print_profile(update: Callable[[], Any], device: torch.device, rows: int = 20) -> None:
    """torch.profiler's operators of one update, by their own time on the device."""
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    update()
    with profile(activities=kinds) as taken:
        update()
    by = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(taken.key_averages().table(sort_by=by, row_limit=rows, max_name_column_width=60))


def small_clip() -> ModelConfig:
    """CLIP with a class token, of ViT-Ti's size."""
    fields = load_architecture("clip-b16").model_dump()
    fields["embed_dim"] = EMBED_DIM
    fields["image"]["trunk_args"] = {"embed_dim": SIZE["width"], "num_heads": SIZE["heads"], "depth": SIZE["layers"]}
    fields["text"]["encoder"] |= TEXT
    return parse_model_config(fields, where="the benchmark")


def native(device: torch.device) -> nn.Module:
    """open_clip's own class of that size."""
    vision = {"layers": SIZE["layers"], "width": SIZE["width"], "head_width": SIZE["width"] // SIZE["heads"]}
    vision |= {"patch_size": 16, "image_size": 224}
    text = {"context_length": 77, "vocab_size": 49408, **TEXT}
    torch.manual_seed(0)
    return open_clip.CLIP(EMBED_DIM, vision, text, output_dict=True).to(device)


class InOpenClip(nn.Module):
    """A copy of a clippy model as open_clip's loop calls it."""

    def __init__(self, model: Clippy, config: ModelConfig) -> None:
        super().__init__()
        self.model = Clippy(config, tokenizer_files=None)
        self.model.load_state_dict(model.state_dict())

    @property
    def logit_scale(self) -> Tensor:
        """Its logarithm, which the loop clamps."""
        return self.model.log_logit_scale

    def forward(self, images: Tensor, texts: Tensor) -> dict[str, Tensor]:
        return {
            "image_features": self.model.pool(self.model.image_tokens(images)),
            "text_features": self.model.text_vectors(texts),
            "logit_scale": self.logit_scale.exp(),
        }


class OpenClipUpdate:
    """open_clip_train's train_one_epoch over the one batch of ``ours``; calling it gives the loss."""

    def __init__(self, model: nn.Module, ours: Update, precision: str) -> None:
        assert ours.batch.images is not None and ours.batch.token_ids is not None
        self._model, self._loss = model, _NotedLoss(open_clip.ClipLoss(cache_labels=True))
        self._batch = (ours.model.preprocess.normalize(ours.batch.images), ours.batch.token_ids)
        self._args = argparse.Namespace(
            device=str(ours.device),
            precision={"fp32": "fp32", "bf16": "amp_bf16"}[precision],
            grad_clip_norm=CLIP,
            accum_freq=1,
            distill=False,
            skip_scheduler=False,
            horovod=False,
            rank=1,  # not the first process: it logs nothing
            world_size=1,
            log_every_n_steps=1_000_000,
        )
        plain = [p for n, p in model.named_parameters() if p.ndim < 2 or "bias" in n or "logit_scale" in n]
        known = {id(parameter) for parameter in plain}
        rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
        groups = [{"params": plain, "weight_decay": 0.0}, {"params": rest, "weight_decay": DECAY}]
        self._optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS)  # as open_clip_train.main builds it
        self._scheduler = cosine_lr(self._optimizer, LR, 0, 1_000_000)

    num_batches = num_samples = 1

    @property
    def dataloader(self) -> OpenClipUpdate:
        return self

    def set_epoch(self, epoch: int) -> None:
        """Asked for by the loop."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield self._batch

    def __call__(self) -> float:
        train_one_epoch(
            self._model, {"train": self}, self._loss, 0, self._optimizer, None, self._scheduler, None, self._args
        )
        return float(self._loss.value)


class _NotedLoss:
    def __init__(self, loss: nn.Module) -> None:
        self._loss, self.value = loss, torch.zeros(())

    def __call__(self, **arguments: Any) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self._loss(**arguments)
        self.value = losses["contrastive_loss"].detach()
        return losses
