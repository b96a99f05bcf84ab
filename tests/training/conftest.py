from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clippy_cli.recipe.loading import load_recipe

ARCHITECTURE = """\
name: tiny
embed_dim: 16
image:
  trunk: vit_tiny_patch16_224
  trunk_args: {img_size: 32, patch_size: 8, embed_dim: 32, depth: 2, num_heads: 2}
  projection: linear
  pooling: max
text:
  kind: open_clip
  encoder: {width: 16, heads: 2, layers: 1, vocab_size: 49408}
  context_length: 32
  pooling: eot
  projection: linear
preprocess: {mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5], resolution: 32}
inference: {resolution: 32}
"""

RECIPE = """\
name: tiny
output: RUN
seed: 3
model: {architecture: ARCHITECTURE}
data:
  source: {kind: scenes, count: 40}
  flip: true
  workers: 0
train: {epochs: 2, batch_size: 8, lr: 1e-3, warmup_steps: 2, drop_rate: 0.5, log_every: 1, checkpoint_every: 2}
"""


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """So small a model gains nothing from more threads, and loses much to them where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe of ten steps, each a few milliseconds, on 32-pixel scenes; the architecture lies beside it."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "tiny.yaml").write_text(ARCHITECTURE, encoding="utf-8")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.replace("ARCHITECTURE", str(folder / "tiny.yaml")), encoding="utf-8")
    return path


@pytest.fixture
def tiny(tiny_recipe_file: Path, tmp_path: Path):
    """Load the tiny recipe with overrides; its run folder is tmp_path/run."""

    def load(*overrides: str):
        return load_recipe(str(tiny_recipe_file), [f"output={tmp_path / 'run'}", *overrides])

    return load
