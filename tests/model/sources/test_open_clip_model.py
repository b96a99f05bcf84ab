"""Dense modes over open_clip's vision transformer against a plain reimplementation in loops."""

import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU, VisionTransformer

from clippy_cli.errors import ClippyError
from clippy_cli.model.dense import DenseMode, attention
from clippy_cli.model.sources.open_clip_model import clip_patches
from tests.fixtures.dense_reference import block_output

VARIANTS = {
    "plain": {},
    "quick gelu": {"act_layer": QuickGELU},
    "no pre-norm, average pooling": {"no_ln_pre": True, "pool_type": "avg"},
    "layer scale, norm after pooling": {"ls_init_value": 0.5, "pool_type": "avg", "final_ln_after_pool": True},
}


def tower(mode="plain", **arguments):
    torch.manual_seed(0)
    depth = 10 if mode == "resclip" else 2  # resclip reads blocks 6 to 9
    visual = VisionTransformer(32, 8, 12, depth, 2, 2.0, output_dim=10, **arguments).double().eval()
    for parameter in visual.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return visual.requires_grad_(False)


def proxy_for(mode, batch=2, h=4, w=4):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, h, w, 3, generator=generator, dtype=torch.float64) + 0.3 if mode == "proxyclip" else None


def by_the_book(visual, images, mode, proxy):
    h, w = images.shape[-2] // 8, images.shape[-1] // 8
    table = visual.positional_embedding
    places = table[1:].float().T.reshape(1, -1, 4, 4)
    if (h, w) != (4, 4):
        places = F.interpolate(places, (h, w), mode="bicubic", antialias=True)
        table = torch.cat([table[:1], places.flatten(2)[0].T.double()])
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    tokens = torch.cat([visual.class_embedding.expand(len(images), 1, -1), patches], dim=1) + table
    tokens = visual.ln_pre(tokens)
    into = []
    for number, block in enumerate(visual.transformer.resblocks, start=1):

        def project(x, block=block):
            x = block.ln_1(x)
            weights, biases = block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3)
            return [(x @ a.T + b).reshape(len(x), 2, -1) for a, b in zip(weights, biases, strict=True)]

        into.append((tokens, project))
        if number < len(visual.transformer.resblocks) - 1:
            tokens = block(tokens)
            continue
        tokens = block_output(
            tokens,
            mode if number == len(visual.transformer.resblocks) else "plain",
            project,
            lambda x, block=block: block.ls_1(block.attn.out_proj(x)),
            lambda x, block=block: block.ls_2(block.mlp(block.ln_2(x))),
            heads=2, grid=(h, w), prefix=1, proxy=proxy, earlier=into[5:9],
        )  # fmt: skip
    return (visual.ln_post(tokens) @ visual.proj)[:, 1:].reshape(len(images), h, w, -1)


@pytest.mark.parametrize("mode", DenseMode)
@pytest.mark.parametrize(("variant", "size"), [*((v, (24, 16)) for v in VARIANTS), ("plain", (32, 32))])
def test_every_mode_is_what_the_formulas_say(variant, size, mode):
    visual = tower(mode, **VARIANTS[variant])
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    proxy = proxy_for(mode, h=size[0] // 8, w=size[1] // 8)
    expected = by_the_book(visual, images, mode, proxy)
    torch.testing.assert_close(clip_patches(visual, images, mode, proxy), expected, atol=1e-8, rtol=0)


def test_plain_is_open_clips_own_output_at_the_native_size():
    visual = tower(act_layer=QuickGELU, output_tokens=True)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected = (visual(images)[1] @ visual.proj).view(2, 4, 4, 10)
    torch.testing.assert_close(clip_patches(visual, images, "plain"), expected, atol=1e-8, rtol=0)


@pytest.mark.parametrize("mode", ["naclip", "proxyclip"])
def test_parts_of_the_queries_give_what_all_at_once_do(mode, monkeypatch):
    visual, images = tower(), torch.randn(2, 3, 40, 24, dtype=torch.float64)
    proxy = proxy_for(mode, h=5, w=3)
    whole = clip_patches(visual, images, mode, proxy)
    monkeypatch.setattr(attention, "MAX_SCORES", 2 * 2 * 16 * 5)  # five queries of 16 tokens, two heads, two images
    torch.testing.assert_close(clip_patches(visual, images, mode, proxy), whole, atol=1e-12, rtol=0)


@pytest.mark.parametrize("mode", DenseMode)
def test_bfloat16_gives_nearly_the_same_directions(mode):
    visual, images = tower(mode).float(), torch.randn(1, 3, 32, 48)
    for parameter in visual.parameters():
        parameter.mul_(0.3)
    proxy = proxy_for(mode, batch=1, h=4, w=6)
    exact = clip_patches(visual, images, mode, proxy)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = clip_patches(visual, images, mode, proxy)
    half = clip_patches(visual.bfloat16(), images, mode, proxy)
    assert half.dtype == torch.bfloat16
    for rough in (mixed, half):
        assert F.cosine_similarity(rough.float(), exact, dim=-1).min() > 0.98


def test_a_proxy_that_sees_no_difference_leaves_each_patch_to_itself():
    visual, images = tower(), torch.randn(1, 3, 32, 32, dtype=torch.float64)
    blank = torch.ones(1, 4, 4, 3, dtype=torch.float64)
    unlike = torch.eye(16, dtype=torch.float64).view(1, 4, 4, 16)  # no patch is like another
    patches = clip_patches(visual, images, "proxyclip", blank)
    torch.testing.assert_close(patches, clip_patches(visual, images, "proxyclip", unlike))


@pytest.mark.parametrize("grid", [(8, 8), (2, 3)])
def test_a_proxy_of_another_grid_is_resized(grid):
    visual, images = tower(), torch.randn(2, 3, 32, 32, dtype=torch.float64)
    proxy = proxy_for("proxyclip", 2, *grid)
    fitting = F.interpolate(proxy.permute(0, 3, 1, 2), (4, 4), mode="bilinear", antialias=True).permute(0, 2, 3, 1)
    expected = clip_patches(visual, images, "proxyclip", fitting)
    torch.testing.assert_close(clip_patches(visual, images, "proxyclip", proxy), expected)


@pytest.mark.parametrize(
    ("mode", "proxy", "size", "message"),
    [
        ("denseclip", None, 32, "No dense mode 'denseclip'"),
        ("proxyclip", None, 32, "none was given"),
        ("naclip", torch.ones(1, 4, 4, 3), 32, "naclip uses no proxy"),
        ("naclip", None, 30, "30x30 pixels does not split into patches of 8x8"),
    ],
)
def test_wrong_calls_are_refused(mode, proxy, size, message):
    with pytest.raises(ClippyError, match=message):
        clip_patches(tower(), torch.zeros(1, 3, size, size, dtype=torch.float64), mode, proxy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"attentional_pool": True, "attn_pooler_heads": 2}, "CoCa"), ({"qk_norm": True}, "CustomResidualAttentionBlock")],
)
def test_towers_that_cannot_be_opened_are_named(arguments, message):
    with pytest.raises(ClippyError, match=message):
        clip_patches(tower(**arguments), torch.zeros(1, 3, 32, 32, dtype=torch.float64), "plain")
