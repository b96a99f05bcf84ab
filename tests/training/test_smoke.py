from __future__ import annotations

from pathlib import Path

import pytest

from clippy_cli.recipe.loading import load_recipe, shipped_recipes
from clippy_cli.training.run import train


@pytest.mark.slow
@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_trains_in_its_smoke_form(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, [f"output={tmp_path / 'run'}"], smoke=True)
    result = train(recipe, device="cpu")
    assert result.finished and result.step == recipe.train.steps
    assert (tmp_path / "run-smoke" / "model" / "model.safetensors").is_file()
