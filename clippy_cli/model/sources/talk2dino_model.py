"""Talk2DINO: a small map takes CLIP's text embeddings among the patches of a self-supervised trunk.

Shapes: see ``model/base.py``; M heads of width d, D the width of the trunk.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clippy_cli.errors import ClippyError
from clippy_cli.model.base import Preprocess
from clippy_cli.model.build import read_weights
from clippy_cli.model.compat.torch import outputs_of
from clippy_cli.model.dense.dense import PLAIN
from clippy_cli.model.pooling import normalized
from clippy_cli.model.sources.face import ForeignModel
from clippy_cli.model.sources.open_clip_model import OpenClipModel, load_open_clip
from clippy_cli.model.sources.parts import Parts, shown_name
from clippy_cli.model.sources.talk2dino import PREFIX, TEXT, TRUNKS
from clippy_cli.model.sources.timm_trunk import TimmTrunk, load_timm, trunk_tokens
from clippy_cli.model.text_batches import TEXT_BATCH

_RESOLUTION = 448  # of the images that the maps were trained on
_LOGIT_SCALE = 1 / 0.07  # fixed in training
_FIRST = "linear_layer"


class TextMap(nn.Sequential):
    """Linear maps with a tanh between two of them: (K,D') text embeddings -> (K,D) in the space of patches."""

    def __init__(self, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for into, out in itertools.pairwise(widths):
            layers += [nn.Tanh(), nn.Linear(into, out)]
        super().__init__(*layers[1:])
        self.widths = tuple(widths)


class Talk2Dino(ForeignModel):
    """Patches are the trunk's own, after its final norm; texts are mapped to them (arXiv 2411.19331, section 3).

    An image is seen by one vector a head of the last block: the mean of the patches, weighted by where that head of the
    class token looks. Its score for a text is the best of these, as in training; its one vector, where one is wanted,
    is the mean weighted by the average of the heads (the public code's ``encode_image``).
    """

    def __init__(self, name: str, text: OpenClipModel, trunk: TimmTrunk, text_map: TextMap) -> None:
        parts = nn.ModuleDict({"trunk": trunk.module, "text": text.module, "map": text_map})
        patch = trunk.preprocess.patch_size
        side = _RESOLUTION if _RESOLUTION % patch == 0 else trunk.preprocess.resolution
        preprocess = Preprocess(trunk.preprocess.mean, trunk.preprocess.std, patch, side)
        super().__init__(name, parts, preprocess, _LOGIT_SCALE)
        self._text, self._map = text, text_map
        self._trunk: Any = trunk.module
        self.positions = trunk.positions

    def patch_vectors(self, images: Tensor) -> Tensor:
        return trunk_tokens(self._trunk, images, PLAIN, self.preprocess, self.positions)[1]

    def text_vectors(self, texts: list[str]) -> Tensor:
        mapped: Tensor = self._map(self._text.text_vectors(texts))
        return mapped

    @torch.no_grad()
    def embed_prompt_means(self, prompts: Sequence[str], templates: int) -> Tensor:
        """K names x T templates, one name after the other -> (K,D), unit norm: the map of the mean of CLIP's vectors.

        As in the public code, CLIP's vectors keep their norms in the mean.
        """
        batches = [list(prompts[start : start + TEXT_BATCH]) for start in range(0, len(prompts), TEXT_BATCH)]
        vectors = torch.cat([self._text.text_vectors(batch) for batch in batches])  # (K*T,D')
        return normalized(self._map(vectors.view(-1, templates, vectors.shape[-1]).mean(dim=1)))

    def image_vectors(self, images: Tensor) -> Tensor:
        logits, patches = self._attended(images)
        return torch.einsum("bn,bnd->bd", logits.mean(dim=1).softmax(dim=-1), patches)

    @torch.no_grad()
    def score_images(self, images: Tensor, texts: Tensor) -> Tensor:
        """(B,3,H,W), (K,D) text embeddings -> (B,K) cosines in [-1, 1], of the head that fits the text best."""
        heads = normalized(self._in_precision(self._heads, images))
        return (heads @ texts.T).amax(dim=1)  # (B,M,K) -> (B,K)

    def _heads(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,M,D), the mean of the patches that each head looks at."""
        logits, patches = self._attended(images)
        return torch.einsum("bmn,bnd->bmd", logits.softmax(dim=-1), patches)

    def _attended(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B,3,H,W) -> (B,M,N) products of the class token's query with the patches' keys, (B,N,D) patches.

        As in the public code, products are of the projection's own outputs: without norms of queries and keys and
        without rotation.
        """
        last = self._trunk.blocks[-1].attn
        with outputs_of(last.qkv) as projected:
            patches = trunk_tokens(self._trunk, self.native_square(images), PLAIN, self.preprocess)[1].flatten(1, 2)
        tokens = projected[-1]  # (B,T,3*M*d)
        queries, keys, _ = tokens.view(*tokens.shape[:2], 3, last.num_heads, -1).unbind(dim=2)  # (B,T,M,d)
        products = torch.einsum("bmd,bnmd->bmn", queries[:, 0], keys[:, -patches.shape[1] :])
        return products * keys.shape[-1] ** -0.5, patches


def load_talk2dino(parts: Parts, device: torch.device) -> Talk2Dino:
    """ClippyError where the map cannot be read, or text tower, map and trunk do not go together."""
    text_map = read_map(parts)
    into, out = text_map.widths[0], text_map.widths[-1]
    trunk_name = parts.named["trunk"] or TRUNKS.get(out)
    if trunk_name is None:
        raise ClippyError(
            f"The map {parts.file} leads to {out} features, a width that none of Talk2DINO's trunks has.",
            f"Name its trunk: {PREFIX}:{parts.file},trunk=NAME@FILE",
        )
    trunk = load_timm(trunk_name, device)
    require_class_attention(trunk)
    text = load_open_clip(parts.named["text"] or TEXT, device)
    wide: Any = trunk.module
    found = text.text_vectors(["a photo"]).shape[-1], int(wide.num_features)
    if found != (into, out):
        raise ClippyError(
            f"The map {parts.file} leads from {into} to {out} features; {text.name} has {found[0]} and "
            f"{trunk.name} {found[1]}.",
            f"Name the parts that it was trained with: {PREFIX}:FILE,text=ARCH/WEIGHTS,trunk=NAME@FILE",
        )
    return Talk2Dino(shown_name(parts), text, trunk, text_map.to(device))


def require_class_attention(trunk: TimmTrunk) -> None:
    """ClippyError unless the trunk has a class token and a last block with one projection of queries, keys, values."""
    blocks: Any = getattr(trunk.module, "blocks", None)
    attention = getattr(blocks[-1], "attn", None) if blocks else None
    projected = getattr(attention, "qkv", None) is not None and getattr(attention, "q_bias", None) is None
    if getattr(trunk.module, "cls_token", None) is None or not projected:
        raise ClippyError(
            f"Talk2DINO sees an image by its class token's attention, and {trunk.name} has none that can be read.",
            "Choose a vision transformer with a class token, such as trunk=vit_base_patch14_reg4_dinov2.lvd142m",
        )


def read_map(parts: Parts) -> TextMap:
    """The map in the layout of the public weights; ClippyError for other tensors, and for widths that do not chain.

    The first layer is ``linear_layer``, further ones ``hidden_layers.0`` and on, or ``linear_layer2`` in older files.
    """
    state = read_weights(parts.file, PREFIX, hint=f"Check what follows {PREFIX}:")
    state = {key.replace("linear_layer2.", "hidden_layers.0."): value.float() for key, value in state.items()}
    names = [_FIRST, *(f"hidden_layers.{index}" for index in range(len(state) // 2 - 1))]
    if set(state) != {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}:
        raise ClippyError(
            f"{parts.file} is no map of Talk2DINO: it holds {', '.join(sorted(state)[:5]) or 'nothing'}; looked for "
            f"{_FIRST} and hidden_layers, and nothing else.",
            "Take the published file, such as vitb_mlp_infonce.pth",
        )
    weights = [state[f"{name}.weight"] for name in names]
    widths = [weights[0].shape[-1], *(len(weight) for weight in weights)]
    built = TextMap(widths)
    target = [key for index in range(len(names)) for key in (f"{2 * index}.weight", f"{2 * index}.bias")]
    tensors = [state[f"{name}.{kind}"] for name in names for kind in ("weight", "bias")]
    try:
        built.load_state_dict(dict(zip(target, tensors, strict=True)))
    except RuntimeError as error:
        raise ClippyError(
            f"The layers of the map {parts.file} do not follow on one another: {' '.join(str(error).split())[:300]}",
            "Take the published file, such as vitb_mlp_infonce.pth",
        ) from error
    return built
