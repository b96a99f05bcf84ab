"""Position tables on other grids: each rule against its code in public, on every path, as a view and on disk."""

import json
import math

import pytest
import timm
import torch
import torch.nn.functional as F

from clippy_cli.errors import ClippyError
from clippy_cli.model.build import build_model
from clippy_cli.model.choices import PositionResampling
from clippy_cli.model.config import ModelConfig
from clippy_cli.model.patch_forms import position_rule, with_dense_mode, with_positions
from clippy_cli.model.positions import resample_positions
from clippy_cli.model.registry import load_architecture
from clippy_cli.model.sampling import draw_keep_indices
from clippy_cli.model.sources.timm_trunk import released_positions
from clippy_cli.model.store import load_directory, save_model

RULES = list(PositionResampling)


def cubic(distance, a):
    """The bicubic convolution kernel with coefficient ``a`` at a distance in source pixels."""
    x = abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def axis_weights(rule, new, old):
    """(new,old) weights along one side, from the definition of each rule."""
    scale = old / (new + 0.1) if rule == "dino" else old / new
    antialiased = rule == "timm"
    a, support = (-0.5, max(scale, 1.0)) if antialiased else (-0.75, 1.0)
    weights = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        center = (i + 0.5) * scale - 0.5
        for j in range(math.floor(center - 2 * support) - 1, math.ceil(center + 2 * support) + 2):
            weight = cubic((j - center) / support, a)
            if antialiased and not 0 <= j < old:
                continue  # what lies beyond the edge is left out and the rest normalized
            weights[i, min(max(j, 0), old - 1)] += weight
    return weights / weights.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("grid", [(21, 28), (9, 14), (5, 20)])
def test_each_rule_is_its_definition(rule, grid):
    table = torch.randn(1, 1 + 14 * 14, 3, generator=torch.Generator().manual_seed(0))
    found = resample_positions(table, grid, None, 1, rule)
    down, across = (axis_weights(rule, new, 14) for new in grid)
    maps = table[0, 1:].double().view(14, 14, 3)
    expected = torch.einsum("hi,wj,ijf->hwf", down, across, maps).view(-1, 3).float()
    torch.testing.assert_close(found[0, 1:], expected, atol=2e-5, rtol=0)
    assert torch.equal(found[:, :1], table[:, :1])


def test_dino_is_interpolation_by_its_scale_factor_and_native_grids_stay():
    table = torch.randn(1, 1 + 14 * 14, 8)
    maps = table[:, 1:].view(1, 14, 14, 8).permute(0, 3, 1, 2)
    expected = F.interpolate(maps, scale_factor=(21.1 / 14, 28.1 / 14), mode="bicubic")
    found = resample_positions(table, (21, 28), (14, 14), 1, PositionResampling.DINO)
    assert torch.equal(found[0, 1:], expected.flatten(2)[0].T)
    assert all(torch.equal(resample_positions(table, (14, 14), (14, 14), 1, rule), table) for rule in RULES)


