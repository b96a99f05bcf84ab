"""CLIP-DINOiser: each patch of MaskCLIP becomes the mean of the patches that a learned convolution finds alike.

Shapes: see ``model/base.py``; W the width of CLIP's image tower.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clippy_cli.errors import ClippyError
from clippy_cli.model.build import read_weights
from clippy_cli.model.choices import DenseMode, PositionResampling
from clippy_cli.model.compat import open_clip as compat
from clippy_cli.model.compat.torch import outputs_of
from clippy_cli.model.dense.attention import query_parts
from clippy_cli.model.sources.clip_dinoiser import CLIP, PREFIX
from clippy_cli.model.sources.face import ForeignModel
from clippy_cli.model.sources.open_clip_model import OpenClipModel, clip_patches, load_open_clip
from clippy_cli.model.sources.parts import Parts, shown_name

_READ = -3  # the block whose tokens, normed for its feed-forward branch, the convolutions were trained on
_ALIKE = 0.2  # correlations below it count as none
_BACKGROUND = ("bkg_decoder.weight", "bkg_decoder.bias")


class ClipDinoiser(ForeignModel):
    """CLIP with its own image and text embeddings, and patches pooled by correlation (arXiv 2312.12359, section 3.2).

    The published background filter is not applied: it writes class 0 into a softmax over a set's classes.
    """

    def __init__(self, name: str, clip: OpenClipModel, correlate: nn.Conv2d) -> None:
        parts = nn.ModuleDict({"clip": clip.module, "correlate": correlate})
        super().__init__(name, parts, clip.preprocess, clip.defaults.logit_scale)
        self._clip, self._visual, self._correlate = clip, clip.visual, correlate
        self.positions = PositionResampling.PLAIN  # as the authors' code, which MaskCLIP's is a part of

    def image_vectors(self, images: Tensor) -> Tensor:
        return self._clip.image_vectors(images)

    def text_vectors(self, texts: list[str]) -> Tensor:
        return self._clip.text_vectors(texts)

    def patch_vectors(self, images: Tensor) -> Tensor:
        with outputs_of(self._visual.transformer.resblocks[_READ].ln_2) as outputs:
            patches = clip_patches(self._visual, images, DenseMode.MASKCLIP, positions=self.positions)
        planes = outputs[-1][:, 1:].mT.reshape(len(images), -1, *patches.shape[1:3])  # (B,1+N,W) -> (B,W,h,w)
        guides = self._correlate(planes).flatten(2).mT  # (B,N,F)
        return pool_alike(patches.flatten(1, 2), guides, least=_ALIKE).view_as(patches)


def pool_alike(patches: Tensor, guides: Tensor, *, least: float) -> Tensor:
    """(B,N,D) patches, (B,N,F) guides -> (B,N,D): means weighted by the guides' cosines, without those below ``least``.

    Scores are computed for some patches at a time.
    """
    unit = F.normalize(guides, dim=-1)
    pooled = []
    for part in query_parts(unit.shape[1], unit.shape[0] * unit.shape[1]):
        weights = unit[:, part] @ unit.mT  # (B,c,N)
        weights = weights.masked_fill(weights < least, 0.0)
        pooled.append(weights @ patches / (weights.sum(dim=-1, keepdim=True) + 1e-6))
    return torch.cat(pooled, dim=1)


def load_clip_dinoiser(parts: Parts, device: torch.device) -> ClipDinoiser:
    """ClippyError where the file cannot be read, or its convolutions do not fit CLIP's image tower."""
    correlate = read_convolution(parts)
    clip = load_open_clip(parts.named["clip"] or CLIP, device)
    compat.require_openable(clip.visual)
    depth, width = len(clip.visual.transformer.resblocks), clip.visual.conv1.out_channels
    if depth < -_READ or width != correlate.in_channels:
        raise ClippyError(
            f"{parts.file} was trained on features of width {correlate.in_channels}, {-_READ} blocks before the end; "
            f"{clip.name} has {depth} blocks of width {width}.",
            f"Name the CLIP that it was trained with: {PREFIX}:FILE,clip=ARCH/WEIGHTS",
        )
    return ClipDinoiser(shown_name(parts), clip, correlate.to(device))


def read_convolution(parts: Parts) -> nn.Conv2d:
    """The convolution W -> F whose outputs are correlated; ClippyError for a file without it."""
    state = read_weights(parts.file, PREFIX, hint=f"Check what follows {PREFIX}:")
    kernel, bias = state.get("obj_proj.weight"), state.get("obj_proj.bias")
    if kernel is None or bias is None or kernel.ndim != 4 or kernel.shape[:1] != bias.shape or not _odd_square(kernel):
        raise ClippyError(
            f"{parts.file} is no checkpoint of CLIP-DINOiser: it holds {', '.join(sorted(state)[:5]) or 'nothing'}; "
            f"looked for a convolution obj_proj (with {' and '.join(_BACKGROUND)} beside it, which are not used).",
            "Take the published file checkpoints/last.pt",
        )
    features, width, side, _ = kernel.shape
    built = nn.Conv2d(width, features, side, padding=side // 2, padding_mode="replicate")
    built.load_state_dict({"weight": kernel.float(), "bias": bias.float()})
    return built


def _odd_square(kernel: Tensor) -> bool:
    return kernel.shape[2] == kernel.shape[3] and kernel.shape[2] % 2 == 1
