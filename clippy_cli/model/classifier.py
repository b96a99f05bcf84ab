"""The classifier that supervised trunk weights come with, which a tower itself has no use for."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from clippy_cli.errors import ClippyError
from clippy_cli.model.build import pretrained_trunk, read_weights
from clippy_cli.model.image_tower import ImageTower
from clippy_cli.model.vit_tower import VitTower

CLASSES = 1000


def read_classifier(tower: ImageTower, init: str) -> nn.Linear:
    """The map from the class token of the trunk's last block, normed, to the logits of ImageNet-1k's 1000 classes.

    ``init`` is where the trunk's weights come from, as in ``model.image.init``. ClippyError where they hold no such
    classifier, or the tower does not give that token.
    """
    if not isinstance(tower, VitTower) or tower.num_prefix_tokens == 0 or len(tower.trunk.blocks) not in tower.blocks:
        raise ClippyError(
            f"{tower.config.trunk} gives no class token of its last block, which a classifier would read.",
            "Add the last block to image.blocks of the architecture, or train without: --set train.classes.weight=0",
        )
    if init == "random":
        raise ClippyError(
            "train.classes needs weights that came from training a classifier; model.image.init is random.",
            "Name weights, or train without: --set train.classes.weight=0",
        )
    if init == "pretrained":
        state = pretrained_trunk(tower.config, with_classifier=True).state_dict()
    else:
        state = read_weights(Path(init).expanduser(), "model.image.init")
    weight, bias = state.get("head.weight"), state.get("head.bias")
    width = tower.trunk.embed_dim
    if weight is None or bias is None or weight.shape != (CLASSES, width) or "fc_norm.weight" in state:
        found = "none" if weight is None else f"one of shape {tuple(weight.shape)}"
        raise ClippyError(
            f"model.image.init is {init}, where a classifier of the class token, {CLASSES} x {width}, was wanted; "
            f"it holds {found}.",
            "Use weights supervised with ImageNet-1k, or train without: --set train.classes.weight=0",
        )
    classifier = nn.Linear(width, CLASSES)
    classifier.load_state_dict({"weight": weight.float(), "bias": bias.float()})
    return classifier.requires_grad_(False)