def test_an_exported_graph_resamples_at_any_size():
    class Table(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Parameter(torch.randn(1, 1 + 8 * 8, 3))

        def forward(self, images):
            return resample_positions(self.table, tuple(images.shape[-2:]), (8, 8), 1, PositionResampling.DINO)

    module = Table().eval()
    sizes = {1: torch.export.Dim("h"), 2: torch.export.Dim("w")}
    graph = torch.export.export(module, (torch.zeros(1, 4, 6),), dynamic_shapes=(sizes,)).module()
    for grid in ((5, 12), (8, 8), (21, 28)):
        images = torch.zeros(1, *grid)
        torch.testing.assert_close(graph(images), module(images), atol=2e-5, rtol=0)


def tiny(positions, **image):
    fields = load_architecture("clippy-nano").model_dump()
    return build_model(
        ModelConfig.model_validate(fields | {"image": fields["image"] | {"positions": positions} | image}), seed=0
    ).eval()


def plain_tokens(trunk, images, rule):
    """The trunk's tokens with the table that ``rule`` gives put in as if it were native."""
    h, w = (side // trunk.patch_embed.patch_size[0] for side in images.shape[-2:])
    patches = trunk.patch_embed.proj(images).flatten(2).mT
    table = resample_positions(trunk.pos_embed, (h, w), trunk.patch_embed.grid_size, trunk.num_prefix_tokens, rule)
    tokens = torch.cat([trunk.cls_token.expand(len(images), -1, -1), patches], dim=1) + table
    for block in trunk.blocks:
        tokens = block(tokens)
    return trunk.norm(tokens)


@pytest.mark.parametrize("rule", RULES)
def test_every_path_of_a_tower_takes_the_rule(rule):
    tower = tiny(rule, blocks=None).image
    images = torch.randn(2, 3, 6 * tower.patch_size, 11 * tower.patch_size)
    with torch.no_grad():
        wanted = plain_tokens(tower.trunk, images, rule)
        torch.testing.assert_close(tower.features(images), wanted, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(tower.dense_features(images, "plain", None), wanted, atol=1e-5, rtol=1e-5)
        everything = torch.arange(66).expand(2, -1)
        torch.testing.assert_close(tower.features(images, everything), wanted, atol=1e-5, rtol=1e-5)
        nothing = torch.zeros(2, 66, dtype=torch.bool)
        masked = tower.masked_features(images, nothing, torch.zeros(tower.trunk.embed_dim))
        torch.testing.assert_close(masked, wanted, atol=1e-5, rtol=1e-5)
        few = draw_keep_indices(2, 66, 0.5)
        assert tower.features(images, few).shape == (2, 1 + 33, wanted.shape[-1])


def test_the_default_is_timms_own_forward_and_a_view_leaves_the_model_alone(tmp_path):
    model = tiny("timm")
    images = torch.randn(1, 3, 3 * 16, 7 * 16)
    native = torch.randn(1, 3, model.preprocess.resolution, model.preprocess.resolution)
    before, at_home = model.embed_patches(images), model.embed_patches(native)
    tokens = model.image.trunk.forward_features(images)
    assert torch.equal(model.image.features(images), tokens)
    view = with_positions(model, "dino")
    assert position_rule(view) == "dino" and position_rule(model) == "timm"
    assert all(a is b for a, b in zip(view.parameters(), model.parameters(), strict=True))
    assert not torch.equal(view.embed_patches(images), before)
    assert torch.equal(view.embed_patches(native), at_home)
    assert not torch.equal(with_dense_mode(view, "naclip").embed_patches(images), before)
    assert torch.equal(model.embed_patches(images), before)
    assert with_positions(view, "dino") is view
    save_model(view, tmp_path / "saved")
    assert torch.equal(load_directory(tmp_path / "saved").eval().embed_patches(images), view.embed_patches(images))
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    del config["image"]["positions"]  # as earlier versions wrote it
    (tmp_path / "saved" / "config.json").write_text(json.dumps(config))
    assert torch.equal(load_directory(tmp_path / "saved").eval().embed_patches(images), before)


def test_models_without_a_table_and_unknown_rules_are_refused():
    with pytest.raises(ClippyError, match="no position table"):
        with_positions(build_model(load_architecture("align-nano"), seed=0), "dino")
    with pytest.raises(ClippyError, match="--positions cannot be 'bilinear'"):
        with_positions(tiny("timm"), "bilinear")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("vit_base_patch16_224.dino", "dino"),
        ("vit_base_patch14_dinov2.lvd142m", "dino"),
        ("vit_base_patch14_reg4_dinov2.lvd142m", "timm"),
        ("deit_small_patch16_224.fb_in1k", "timm"),
        ("vit_small_patch16_224", "timm"),
    ],
)
def test_released_trunks_follow_their_own_code(name, rule):
    assert timm.is_model(name.partition(".")[0]) and released_positions(name) == rule
