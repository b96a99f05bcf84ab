"""What segment and group share: regions of pixels in, files, tables and JSON out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
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

    from clippy_cli.inference.features import Encode, Encoded, ImageFile
    from clippy_cli.inference.label_map import LabelMap
    from clippy_cli.model.base import VisionLanguageModel

WITH_REGIONS = "+regions"
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
        voted: the pixels after regions from elsewhere took one label each; reported apart, as ``+regions``.
    """

    label_map: LabelMap
    names: Sequence[str]
    scored: bool
    suffix: str = ""
    writers: Mapping[str, tuple[str, Callable[[Path], object]]] = field(default_factory=dict)
    voted: LabelMap | None = None


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
    encode: Encode | None = None,
    read: Callable[[Path], ImageFile] | None = None,
) -> None:
    """Divide every image, write the ``kinds`` of files, print tables or JSON, and leave with the exit code due.

    ``encode`` makes patch embeddings of images, by default of each as a whole; ``read`` decodes a file, by default as
    a plain photo.
    """
    from clippy_cli.inference.features import patch_embeddings
    from clippy_cli.reporting.masks import region_records
    from clippy_cli.reporting.overlay import tint
    from clippy_cli.reporting.products import beside, save_json, save_label_map

    previews: list[NDArray[np.uint8]] = []
    wants_preview = len(paths) == 1 and console.out.is_terminal and not json

    def handle(encoded: Encoded[ImageFile], stem: str) -> Record:
        regions = divide(encoded)
        record = report(encoded, regions, out / (stem + regions.suffix))
        if regions.voted is not None:
            apart = replace(regions, label_map=regions.voted, writers={}, voted=None)
            record[WITH_REGIONS] = report(encoded, apart, out / (stem + regions.suffix + WITH_REGIONS))
        if wants_preview:
            previews.append(tint(encoded.sample.image, regions.label_map.codes))
        return record

    def report(encoded: Encoded[ImageFile], regions: Regions, base: Path) -> Record:
        height, width = encoded.sample.image.shape[:2]
        label_map, names = regions.label_map, regions.names
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
        return record

    run = run_images(
        paths,
        encode or partial(patch_embeddings, model),
        handle,
        verb=verb,
        patch_size=model.preprocess.patch_size,
        resolution=resolution,
        batch_size=batch_size,
        read=read,
    )
    if json:
        console.print_json({**settings, "images": run.done, "failed": run.failed})
    else:
        for picture in previews:
            console.out.print(console.half_blocks(picture, width=console.out.width))
        _print_regions([part for record in run.done for part in _apart(record)])
    run.finish()


def _apart(record: Record) -> list[Record]:
    """A record, and that of its regions, if any."""
    voted = record.get(WITH_REGIONS)
    return [record] if voted is None else [record, {"image": f"{record['image']} {WITH_REGIONS}", **voted}]


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
