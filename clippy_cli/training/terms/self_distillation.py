"""A trunk that teaches itself from images alone, so that its patches group: DINO and iBOT beside the contrastive loss.

A student, the model's trunk, and a teacher, its running mean, see two crops of each image. The student's class token
has to say of one crop what the teacher's says of the other (DINO, arXiv 2104.14294, section 3.1: centering and
sharpening keep the teacher from one answer for all). Some of the student's patches are masked, and its tokens there
have to say what the teacher's do, which sees the whole crop (iBOT, arXiv 2111.07832, section 3.1; as in DINOv2, only
masked patches go through the head). Both share one head, as in iBOT.

Shapes: B images of this process, V = 2B crops (first crops, then second), N patches, M masked patches of all crops,
F trunk width, K prototypes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clippy_cli.errors import ClippyError
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.image_tower import ImageTower
from clippy_cli.model.vit_tower import VitTower
from clippy_cli.processes import ALONE, Processes
from clippy_cli.recipe.terms import SelfDistillationRecipe
from clippy_cli.training.forward import autocast
from clippy_cli.training.loader import Batch
from clippy_cli.training.order import BatchShare, mask_generator
from clippy_cli.training.terms.base import Pairs, Term, TermSetup
from clippy_cli.training.views import VIEWS


class Head(nn.Module):
    """(...,F) tokens -> (...,K) float32 cosines with prototypes; three layers, then unit vectors (DINO, appendix C)."""

    def __init__(self, features: int, recipe: SelfDistillationRecipe) -> None:
        super().__init__()
        hidden, bottleneck = recipe.hidden_dim, recipe.bottleneck_dim
        layers = [nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden, bottleneck))
        self.prototypes = nn.Parameter(torch.randn(recipe.prototypes, bottleneck))

    def forward(self, tokens: Tensor) -> Tensor:
        cosines = F.linear(F.normalize(self.mlp(tokens), dim=-1), F.normalize(self.prototypes, dim=-1))
        return cosines.float()


@dataclass(frozen=True)
class Targets:
    """The teacher's probabilities for some crops: (V,K) of class tokens, (M,K) of masked patches."""

    class_tokens: Tensor
    patches: Tensor


