"""timm's Eva (Perception Encoder, EVA-02, DINOv3) of any size, and dense modes over it, rotations written out."""

import pytest
import timm
import torch
from timm.models.eva import Eva

from clippy_cli.errors import ClippyError
from clippy_cli.model.choices import DenseMode
from clippy_cli.model.compat import timm_eva
from clippy_cli.model.dense.timm_vit import vit_tokens
from tests.fixtures.dense_reference import block_output

SMALL: dict[str, object] = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "Perception Encoder": ("vit_pe_core_tiny_patch16_384", {"attn_pool_num_heads": 2, "ref_feat_shape": (4, 4)}),
    "EVA-02": ("eva02_base_patch16_clip_224", {"ref_feat_shape": (4, 4)}),
    "DINOv3": ("vit_small_patch16_dinov3", {"dynamic_img_size": True}),
}


def trunk_of(kind):
    torch.manual_seed(0)
    name, arguments = KINDS[kind]
    trunk = timm.create_model(name, num_classes=0, **SMALL, **arguments).double().eval()
    assert isinstance(trunk, Eva)
    for parameter in trunk.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return trunk.requires_grad_(False)


def turned(vectors, rope, half):
    """(N,M,d) with each pair of numbers turned by its angle; pairs are neighbours, or halves of a head apart."""
    sines, cosines = (part[:, None] for part in rope.chunk(2, dim=-1))
    first = vectors.unflatten(-1, (2, -1)).transpose(-1, -2) if half else vectors.unflatten(-1, (-1, 2))
    partner = torch.stack([-first[..., 1], first[..., 0]], dim=-1)
    partner = (partner.transpose(-1, -2) if half else partner).flatten(-2)
    return vectors * cosines + partner * sines


def by_the_book(trunk, images, mode):
    tokens, rope = trunk._pos_embed(trunk.patch_embed(images))
    tokens = trunk.norm_pre(tokens)
    tokens = trunk.blocks[0](tokens, rope=rope)
    block, prefix = trunk.blocks[1], trunk.num_prefix_tokens
    attention = block.attn

    def project(x):
        x = block.norm1(x)
        if attention.qkv is None:
            parts = [attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)]
        else:
            parts = attention.qkv(x).chunk(3, dim=-1)
        queries, keys, values = (part.unflatten(-1, (2, -1)) for part in parts)  # (T,M,d)
        half = getattr(attention, "rotate_half", False)
        queries, keys = (
            torch.cat([part[:prefix], turned(part[prefix:], rope.double(), half)])
            for part in (attention.q_norm(queries), attention.k_norm(keys))
        )
        return queries, keys, values

    scale = (1 if block.gamma_1 is None else block.gamma_1, 1 if block.gamma_2 is None else block.gamma_2)
    tokens = block_output(
        tokens,
        mode,
        project,
        lambda x: scale[0] * attention.proj(attention.norm(x)),
        lambda x: scale[1] * block.mlp(block.norm2(x)),
        heads=2, grid=(images.shape[-2] // 8, images.shape[-1] // 8), prefix=prefix, proxy=None,
    )  # fmt: skip
    return trunk.norm(tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_a_trunk_built_for_one_size_takes_any(kind):
    trunk, other = trunk_of(kind), trunk_of(kind)
    timm_eva.take_any_size(trunk)
    for block in trunk.blocks:
        assert type(block).__name__ == "EvaBlock"
    square, wide = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.randn(2, 3, 24, 40, dtype=torch.float64)
    torch.testing.assert_close(vit_tokens(trunk, square, "plain"), other.forward_features(square))
    tokens = vit_tokens(trunk, wide, "plain")
    assert tokens.shape == (2, trunk.num_prefix_tokens + 15, 16)
    torch.testing.assert_close(vit_tokens(trunk, square, "plain"), other.forward_features(square))  # nothing was kept
    if not other.dynamic_img_size:
        sized = timm.create_model(
            KINDS[kind][0], num_classes=0, **{**SMALL, **KINDS[kind][1], "dynamic_img_size": True}
        )
        sized.double().eval().load_state_dict(other.state_dict())
        torch.testing.assert_close(tokens, sized.forward_features(wide))
        with pytest.raises(ClippyError, match="alone, not \\(24, 40\\)"):
            vit_tokens(other, wide, "plain")


@pytest.mark.parametrize("mode", [DenseMode.MASKCLIP, DenseMode.NACLIP, DenseMode.CLEARCLIP])
@pytest.mark.parametrize("kind", KINDS)
def test_modes_are_what_the_formulas_say(kind, mode):
    trunk = trunk_of(kind)
    timm_eva.take_any_size(trunk)
    images = torch.randn(1, 3, 24, 32, dtype=torch.float64)
    torch.testing.assert_close(vit_tokens(trunk, images, mode), by_the_book(trunk, images, mode), atol=1e-6, rtol=1e-6)
