"""GroupViT's own rule for masks: a pixel takes the class of its group, among the best classes of what the model sees.

As its public code evaluates (NVlabs/GroupViT, segmentation/evaluation/group_vit_seg.py), window by window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.errors import ClippyError
from clippy_cli.inference.features import model_input
from clippy_cli.inference.segment import Segmenter
from clippy_cli.inference.windows import PixelWindows
from clippy_cli.model.base import GroupsPatches, VisionLanguageModel

_LARGEST_SCALE = 100.0


@dataclass(frozen=True)
class GroupedWindows:
    """Windows of which each pixel has one group, and the classes that may be found in them.

    Attributes:
        windows: where they lie; their predictions are averaged at pixels.
        best_classes: how many classes a window may hold: those that its pooled embedding fits best.
        threshold: a background class takes pixels whose class is less probable than this, or than the surest class of
            any group of the window where that is lower.
    """

    windows: PixelWindows
    best_classes: int
    threshold: float | None

    def encode(self, model: VisionLanguageModel, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """B images (H,W,3) uint8 of one size -> (B,n,G+1,D+h*w), what :meth:`predictions` takes apart.

        A window's G groups, each with its embedding and how far each of the h*w patches belongs to it; then its pooled
        embedding, with zeros behind. ClippyError for a model without groups.
        """
        if not isinstance(model, GroupsPatches):
            raise ClippyError(
                f"{model.name} does not sort patches into groups, which this protocol takes classes from.",
                "Take a GroupViT, such as --model hf:nvidia/groupvit-gcc-yfcc, or another --protocol.",
            )
        packed = []
        for seen in self.windows.crops(model_input(model, images), model.preprocess.patch_size):
            grouped = model.embed_groups(seen)
            pooled = F.pad(grouped.pooled[:, None], (0, grouped.assignment[0, 0].numel()))  # (B,1,D+h*w)
            groups = torch.cat([grouped.groups, grouped.assignment.flatten(2)], dim=2)  # (B,G,D+h*w)
            packed.append(torch.cat([groups, pooled], dim=1).float())
        return torch.stack(packed, dim=1)

    def predictions(
        self, packed: Tensor, segmenter: Segmenter, background: int | None, height: int, width: int, patch_size: int
    ) -> Tensor:
        """(n,G+1,D+h*w) windows of an image of height x width pixels -> (C,height,width), their mean predictions.

        C are the classes that ``segmenter`` has entries for, and the ``background`` class.
        """
        codes = segmenter.entries.codes
        count = max(*codes, -1 if background is None else background) + 1

        def predict(window: Tensor, rows: int, columns: int) -> Tensor:
            h, w = rows // patch_size, columns // patch_size
            groups, assignment = window[:-1, : -h * w], window[:-1, -h * w :].view(1, -1, h, w)
            scale = min(segmenter.rule.logit_scale, _LARGEST_SCALE)
            logits = segmenter.vector_scores(groups) * scale  # (G,E)
            best = segmenter.vector_scores(window[-1:, : -h * w])[0].topk(min(self.best_classes, len(codes))).indices
            allowed = torch.full_like(logits, -torch.inf).index_fill_(1, best, 0.0)
            of_groups = logits.softmax(dim=1) * (logits + allowed).softmax(dim=1)  # (G,E)
            upsampled = F.interpolate(assignment, (rows, columns), mode="bilinear", align_corners=False)
            owner = upsampled[0].argmax(dim=0)  # (rows,columns)
            of_classes = of_groups.new_zeros(len(of_groups), count)
            for entry, code in enumerate(codes):  # of several entries of a class the highest counts
                of_classes[:, code] = torch.maximum(of_classes[:, code], of_groups[:, entry])
            if background is not None and self.threshold is not None:
                least = min(self.threshold, float(of_groups.max()))
                of_classes[:, background].masked_fill_(of_groups.amax(dim=1) < least, 1.0)
            return of_classes[owner].permute(2, 0, 1)  # (C,rows,columns)

        return self.windows.averaged(packed, predict, height, width)
