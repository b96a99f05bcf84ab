"""Turn a supervised trunk into one whose patches group, on photos without captions or labels: DINO and iBOT in small.

A student and a teacher, its running mean, see two crops of each photo. The student's class token has to say of one crop
what the teacher's says of the other (DINO, arXiv 2104.14294, section 3.1: centring and sharpening keep the teacher from
one answer for all). Part of the student's patches are hidden, and its tokens there have to say what the teacher's do,
which sees the whole crop (iBOT, arXiv 2111.07832, section 3.1). What is written is the teacher's trunk, in timm's
layout, for ``model.image.init``.

    python benchmarks/ablations/self_distillation.py --data-root DIR --trunk FILE --out trunk.safetensors
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.transforms import v2

from clippy_cli.data.captions import file_bytes
from clippy_cli.data.images import find_images, to_tensor
from clippy_cli.data.pictures import EncodedPicture, Picture
from clippy_cli.data.shards import ShardSource
from clippy_cli.data.transforms import TrainTransform
from clippy_cli.errors import ClippyError
from clippy_cli.files import write_whole
from clippy_cli.model.base import Preprocess
from clippy_cli.model.build import read_weights
from clippy_cli.model.device import resolve_device
from clippy_cli.model.image_tower import create_trunk
from clippy_cli.model.registry import load_architecture

STEPS, BATCH, RESOLUTION = 60, 64, 128
# What follows is DINO's and iBOT's, but for sizes that suit a small trunk and a short run.
PROTOTYPES, HIDDEN, BOTTLENECK = 1024, 512, 128
TRUNK_LR, HEAD_LR, WEIGHT_DECAY = 1e-4, 1e-3, 0.04
TEACHER_MOMENTUM = 0.98  # at the start; it goes to 1. DINO's 0.996 would leave a teacher of so few steps where it was
CENTRE_MOMENTUM = 0.9
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.04
CROP_SCALE = (0.32, 1.0)
HIDDEN_SHARE = (0.1, 0.5)
NUM_PREFIX = 1


@dataclass(frozen=True)
class Losses:
    """Of one step. ``used`` is how many prototypes the teacher's mean answer spreads over; 1 means collapse."""

    class_token: float
    patches: float
    used: float

    def __str__(self) -> str:
        return f"class token {self.class_token:.3f}, patches {self.patches:.3f}, prototypes in use {self.used:.0f}"


class Head(nn.Module):
    """(...,F) tokens -> (...,K) cosines with prototypes; three layers, then unit vectors (DINO, appendix C)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(features, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, BOTTLENECK)
        )
        self.prototypes = nn.Parameter(torch.randn(PROTOTYPES, BOTTLENECK))

    def forward(self, tokens: Tensor) -> Tensor:
        return F.linear(F.normalize(self.mlp(tokens), dim=-1), F.normalize(self.prototypes, dim=-1))


class Branch(nn.Module):
    """A trunk with the one head that class and patch tokens share, and what stands for a hidden patch."""

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self.trunk: Any = trunk
        self.head = Head(trunk.embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(trunk.embed_dim))

    def forward(self, images: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(B,3,H,W) normalised, optional (B,N) hidden patches -> (B,1+N,K) float32, class token first."""
        trunk = self.trunk
        patches = trunk.patch_embed(images)  # (B,h,w,F)
        if hidden is not None:
            patches = torch.where(hidden.view(*patches.shape[:3], 1), self.mask_token.to(patches.dtype), patches)
        tokens = trunk.norm(trunk.blocks(trunk.norm_pre(trunk._pos_embed(patches))))  # (B,1+N,F)
        answers: Tensor = self.head(tokens)
        return answers.float()


