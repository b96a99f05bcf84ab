"""Turn a supervised trunk into one whose patches group, on photos without captions or labels: DINO and iBOT in small.

This is the term that ``train.self_distillation`` adds to a recipe (see its module), alone and before any caption is
seen. What is written is the teacher's trunk, in timm's layout, for ``model.image.init``.

    python benchmarks/ablations/self_distillation.py --data-root DIR --trunk FILE --out trunk.safetensors
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from clippy_cli.data.captions import file_bytes
from clippy_cli.data.images import find_images
from clippy_cli.data.pictures import EncodedPicture, Picture
from clippy_cli.data.shards import ShardSource
from clippy_cli.errors import ClippyError
from clippy_cli.files import write_whole
from clippy_cli.model.build import load_trunk
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.device import resolve_device
from clippy_cli.model.registry import load_architecture
from clippy_cli.recipe.terms import SelfDistillationRecipe
from clippy_cli.training.loader import Batch
from clippy_cli.training.optim import UNDECAYED, learning_rate_factor, set_learning_rate
from clippy_cli.training.step_shapes import StepShape
from clippy_cli.training.terms.base import Pairs
from clippy_cli.training.terms.self_distillation import SelfDistillation
from clippy_cli.training.views import ViewTransform

STEPS, BATCH, RESOLUTION = 60, 64, 128
TRUNK_LR, HEAD_LR, WEIGHT_DECAY, GRAD_CLIP = 1e-4, 1e-3, 0.04, 3.0
# DINO's and iBOT's but for sizes that suit a small trunk, and a teacher that moves within so few steps.
TERM = SelfDistillationRecipe(weight=1.0, momentum=0.98, prototypes=1024, hidden_dim=512, bottleneck_dim=128)


@dataclass(frozen=True)
class Losses:
    """Of one step, in nats."""

    class_token: float
    patches: float

    def __str__(self) -> str:
        return f"class token {self.class_token:.3f}, patches {self.patches:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="folder of flickr8k, BSDS500, imagenet-sample")
    parser.add_argument("--trunk", type=Path, required=True, help="weights of vit_tiny_patch16_224 to start from")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batch-size", type=int, default=BATCH)
    parser.add_argument("--resolution", type=int, default=RESOLUTION)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    try:
        losses = distil(
            options.trunk,
            options.out,
            photos(options.data_root),
            steps=options.steps,
            batch_size=options.batch_size,
            resolution=options.resolution,
            seed=options.seed,
            device=resolve_device(options.device),
        )
    except ClippyError as error:
        sys.exit(f"{error.message}\n{error.hint or ''}")
    print(f"first step: {losses[0]}\nlast step: {losses[-1]}\nwritten to {options.out}")


def photos(root: Path) -> list[Callable[[], Picture]]:
    """Readers of training photos, none of which a figure is measured on; ClippyError where a set is missing."""
    shards = ShardSource([str(root / "flickr8k" / "train-*.tar")])
    patterns = (root / "BSDS500" / "images" / "train" / "*.jpg", root / "imagenet-sample" / "*" / "*.JPEG")
    files = [path for pattern in patterns for path in find_images([str(pattern)])]
    return [
        *(partial(_sample, shards, index) for index in range(len(shards))),
        *(partial(_file, path) for path in files),
    ]


def _sample(shards: ShardSource, index: int) -> Picture:
    return shards.read(index).picture


def _file(path: Path) -> Picture:
    return EncodedPicture(file_bytes(path), str(path))


def distil(
    start: Path,
    out: Path,
    readers: Sequence[Callable[[], Picture]],
    *,
    steps: int,
    batch_size: int = BATCH,
    resolution: int = RESOLUTION,
    seed: int = 0,
    device: torch.device,
    say: Callable[[str], object] = print,
) -> list[Losses]:
    """Distil the trunk in ``start``, write it to ``out``, and return the losses of each step.

    All draws follow ``seed``; torch's global random state is left as it was. ClippyError where ``start`` does not fit
    or the loss is inf or NaN.
    """
    rng, crop = np.random.default_rng(seed), ViewTransform(TERM.crop_scale, TERM.color_jitter)
    with torch.random.fork_rng(devices=[]):
        model = Clippy(load_architecture("clippy-ti"))
    load_trunk(model.image, str(start))
    model = model.to(device)
    term = SelfDistillation(model, TERM, batch_size=batch_size, total_steps=steps, seed=seed, precision="bf16")
    groups = _groups(model, term)
    learning = [parameter for group in groups for parameter in group["params"]]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999))
    losses: list[Losses] = []
    begun, nothing = time.perf_counter(), torch.zeros((), device=device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for step in range(steps):
            chosen = [readers[index]() for index in rng.choice(len(readers), batch_size, replace=False)]
            views = np.stack([crop(picture, rng, resolution) for picture in chosen])  # (B,2,S,S,3)
            batch = Batch(list(range(batch_size)), [], views=torch.from_numpy(views).permute(0, 1, 4, 2, 3))
            pairs = Pairs(nothing, nothing, nothing, nothing, step, StepShape(resolution, 0.0, None))
            set_learning_rate(optimizer, learning_rate_factor(step, steps, max(1, steps // 10), "cosine"))
            values = term.loss(batch, pairs)
            loss = torch.stack(list(values.values())).sum()
            if not loss.isfinite():
                raise ClippyError(
                    f"The loss is {loss.item()} at step {step + 1}.", "Give another --seed, or fewer --steps."
                )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(learning, GRAD_CLIP)
            optimizer.step()
            term.after_update(step)
            losses.append(Losses(values["dino"].item(), values["ibot"].item()))
            if step % 10 == 0 or step == steps - 1:
                say(f"self-distillation, step {step + 1} of {steps}, {time.perf_counter() - begun:.0f} s: {losses[-1]}")
    tensors = {name: value.cpu().contiguous() for name, value in term.teacher.trunk.state_dict().items()}
    write_whole(out, lambda stream: save_file(tensors, stream.name))
    return losses


def _groups(model: Clippy, term: SelfDistillation) -> list[dict[str, Any]]:
    """Trunk and head at their own rates; vectors and tables without decay."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    named = [(name, parameter, TRUNK_LR) for name, parameter in model.image.trunk.named_parameters()]
    named += [("", parameter, HEAD_LR) for parameter in term.parameters()]
    for name, parameter, rate in named:
        decays = parameter.ndim >= 2 and not any(table in name for table in UNDECAYED)
        groups.setdefault((rate, WEIGHT_DECAY if decays else 0.0), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


if __name__ == "__main__":
    main()
