"""Position tables of other libraries' models: their own rule by default, any rule in a view."""

import copy

import pytest
import torch

from clippy_cli.evaluation.provenance import model_fingerprint
from clippy_cli.model.choices import PositionResampling
from clippy_cli.model.patch_forms import position_rule, with_positions
from clippy_cli.model.positions import resample_positions
from clippy_cli.model.sources.loading import load_model

OWN = {
    "tiny-vit": "timm",
    "tiny-timm": "timm",
    "test_vit": "timm",
    "clip": "plain",
    "siglip": "plain",
    "groupvit": "plain",
}


def sharpen(parameter):
    """Random positions, so that it matters how they are resampled."""
    with torch.no_grad():
        parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))


def with_fixed_table(model, grid, rule):
    """A copy of the model whose table was resampled beforehand, and which resamples nothing itself."""
    fixed = copy.deepcopy(model)
    trunk = getattr(
        getattr(fixed.module, "visual", fixed.module), "trunk", getattr(fixed.module, "visual", fixed.module)
    )
    if hasattr(trunk, "positional_embedding"):  # open_clip's own
        table = resample_positions(trunk.positional_embedding[None], grid, trunk.grid_size, 1, rule)[0]
        trunk.positional_embedding, trunk.grid_size = torch.nn.Parameter(table), grid
    elif hasattr(trunk, "pos_embed"):
        prefix = 0 if trunk.no_embed_class else trunk.num_prefix_tokens
        table = resample_positions(trunk.pos_embed, grid, trunk.patch_embed.grid_size, prefix, rule)
        trunk.pos_embed, trunk.patch_embed.grid_size = torch.nn.Parameter(table), grid
    else:
        embeddings = fixed.module.vision_model.embeddings
        one = hasattr(embeddings, "position_embedding")
        weight = embeddings.position_embedding.weight[None] if one else embeddings.position_embeddings
        prefix = weight.shape[1] - round(weight.shape[1] ** 0.5 - 0.01) ** 2
        table = resample_positions(weight, grid, None, prefix, rule)
        embeddings.interpolate_pos_encoding = lambda *arguments: table
    return fixed


@pytest.mark.parametrize("name", OWN)
@torch.no_grad()
def test_each_rule_is_the_table_resampled_beforehand(source_of, name):
    model = load_model(source_of(name), device="cpu")
    for key, parameter in model.module.named_parameters():
        if "pos" in key and "embed" in key and "text" not in key and parameter.ndim > 1 and not key.startswith("pos"):
            sharpen(parameter)
    assert position_rule(model) == OWN[name]
    patch = model.preprocess.patch_size
    images = torch.randn(1, 3, 6 * patch, 3 * patch)
    before, digits = model.embed_patches(images), model_fingerprint(model)
    given = {rule: with_positions(model, rule).embed_patches(images) for rule in PositionResampling}
    for rule, found in given.items():
        wanted = with_fixed_table(model, (6, 3), rule).view(positions=model.positions).embed_patches(images)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert torch.equal(given[model.positions], before)
    assert not torch.allclose(given[PositionResampling.TIMM], given[PositionResampling.DINO], atol=1e-4)
    assert not torch.allclose(given[PositionResampling.PLAIN], given[PositionResampling.DINO], atol=1e-4)
    assert torch.equal(model.embed_patches(images), before) and model_fingerprint(model) == digits


@pytest.mark.parametrize("name", ["tiny-rn", "align"])
def test_towers_without_a_table_have_no_rule(source_of, name):
    assert position_rule(load_model(source_of(name), device="cpu")) is None