class Centre:
    """The running mean that is taken off the teacher's answers (DINO, equation 4)."""

    def __init__(self) -> None:
        self._mean: Tensor | None = None

    def sharpened(self, answers: Tensor) -> Tensor:
        """(...,K) teacher's cosines -> probabilities; the mean then takes in these answers."""
        batch = answers.flatten(0, -2).mean(dim=0)
        mean = batch if self._mean is None else self._mean
        self._mean = CENTRE_MOMENTUM * mean + (1 - CENTRE_MOMENTUM) * batch
        return ((answers - mean) / TEACHER_TEMPERATURE).softmax(dim=-1)


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
    or the loss is no number.
    """
    rng = np.random.default_rng(seed)
    architecture = load_architecture("clippy-ti")
    pixels = architecture.preprocess
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        trunk = create_trunk(architecture.image, dynamic_img_size=True)
        preprocess = Preprocess(pixels.mean, pixels.std, trunk.patch_embed.patch_size[0], resolution)
        state = {name: value.float() for name, value in read_weights(start, "--trunk").items()}
        try:
            trunk.load_state_dict({name: value for name, value in state.items() if not name.startswith("head.")})
        except RuntimeError as error:
            raise ClippyError(
                f"{start} does not fit {architecture.image.trunk}: {str(error).splitlines()[-1]}"
            ) from None
        student = Branch(trunk).to(device)
        teacher = copy.deepcopy(student).requires_grad_(False).eval()
        optimizer = torch.optim.AdamW(_groups(student), betas=(0.9, 0.999))
        centres = Centre(), Centre()
        losses: list[Losses] = []
        begun = time.perf_counter()
        for step in range(steps):
            chosen = [readers[index]() for index in rng.choice(len(readers), batch_size, replace=False)]
            images = preprocess.normalize(views(chosen, rng, resolution).to(device))  # (2B,3,H,W)
            hidden = draw_hidden(len(images), (resolution // preprocess.patch_size) ** 2, rng).to(device)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * _rate(step, steps)
            with torch.autocast(device.type, dtype=torch.bfloat16):
                with torch.no_grad():
                    taught = teacher(images)
                answers = student(images, hidden)
            class_token, patches, used = objective(answers, taught, hidden, centres)
            loss = class_token + patches
            if not loss.isfinite():
                raise ClippyError(
                    f"The loss is {loss.item()} at step {step + 1}.", "Give another --seed, or less --steps."
                )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(student.parameters(), 3.0)
            optimizer.step()
            _follow(teacher, student, 1 - (1 - TEACHER_MOMENTUM) * (1 + math.cos(math.pi * step / steps)) / 2)
            losses.append(Losses(class_token.item(), patches.item(), used))
            if step % 10 == 0 or step == steps - 1:
                say(f"self-distillation, step {step + 1} of {steps}, {time.perf_counter() - begun:.0f} s: {losses[-1]}")
    tensors = {name: value.cpu().contiguous() for name, value in teacher.trunk.state_dict().items()}
    write_whole(out, lambda stream: save_file(tensors, stream.name))
    return losses


def objective(
    answers: Tensor, taught: Tensor, hidden: Tensor, centres: tuple[Centre, Centre]
) -> tuple[Tensor, Tensor, float]:
    """Loss of the class tokens, loss of the hidden patches, and prototypes in use.

    ``answers`` and ``taught`` are (2B,1+N,K) cosines of student and teacher, the B first crops before the B second;
    ``hidden`` is (2B,N). The class token is told the other crop's answer, a patch its own (DINO, equation 3; iBOT, 2).
    """
    half = len(answers) // 2
    targets = centres[0].sharpened(taught[:, 0])
    class_token = cross_entropy(targets.roll(half, dims=0), answers[:, 0]).mean()
    patch_targets = centres[1].sharpened(taught[:, NUM_PREFIX:])
    each = cross_entropy(patch_targets, answers[:, NUM_PREFIX:])  # (2B,N)
    patches = ((each * hidden).sum(dim=1) / hidden.sum(dim=1).clamp(min=1)).mean()
    mean = targets.mean(dim=0)
    return class_token, patches, float(torch.special.entr(mean).sum().exp())


def cross_entropy(targets: Tensor, answers: Tensor) -> Tensor:
    """(...,K) probabilities, (...,K) student's cosines -> (...) in nats."""
    return -(targets * (answers / STUDENT_TEMPERATURE).log_softmax(dim=-1)).sum(dim=-1)


def draw_hidden(count: int, patches: int, rng: np.random.Generator) -> Tensor:
    """(count,patches) bool: each image hides a share of its own, drawn from ``HIDDEN_SHARE``, at random places."""
    places = rng.random((count, patches)).argsort(axis=1).argsort(axis=1)  # rank of each patch
    shares = np.maximum(1, np.rint(rng.uniform(*HIDDEN_SHARE, (count, 1)) * patches))
    return torch.from_numpy(places < shares)


def views(pictures: Sequence[Picture], rng: np.random.Generator, side: int) -> Tensor:
    """Two random crops of each picture, mirrored, recoloured and blurred at random: (2B,3,H,W) uint8."""
    crop = TrainTransform(CROP_SCALE, flip=True)
    change = v2.Compose(
        [
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.RandomApply([v2.GaussianBlur(5, (0.1, 1.5))], p=0.3),
        ]
    )
    crops = to_tensor([crop(picture, rng, side) for _ in range(2) for picture in pictures])
    return torch.stack([change(image) for image in crops])


def _groups(student: Branch) -> list[dict[str, object]]:
    """Trunk and head at their own rates; vectors and tables without decay."""
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in student.named_parameters():
        decays = parameter.ndim >= 2 and not name.endswith(("pos_embed", "cls_token"))
        rate = TRUNK_LR if name.startswith("trunk.") else HEAD_LR
        groups.setdefault((rate, WEIGHT_DECAY if decays else 0.0), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: a tenth of the steps upwards, then a half cosine."""
    warm_up = max(1, steps // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


@torch.no_grad()
def _follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    for kept, new in zip(teacher.parameters(), student.parameters(), strict=True):
        kept.lerp_(new, 1 - momentum)


if __name__ == "__main__":
    main()
