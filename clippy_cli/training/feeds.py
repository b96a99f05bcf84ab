"""From a recipe's source to a feed of batches."""

from __future__ import annotations

from pathlib import Path

from clippy_cli.data.captions import CaptionSource
from clippy_cli.data.class_captions import ClassFolderSource
from clippy_cli.data.identity import outline
from clippy_cli.data.mixture import MixturePart, MixtureSource
from clippy_cli.data.scenes import SceneSource
from clippy_cli.data.shards import ShardSource
from clippy_cli.data.streams import StreamSource
from clippy_cli.data.tables import TableSource
from clippy_cli.errors import ClippyError
from clippy_cli.model.clippy import Clippy
from clippy_cli.processes import Processes
from clippy_cli.recipe.data import (
    ClassFoldersRecipe,
    MixtureRecipe,
    ScenesRecipe,
    ShardsRecipe,
    SourceRecipe,
    TableRecipe,
)
from clippy_cli.recipe.schema import Recipe
from clippy_cli.training.loader import ImageFeed


def open_feed(recipe: Recipe, source: SourceRecipe, model: Clippy, shards: Path, processes: Processes) -> ImageFeed:
    """Images and captions of ``source`` as ``recipe`` wants them, and two views of each where a term compares them.

    Shards behind URLs are kept in ``shards`` where the recipe names no other folder. ClippyError where the source does
    not exist, holds nothing, or has too few shards for ``processes``.
    """
    resolution, self_distillation = model.preprocess.resolution, recipe.train.self_distillation
    return ImageFeed(
        _open_source(source, resolution, shards, recipe.seed, processes),
        recipe.data,
        resolution,
        model.text.tokenize,
        seed=recipe.seed,
        pin_memory=model.device.type == "cuda",
        views=self_distillation if self_distillation.weight else None,
    )


def check_same_data(feed: ImageFeed | None, processes: Processes) -> None:
    """ClippyError in all processes where they do not see the same samples, as on machines whose folders differ."""
    if feed is None or processes.size == 1:
        return
    seen = processes.gather((feed.source.describe(), outline(feed.source)))
    others = [rank for rank, one in enumerate(seen) if one != seen[0]]
    if others:
        raise ClippyError(
            f"Process {others[0]} does not see the data of process 0: {seen[others[0]][0]}, and not {seen[0][0]}",
            "Give all machines the same files under the same paths; clippy data check names what one of them sees.",
        )


def _open_source(
    recipe: SourceRecipe, resolution: int, shards: Path, seed: int, processes: Processes
) -> CaptionSource | StreamSource:
    if not isinstance(recipe, ShardsRecipe) or not recipe.remote:
        return open_local(recipe, resolution)
    assert recipe.samples is not None  # the recipe checks it
    stream = StreamSource(
        recipe.paths,
        samples=recipe.samples,
        cache=Path(recipe.cache) if recipe.cache else shards,
        cache_bytes=int(recipe.cache_gb * 1e9),
        window=recipe.window,
        seed=seed,
        sharers=processes.local_size,
    )
    stream.check_processes(processes.size)
    return stream


def open_local(recipe: SourceRecipe, resolution: int) -> CaptionSource:
    """The source that ``recipe`` names, of local files only; scenes are drawn at ``resolution``."""
    match recipe:
        case ScenesRecipe():
            return SceneSource(recipe.count, recipe.seed, resolution)
        case TableRecipe():
            table = TableSource(recipe.path, recipe.image_column, recipe.caption_column, recipe.root)
            table.refuse_doubtful(recipe.max_doubtful, "set max_doubtful of this source to a larger share")
            return table
        case ClassFoldersRecipe():
            return ClassFolderSource(recipe.path)
        case ShardsRecipe():
            return ShardSource(recipe.paths)
        case MixtureRecipe():
            return MixtureSource(
                [MixturePart(open_local(part.source, resolution), part.repeat) for part in recipe.parts]
            )
