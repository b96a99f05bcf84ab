"""CLIP-DINOiser on tiny random weights against the paper's formulas, patch by patch."""

import pytest
import torch
import torch.nn.functional as F

from clippy_cli.errors import ClippyError
from clippy_cli.model.dense import attention
from clippy_cli.model.sources.loading import load_model


@pytest.fixture(scope="module")
def model(source_of):
    return load_model(source_of("clip-dinoiser"), device="cpu")


def by_the_book(clip, state, images):
    """(B,3,H,W) -> (B,h,w,D): the third block from the end guides, MaskCLIP's patches are pooled."""
    visual = clip.module.visual
    h, w = images.shape[-2] // 8, images.shape[-1] // 8
    tokens = visual.conv1(images).flatten(2).mT
    tokens = visual.ln_pre(
        torch.cat([visual.class_embedding.expand(len(images), 1, -1), tokens], 1) + visual.positional_embedding
    )
    blocks = visual.transformer.resblocks
    for number, block in enumerate(blocks[:-1], start=1):
        if number == len(blocks) - 2:
            normed = block.ln_1(tokens)
            guide = block.ln_2(tokens + block.attn(normed, normed, normed, need_weights=False)[0])[:, 1:]
        tokens = block(tokens)
    last = blocks[-1]
    _, _, values = F.linear(last.ln_1(tokens), last.attn.in_proj_weight, last.attn.in_proj_bias).chunk(3, dim=-1)
    tokens = tokens + last.attn.out_proj(values)
    tokens = tokens + last.mlp(last.ln_2(tokens))
    patches = (visual.ln_post(tokens) @ visual.proj)[:, 1:]
    padded = F.pad(guide.mT.unflatten(-1, (h, w)), (1, 1, 1, 1), mode="replicate")
    guide = F.conv2d(padded, state["obj_proj.weight"], state["obj_proj.bias"]).flatten(2).mT
    pooled = torch.zeros_like(patches)
    for image in range(len(images)):
        for i in range(h * w):
            weights = [float(F.cosine_similarity(guide[image, i], guide[image, j], dim=0)) for j in range(h * w)]
            weights = [weight if weight >= 0.2 else 0.0 for weight in weights]
            for j, weight in enumerate(weights):
                pooled[image, i] += weight / sum(weights) * patches[image, j]
    return F.normalize(pooled, dim=-1).unflatten(1, (h, w))


def test_patches_are_pooled_as_the_formulas_say(model, source_of, monkeypatch):
    file, clip = source_of("clip-dinoiser").removeprefix("clip-dinoiser:").split(",")
    clip = load_model("open_clip:" + clip.removeprefix("clip="), device="cpu")
    state = torch.load(file, weights_only=True)["model_state_dict"]
    images = torch.randn(2, 3, 32, 32)
    found = model.embed_patches(images)
    torch.testing.assert_close(found, by_the_book(clip, state, images), atol=1e-5, rtol=0)
    assert F.cosine_similarity(found, clip.embed_patches(images), dim=-1).min() < 0.99
    monkeypatch.setattr(attention, "MAX_SCORES", 2 * 16 * 5)  # five patches at a time
    torch.testing.assert_close(model.embed_patches(images), found)
    torch.testing.assert_close(model.embed_images(images), clip.embed_images(images))
    torch.testing.assert_close(model.embed_texts(["dog"]), clip.embed_texts(["dog"]))


@pytest.mark.parametrize(
    ("state", "clip", "said"),
    [
        ({"bkg_decoder.bias": torch.ones(1)}, "tiny-deep", "no checkpoint of CLIP-DINOiser"),
        (
            {"obj_proj.weight": torch.ones(4, 8, 3, 3), "obj_proj.bias": torch.zeros(4)},
            "tiny-deep",
            "width 8, 3 blocks",
        ),
        ({"obj_proj.weight": torch.ones(4, 64, 3, 3), "obj_proj.bias": torch.zeros(4)}, "tiny-vit", "has 2 blocks"),
        ({"obj_proj.weight": torch.ones(4, 64, 3, 3), "obj_proj.bias": torch.zeros(4)}, "tiny-rn", "ModifiedResNet"),
    ],
)
def test_checkpoints_that_do_not_fit(source_of, tmp_path, state, clip, said):
    torch.save({"model_state_dict": state}, tmp_path / "last.pt")
    with pytest.raises(ClippyError, match=said):
        load_model(f"clip-dinoiser:{tmp_path / 'last.pt'},clip={source_of(clip).partition(':')[2]}", device="cpu")
