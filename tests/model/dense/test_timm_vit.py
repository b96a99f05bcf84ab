"""Dense modes over timm's vision transformer against a plain reimplementation in loops."""

import functools

import pytest
import timm
import torch
from timm.models.vision_transformer import ParallelScalingBlock

from clippy_cli.errors import ClippyError
from clippy_cli.model.dense import DenseMode
from clippy_cli.model.dense.timm_vit import vit_tokens
from tests.fixtures.dense_reference import block_output

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2}
TRUNKS = {
    "class token": {},
    "registers, norms of q and k, layer scale": {"reg_tokens": 2, "qk_norm": True, "init_values": 0.5},
    "no prefix, norm of the mixed values": {"class_token": False, "scale_attn_norm": True},
}


def trunk_of(name="vit_tiny_patch16_224", **arguments):
    torch.manual_seed(0)
    arguments = {"dynamic_img_size": True, **SMALL, **arguments}
    trunk = timm.create_model(name, pretrained=False, num_classes=0, global_pool="", **arguments).double().eval()
    for parameter in trunk.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return trunk.requires_grad_(False)


def depth_for(mode):
    return 10 if mode == "resclip" else 2  # resclip reads blocks 6 to 9


def by_the_book(trunk, images, mode, proxy):
    tokens = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(images)))

    def project(x, block=trunk.blocks[-1]):
        queries, keys, values = (part.reshape(len(x), 2, -1) for part in block.attn.qkv(block.norm1(x)).chunk(3, dim=1))
        return block.attn.q_norm(queries), block.attn.k_norm(keys), values

    *others, last = trunk.blocks
    into = []
    for block in others:
        into.append((tokens, functools.partial(project, block=block)))
        tokens = block(tokens)

    tokens = block_output(
        tokens,
        mode,
        project,
        lambda x: last.ls1(last.attn.proj(last.attn.norm(x))),
        lambda x: last.ls2(last.mlp(last.norm2(x))),
        heads=2, grid=(images.shape[-2] // 8, images.shape[-1] // 8), prefix=trunk.num_prefix_tokens, proxy=proxy,
        earlier=into[5:9],
    )  # fmt: skip
    return trunk.norm(tokens)


@pytest.mark.parametrize("mode", DenseMode)
@pytest.mark.parametrize("variant", TRUNKS)
def test_every_mode_is_what_the_formulas_say(variant, mode):
    trunk = trunk_of(**TRUNKS[variant], depth=depth_for(mode))
    images = torch.randn(2, 3, 24, 40, dtype=torch.float64)
    proxy = torch.randn(2, 3, 5, 4, dtype=torch.float64) if mode == "proxyclip" else None
    expected = by_the_book(trunk, images, mode, proxy)
    torch.testing.assert_close(vit_tokens(trunk, images, mode, proxy), expected, atol=1e-8, rtol=0)


def test_of_several_blocks_the_mode_changes_the_last_alone():
    trunk, images = trunk_of(), torch.randn(2, 3, 24, 40, dtype=torch.float64)
    both = vit_tokens(trunk, images, "naclip", blocks=(1, 2))
    torch.testing.assert_close(both[..., :12], vit_tokens(trunk, images, "plain", blocks=(1,)))
    torch.testing.assert_close(both[..., 12:], vit_tokens(trunk, images, "naclip"))


def test_a_trunk_without_the_blocks_that_a_mode_reads_says_so():
    with pytest.raises(ClippyError, match="blocks 6 to 9, and patches are taken from block 2"):
        vit_tokens(trunk_of(), torch.zeros(1, 3, 32, 32, dtype=torch.float64), "resclip")


def test_a_block_of_another_kind_is_named_and_plain_still_works():
    trunk, images = trunk_of(block_fn=ParallelScalingBlock), torch.randn(1, 3, 32, 32, dtype=torch.float64)
    with pytest.raises(ClippyError, match="block 2 apart: a ParallelScalingBlock"):
        vit_tokens(trunk, images, "sclip")
    torch.testing.assert_close(vit_tokens(trunk, images, "plain"), trunk.forward_features(images))


def test_a_trunk_of_one_size_says_so():
    trunk = trunk_of(dynamic_img_size=False)
    assert vit_tokens(trunk, torch.zeros(1, 3, 32, 32, dtype=torch.float64), "naclip").shape == (1, 17, 12)
    with pytest.raises(ClippyError, match="alone, not \\(24, 40\\)"):
        vit_tokens(trunk, torch.zeros(1, 3, 24, 40, dtype=torch.float64), "naclip")
