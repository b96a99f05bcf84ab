"""From a map of patch classes to one class for the image. K texts, C classes, h,w patch grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.errors import ClippyError

_MAX_CLASSES = 256  # the map is uint8


@dataclass(frozen=True)
class PatchVote:
    """What the patches of one image say.

    Attributes:
        label: the image's class, never the background.
        votes: (C,) patches of each class; 0 for the background, which does not vote.
        background_share: patches of the background class among all, in [0, 1].
        class_map: (h,w) uint8, the class of each patch, background included.
        fallback: whether votes did not decide, and the highest single similarity did.
    """

    label: int
    votes: tuple[int, ...]
    background_share: float
    class_map: NDArray[np.uint8]
    fallback: bool


def patch_votes(similarity: Tensor, classes: Sequence[int], background: int) -> PatchVote:
    """Cosines of patches and texts (K,h,w), the class of each text (K) -> the image's class by majority of its patches.

    Each patch takes the class of its best text, of equals the first. Patches of class ``background`` do not vote. The
    class with the most votes wins; where several have as many, or no patch votes at all, the one among them with the
    highest cosine at any patch of the image does, of equals the lowest. Classes are numbered from 0; several texts may
    share one, and where none is the background's all patches vote. C is the highest class plus 1.

    The paper (arXiv 2210.09996) classifies patches with three prompts; how their map becomes a class we
    did not find stated, so that this rule is ours.

    Raises:
        ClippyError: similarities that are not finite.
        ValueError: no patch, not one class a text, a class outside 0..255, or no class besides the background.
    """
    if similarity.ndim != 3 or not similarity.numel() or len(classes) != len(similarity):
        raise ValueError(f"similarities of shape {tuple(similarity.shape)} for {len(classes)} texts")
    if not 0 <= min(classes) <= max(classes) < _MAX_CLASSES or set(classes) == {background}:
        raise ValueError(f"classes {list(classes)} with background {background}: need others, all in 0..255")
    similarity = similarity.detach().cpu()
    if not bool(similarity.isfinite().all()):
        raise ClippyError("The model gave similarities of patches that are not finite", "Check the model's weights.")
    number = max(classes) + 1
    text_class = torch.tensor(classes)
    class_map = text_class[similarity.argmax(dim=0)]  # (h,w); argmax takes the first of equals
    patches = torch.bincount(class_map.flatten(), minlength=number).tolist()  # (h,w) -> (C,)
    peaks = {c: float(similarity[text_class == c].max()) for c in sorted(set(classes)) if c != background}
    most = max(patches[c] for c in peaks)
    leaders = [c for c in peaks if patches[c] == most]
    return PatchVote(
        label=max(leaders, key=peaks.__getitem__),  # of equals the first, hence the lowest
        votes=tuple(0 if c == background else votes for c, votes in enumerate(patches)),
        background_share=patches[background] / class_map.numel() if background in classes else 0.0,
        class_map=class_map.numpy().astype(np.uint8),
        fallback=most == 0 or len(leaders) > 1,
    )
