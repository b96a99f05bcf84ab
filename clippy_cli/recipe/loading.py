"""From a YAML file and ``--set`` overrides to a checked :class:`Recipe`, or to every error at once."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import yaml

from clippy_cli.checked_yaml import FieldOverrides, load_checked
from clippy_cli.errors import ClippyError
from clippy_cli.recipe.data import unset_variables_allowed
from clippy_cli.recipe.schema import Recipe
from clippy_cli.recipe.smoke import smoke_recipe
from clippy_cli.regular_files import is_file

# Changing these leaves the sequence of updates as it was, so that a run may resume with other values.
FREE_TO_CHANGE = (
    "name",
    "output",
    "model.centre_patches",
    "data.validation",
    "data.workers",
    "data.prefetch",
    "data.source.cache",
    "data.source.cache_gb",
    "train.log_every",
    "train.validate_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "evaluate",
    "log",
)
# These keep the samples and the random draws, but not the last bits of sums, nor which units dropout zeroes.
SAME_BUT_FOR_ROUNDING = (
    "train.chunk_size",
    "train.final.chunk_size",
    "train.local_loss",
    "train.gather_with_grad",
    "train.compile",
)


def load_recipe(source: str | Path, overrides: FieldOverrides = (), *, smoke: bool = False) -> Recipe:
    """Read a recipe by path or by shipped name, apply overrides, and check it.

    Args:
        source: a YAML file, or the name of a shipped recipe such as ``quickstart``.
        overrides: ``{"train.lr": 3e-4, "data.resolution": [224, 336]}``: dotted field to value; or texts
            ``["train.lr=3e-4"]`` as the command line has them. Later ones win over earlier ones and over the file.
        smoke: the recipe's small form (see :mod:`clippy_cli.recipe.smoke`), which needs none of its variables.

    Raises:
        ClippyError: lists every problem with its line (or override), field, what is allowed and what was given.

    >>> recipe = load_recipe("quickstart", {"train.steps": 20, "train.warmup_steps": 2, "output": "runs/short"})
    >>> recipe.train.steps, recipe.output
    (20, 'runs/short')
    """
    path = find_recipe(source)
    if not smoke:
        return load_checked(path, Recipe, what="recipe", overrides=overrides)
    with unset_variables_allowed():
        return smoke_recipe(load_checked(path, Recipe, what="recipe", overrides=overrides))


def find_recipe(source: str | Path) -> Path:
    """The file that ``source`` names: a path, or the name of a shipped recipe such as ``quickstart``."""
    path = Path(source).expanduser()
    if is_file(path):
        return path
    shipped = shipped_recipes()
    if str(source) in shipped:
        return shipped[str(source)]
    close = difflib.get_close_matches(Path(source).stem, shipped, n=1)
    guess = f" Did you mean {close[0]}?" if close else ""
    raise ClippyError(
        f"There is no recipe {source}: no such file, and no shipped recipe has that name.{guess}",
        f"Shipped recipes: {', '.join(shipped) or 'none found'}",
    )


def shipped_recipes() -> dict[str, Path]:
    """Name -> file of the recipes in ./recipes, in the installed package, and beside a source checkout of it."""
    package = Path(__file__).parents[1]
    found: dict[str, Path] = {}
    for folder in (Path("recipes"), package / "recipes", package.parent / "recipes"):
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def dump_recipe(recipe: Recipe, *, first_line: str) -> str:
    """YAML of every field, defaults included, after ``first_line`` as a comment."""
    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return f"# {first_line}\n{text}"


def changed_fields(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the fields that differ between two dumped recipes and are not :data:`FREE_TO_CHANGE`."""
    changed: list[str] = []
    for name in dict.fromkeys([*old, *new]):
        field, before, after = f"{prefix}{name}", old.get(name), new.get(name)
        if before == after or field in FREE_TO_CHANGE:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            changed += changed_fields(before, after, f"{field}.")
        else:
            changed.append(field)
    return changed
