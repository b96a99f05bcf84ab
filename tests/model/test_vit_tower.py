"""Dropping patches before they are embedded against the plain order: timm's embedding of all, then a gather."""

import pytest
import torch

from clippy_cli.errors import ClippyError
from clippy_cli.model.config import ImageTowerConfig
from clippy_cli.model.sampling import draw_keep_indices, gather_patches
from clippy_cli.model.vit_tower import VitTower

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
TRUNKS = {
    "plain": ("vit_tiny_patch16_224", {}),
    "class token and registers without positions": ("vit_base_patch14_reg4_dinov2", {}),
    "registers alone": ("vit_medium_patch16_reg4_gap_256", {}),
    "registers with positions": ("vit_tiny_patch16_224", {"reg_tokens": 3}),
    "pre-norm": ("vit_base_patch16_clip_224", {}),
    "no prefix": ("vit_tiny_patch16_224", {"class_token": False}),
    "no positions": ("vit_tiny_patch16_224", {"pos_embed": "none"}),
}


def tower_of(name, arguments):
    torch.manual_seed(0)
    config = ImageTowerConfig(
        trunk=name, trunk_args={**SMALL, **arguments},
        projection="none", pooling="max",
    )  # fmt: skip
    tower = VitTower(config, 24).double()
    for parameter in tower.parameters():  # timm starts prefix tokens and biases so near 0 that an error could hide
        torch.nn.init.normal_(parameter, std=0.3)
    return tower


def embed_all_then_gather(tower, images, keep):
    trunk = tower.trunk
    tokens = trunk._pos_embed(trunk.patch_embed(images))
    rows = [
        torch.cat([row[: trunk.num_prefix_tokens], row[trunk.num_prefix_tokens :][kept]])
        for row, kept in zip(tokens, keep, strict=True)
    ]
    return trunk.norm(trunk.blocks(trunk.norm_pre(torch.stack(rows))))


@pytest.mark.parametrize("size", [(32, 32), (40, 72)])
@pytest.mark.parametrize("variant", TRUNKS)
def test_kept_pixels_give_the_values_and_gradients_of_embedding_everything(variant, size):
    tower = tower_of(*TRUNKS[variant])
    assert tower.takes_patches
    images = torch.randn(3, 3, *size, dtype=torch.float64)
    keep = draw_keep_indices(3, size[0] * size[1] // 64, 0.6)
    weights = torch.randn(3, tower.num_prefix_tokens + keep.shape[1], 24, dtype=torch.float64)
    results = []
    for features in (tower.features(images, keep), embed_all_then_gather(tower, images, keep)):
        gradients = torch.autograd.grad((features * weights).sum(), list(tower.trunk.parameters()), allow_unused=True)
        results.append((features, gradients))
    (new, new_gradients), (old, old_gradients) = results
    torch.testing.assert_close(new, old, atol=1e-10, rtol=0)
    for mine, expected in zip(new_gradients, old_gradients, strict=True):
        assert (mine is None) == (expected is None)
        if mine is not None:
            torch.testing.assert_close(mine, expected, atol=1e-10, rtol=1e-10)


def test_a_trunk_with_an_embedding_of_its_own_falls_back_to_the_plain_order():
    tower = tower_of("vit_tiny_patch16_224", {"dynamic_img_size": False})
    images, keep = torch.randn(2, 3, 32, 32, dtype=torch.float64), draw_keep_indices(2, 16, 0.5)
    assert not tower.takes_patches
    torch.testing.assert_close(tower.features(images, keep), embed_all_then_gather(tower, images, keep))
    with pytest.raises(ClippyError, match="does not embed one patch"):
        tower.patch_features(gather_patches(images, keep, 8), keep, (4, 4))


def test_raw_kept_pixels_give_what_normalised_images_do(nano):
    pixels = torch.randint(0, 256, (2, 3, 64, 48), dtype=torch.uint8)
    keep = draw_keep_indices(2, 48, 0.8)
    patches = nano.preprocess.normalize(gather_patches(pixels, keep, 8))
    expected = nano.image.features(nano.preprocess.normalize(pixels), keep)
    torch.testing.assert_close(nano.image.patch_features(patches, keep, (8, 6)), expected)


def test_attention_runs_in_the_fused_kernel(nano, monkeypatch):
    called = []
    kernel = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: called.append(1) or kernel(*a, **k)
    )
    nano.image_tokens(torch.randn(1, 3, 64, 64))
    assert len(called) == 4  # one for each block
