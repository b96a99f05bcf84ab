"""What segment and group share: regions of pixels in, files, tables and JSON out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands.image_run import MOST_TABLES, Record, run_images

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clippy_cli.inference.features import Encoded, ImageFile
    from clippy_cli.inference.label_map import LabelMap
    from clippy_cli.model.base import VisionLanguageModel

_IN_A_LINE = 5  # regions that a line names


@dataclass(frozen=True)
class Regions:
    """One image cut into regions.

    Attributes:
        label_map: the pixels; code i + 1 is ``names[i]``.
        names: of labels or groups.
        scored: whether the label map's scores mean something to a reader.
        suffix: what goes between an image's stem and the endings of its files.
        writers: kinds of file beyond the common ones: file name ending, and what writes it to a path.
    """

    label_map: LabelMap
    names: Sequence[str]
    scored: bool
    suffix: str = ""
    writers: Mapping[str, tuple[str, Callable[[Path], object]]] = field(default_factory=dict)


def run_regions(
    paths: Sequence[Path],
    model: VisionLanguageModel,
    divide: Callable[[Encoded[ImageFile]], Regions],
    settings: Mapping[str, Any],
    *,
    verb: str,
    kinds: Collection[str],
    out: Path,
    resolution: int,
    batch_size: int,
    json: bool,
) -> None:
    """Divide every image, write the ``kinds`` of files, print tables or JSON, and leave with the exit code due."""
    from clippy_cli.inference.features import patch_embeddings
    from clippy_cli.reporting.masks import region_records
    from clippy_cli.reporting.overlay import tint
    from clippy_cli.reporting.products import beside, save_json, save_label_map

    previews: list[NDArray[np.uint8]] = []
    wants_preview = len(paths) == 1 and console.out.is_terminal and not json

    def handle(encoded: Encoded[ImageFile], stem: str) -> Record:
        height, width = encoded.sample.image.shape[:2]
        regions = divide(encoded)
        label_map, names, base = regions.label_map, regions.names, out / (stem + regions.suffix)
        files = save_label_map(base, kinds, encoded.sample.image, label_map, names)
        for kind, (ending, write) in regions.writers.items():
            if kind in kinds:
                path = beside(base, ending)
                write(path)
                files[kind] = str(path)
        if "json" in kinds:
            files["json"] = str(beside(base, ".json"))
        record = {
            "width": width,
            "height": height,
            "unlabelled": round(float(label_map.shares[0]), 6),
            "regions": region_records(label_map, names, scored=regions.scored),
            "files": files,
        }
        if "json" in kinds:
            save_json(beside(base, ".json"), {**settings, "image": encoded.sample.key, **record})
        if wants_preview:
            previews.append(tint(encoded.sample.image, label_map.codes))
        return record

    run = run_images(
        paths,
        partial(patch_embeddings, model),
        handle,
        verb=verb,
        patch_size=model.preprocess.patch_size,
        resolution=resolution,
        batch_size=batch_size,
    )
    if json:
        console.print_json({**settings, "images": run.done, "failed": run.failed})
    else:
        for picture in previews:
            console.out.print(console.half_blocks(picture, width=console.out.width))
        _print_regions(run.done)
    run.finish()


def _print_regions(records: Sequence[Record]) -> None:
    for record in records:
        present = sorted((r for r in record["regions"] if r["share"] > 0), key=lambda r: -r["share"])
        if len(records) > MOST_TABLES:
            shares = ", ".join(f"{region['name']} {_percent(region['share'])}" for region in present[:_IN_A_LINE])
            console.out.print(Text.assemble((record["image"], "bold"), f"  {shares}"), soft_wrap=True)
        else:
            _print_table(record, present)
    written = [path for record in records for path in _paths(record["files"])]
    if written:
        more = f" and {len(written) - 1} more" if len(written) > 1 else ""
        console.out.print(Text(f"wrote {written[0]}{more}", "dim"), soft_wrap=True)


def _print_table(record: Record, present: Sequence[dict[str, Any]]) -> None:
    from clippy_cli.reporting.palette import colour

    title = Text.assemble((record["image"], "bold"), f"  {record['width']}x{record['height']}")
    console.out.print(title, soft_wrap=True)
    scored = any("score" in region for region in record["regions"])
    table = Table("", "name", box=None, pad_edge=False)
    for heading in ("share", "score") if scored else ("share",):
        table.add_column(heading, justify="right")
    for region in present:
        scores = [f"{region['score']:.3f}"] if scored else []
        table.add_row(console.swatch(colour(region["code"])), Text(region["name"]), _percent(region["share"]), *scores)
    if record["unlabelled"] > 0:
        table.add_row("", Text("unlabelled", "dim"), _percent(record["unlabelled"]))
    console.out.print(table)
    absent = [region["name"] for region in record["regions"] if region["share"] == 0]
    if absent:
        console.out.print(Text(f"no pixel: {', '.join(absent)}", "dim"), soft_wrap=True)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _paths(files: Mapping[str, str | list[str]]) -> list[str]:
    return [path for value in files.values() for path in (value if isinstance(value, list) else [value])]
