"""A CLIPpy model whose patch embeddings come by a dense mode."""

from __future__ import annotations

from torch import Tensor, nn

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.dense.block import check_mode
from clippy_cli.model.dense.proxy import dense_name, proxy_patches
from clippy_cli.model.dense.timm_vit import check_openable, vit_tokens
from clippy_cli.model.vit_tower import VitTower


class DenseClippy(Clippy):
    """The weights of another Clippy, shared; only what ``embed_patches`` reads differs."""

    def __init__(self, model: Clippy, mode: str, proxy: VisionLanguageModel | None) -> None:
        nn.Module.__init__(self)
        vars(self).update(vars(model))
        self.mode = mode
        self._proxy = (proxy,)  # in a tuple, so that its weights do not count as this model's

    @property
    def name(self) -> str:
        return dense_name(self.config.name, self.mode, *self._proxy)

    def patch_tokens(self, images: Tensor) -> Tensor:
        tower, (proxy,) = self.image, self._proxy
        features = None if proxy is None else proxy_patches(proxy, images, self.preprocess)
        tokens = vit_tokens(
            tower.trunk,
            images,
            self.mode,
            None if features is None else features.to(images.device),
            blocks=tower.blocks,
        )
        return self.joint_tokens(tokens)[:, tower.num_prefix_tokens :]


def with_dense_mode(model: Clippy, mode: str, proxy: VisionLanguageModel | None = None) -> VisionLanguageModel:
    """``model`` with patches by ``mode`` (see ``vit_tokens``), projected, centred and normalised as it does itself.

    Image and text embeddings stay; ``model`` itself is left as it is, and is returned for ``plain``. ``proxy`` is any
    model with patch embeddings, ``model`` too. ClippyError where the image tower is no plain vision transformer.
    """
    check_mode(mode, proxy)
    if mode == "plain":
        return model
    if not isinstance(model.image, VitTower):
        raise ClippyError(
            f"{model.name} has a convolutional trunk, {model.config.image.trunk}: it has no attention to change.",
            "Leave --dense out.",
        )
    check_openable(model.image.trunk, max(model.image.blocks))
    return DenseClippy(model, mode, proxy)