class SelfDistillation(Term):
    """The term, with its head, mask token, teacher and centers.

    Attributes:
        head, mask_token: the student's; they learn, and are not part of the model that is written.
        teacher, teacher_head: running means of the model's trunk and of ``head``; no gradient reaches them.
        class_center, patch_center: (K,) running means of the teacher's cosines, over all processes.
    """

    def __init__(
        self,
        model: Clippy,
        recipe: SelfDistillationRecipe,
        *,
        batch_size: int,
        total_steps: int,
        seed: int,
        precision: str = "fp32",
        processes: Processes = ALONE,
    ) -> None:
        self._student = student_tower(model.image)
        self._model, self._recipe, self._precision = model, recipe, precision
        self._total_steps, self._seed, self._processes = total_steps, seed, processes
        self._share = BatchShare(batch_size, processes.rank, processes.size)
        width = self._student.trunk.embed_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = Head(width, recipe)
        device = model.device
        self.head = head.to(device)
        self.mask_token = nn.Parameter(torch.zeros(width, device=device))
        self.teacher = copy.deepcopy(self._student).requires_grad_(False).eval()
        self.teacher.projection = nn.Identity()
        self.teacher_head = copy.deepcopy(self.head).requires_grad_(False).eval()
        self.class_center = torch.zeros(recipe.prototypes, device=device)
        self.patch_center = torch.zeros(recipe.prototypes, device=device)
        self._sums = torch.zeros(2, recipe.prototypes + 1, device=device)  # of this step's cosines, and their number

    @property
    def learning_rate(self) -> float | None:
        return self._recipe.head_lr

    def parameters(self) -> Sequence[nn.Parameter]:
        return (*self.head.parameters(), self.mask_token)

    def loss(self, batch: Batch, pairs: Pairs) -> dict[str, Tensor]:
        assert batch.views is not None  # the feed makes them where this term has a weight
        grid = self._student.grid_size(*batch.views.shape[-2:])
        masks = self.draw_masks(pairs.step, grid[0] * grid[1])  # (B,2,N)
        size = pairs.shape.chunk_size or len(batch)
        parts = []
        for start in range(0, len(batch), size):
            rows = slice(start, start + size)
            crops, masked = (crops_first(values[rows]).to(self._model.device) for values in (batch.views, masks))
            targets = self.teach(crops, masked)
            if size >= len(batch):
                parts.append(self._student_losses(crops, masked, targets))
            else:  # computed again when gradients are wanted, so that memory is that of a chunk
                parts.append(checkpoint(self._student_losses, crops, masked, targets, use_reentrant=False))
        dino, ibot = torch.stack(parts).sum(dim=0) * self._recipe.weight / (VIEWS * len(batch))
        return {"dino": dino, "ibot": ibot}

    def draw_masks(self, step: int, patches: int) -> Tensor:
        """(B,2,N) bool: each crop masks a share of its own of its patches, at random places; at least one."""
        rng, count = mask_generator(self._seed, step), self._share.batch_size
        places = rng.random((count, VIEWS, patches)).argsort(axis=-1).argsort(axis=-1)  # rank of each patch
        shares = rng.uniform(*self._recipe.mask_share, (count, VIEWS, 1))
        return torch.from_numpy(places < np.maximum(1, np.rint(shares * patches)))[self._share.rows]

    @torch.no_grad()
    def teach(self, crops: Tensor, masked: Tensor) -> Targets:
        """(V,3,S,S) uint8, (V,N) bool -> targets by the centers so far; the sums for the next centers grow."""
        tower = self.teacher
        with autocast(self._precision, self._model.device):
            tokens = _last_block(tower, tower.features(self._model.preprocess.normalize(crops)))  # (V,P+N,F)
            class_tokens = self.teacher_head(tokens[:, 0])  # (V,K)
            patches = self.teacher_head(tokens[:, tower.num_prefix_tokens :][masked])  # (M,K)
        for row, cosines in enumerate((class_tokens, patches)):
            self._sums[row, :-1] += cosines.sum(dim=0)
            self._sums[row, -1] += len(cosines)
        temperature = self._recipe.teacher_temperature
        return Targets(
            ((class_tokens - self.class_center) / temperature).softmax(dim=-1),
            ((patches - self.patch_center) / temperature).softmax(dim=-1),
        )

    def _student_losses(self, crops: Tensor, masked: Tensor, targets: Targets) -> Tensor:
        """(2,): sums over the crops of the class tokens' loss, and of the mean loss of each crop's masked patches."""
        tower = self._student
        with autocast(self._precision, self._model.device):
            pixels = self._model.preprocess.normalize(crops)
            tokens = _last_block(tower, tower.masked_features(pixels, masked, self.mask_token))  # (V,P+N,F)
            class_tokens = self.head(tokens[:, 0])  # (V,K)
            patches = self.head(tokens[:, tower.num_prefix_tokens :][masked])  # (M,K)
        temperature = self._recipe.student_temperature
        other_crop = targets.class_tokens.roll(len(crops) // VIEWS, dims=0)
        dino = cross_entropy(other_crop, class_tokens / temperature).sum()
        numbers = masked.sum(dim=1)  # (V,)
        each = cross_entropy(targets.patches, patches / temperature)  # (M,)
        ibot = (each / numbers.repeat_interleave(numbers)).sum()
        return torch.stack([dino, ibot])

    @torch.no_grad()
    def after_update(self, step: int) -> None:
        """The teacher follows the student, and the centers the teacher's cosines (DINO, equation 4)."""
        start = self._recipe.momentum
        momentum = 1 - (1 - start) * (1 + math.cos(math.pi * step / self._total_steps)) / 2
        followers = ((self.teacher.trunk, self._student.trunk), (self.teacher_head, self.head))
        for teacher, student in followers:
            for kept, new in zip(teacher.parameters(), student.parameters(), strict=True):
                kept.lerp_(new, 1 - momentum)
        if self._processes.size > 1:
            dist.all_reduce(self._sums)
        means = self._sums[:, :-1] / self._sums[:, -1:]
        for center, mean in zip((self.class_center, self.patch_center), means, strict=True):
            center.lerp_(mean, 1 - self._recipe.center_momentum)
        self._sums.zero_()

    def state(self) -> dict[str, Tensor]:
        modules = {"head": self.head, "teacher_head": self.teacher_head, "teacher": self.teacher.trunk}
        tensors = {f"{name}.{key}": value for name, of in modules.items() for key, value in of.state_dict().items()}
        own = {"mask_token": self.mask_token.detach()}
        return tensors | own | {"class_center": self.class_center, "patch_center": self.patch_center}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        for name, value in self.state().items():
            value.copy_(state[name])


def build(setup: TermSetup) -> SelfDistillation:
    """The term for a trunk that learns."""
    recipe = setup.recipe
    return SelfDistillation(
        setup.model,
        recipe.train.self_distillation,
        batch_size=recipe.train.batch_size,
        total_steps=setup.total_steps,
        seed=recipe.seed,
        precision=recipe.train.precision,
        processes=setup.processes,
    )


def student_tower(tower: ImageTower) -> VitTower:
    """The tower as one whose patches can be masked; ClippyError where it is none."""
    if not isinstance(tower, VitTower) or not tower.num_prefix_tokens:
        raise ClippyError(
            f"train.self_distillation needs a vision transformer with a class token; {tower.config.trunk} is none.",
            "Choose another architecture, or train without: --set train.self_distillation.weight=0",
        )
    return tower


def cross_entropy(targets: Tensor, logits: Tensor) -> Tensor:
    """(...,K) probabilities, (...,K) logits -> (...) in nats."""
    return -(targets * logits.log_softmax(dim=-1)).sum(dim=-1)


def crops_first(values: Tensor) -> Tensor:
    """(B,2,...) -> (2B,...): the first crops of all images, then the second."""
    return values.transpose(0, 1).flatten(0, 1)


def _last_block(tower: ImageTower, features: Tensor) -> Tensor:
    """(V,P+N,F*blocks) -> (V,P+N,F) of the deepest block that the tower takes."""
    return tower.block_features(features, max(tower.blocks))
