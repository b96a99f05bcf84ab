"""What segment and group share: save every result, and print tables or JSON."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands.image_run import MOST_TABLES, ImageInput, Record, collect
from clippy_cli.commands.profile_table import print_profile, profile_record
from clippy_cli.commands.results_folder import numbered
from clippy_cli.regular_files import is_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clippy_cli.api import Clip
    from clippy_cli.reporting.answers import Answer
    from clippy_cli.reporting.results import Divided
    from clippy_cli.stages import Profile

_OUT = Path("clippy_out")
_IN_A_LINE = 5  # regions that a line names


@dataclass(frozen=True)
class Bases:
    """What the names of results begin with: each photo's stem and one of ``suffixes``, for any of ``known`` kinds."""

    paths: Sequence[Path]
    suffixes: Sequence[str]
    known: Sequence[str]

    def check(self, folder: Path, kinds: Sequence[str]) -> None:
        """ClippyError that names files in the way of ``kinds`` which clippy did not make from the same photo."""
        from clippy_cli.own_files import own_files

        own = own_files(folder)
        for path, there in self._existing(folder, kinds):
            own.check(there, os.path.abspath(path))  # noqa: PTH100

    def are_free(self, folder: Path) -> bool:
        """Whether ``folder`` holds nothing of any kind under these names, and no other command holds it alone."""
        from clippy_cli.locks import FolderInUseError, refuse_in_use

        try:
            refuse_in_use(folder)
        except FolderInUseError:
            return False
        return not any(True for _, there in self._existing(folder, self.known) for _ in there)

    def _existing(self, folder: Path, kinds: Sequence[str]) -> Iterator[tuple[Path, Iterable[Path]]]:
        from clippy_cli.reporting.files import existing_files, output_stems

        if is_folder(folder):
            for path, stem in zip(self.paths, output_stems(self.paths), strict=True):
                for suffix in self.suffixes:
                    yield path, existing_files(folder / (stem + suffix), kinds)


@dataclass(frozen=True)
class Output:
    """Where results go: the ``kinds`` of files into ``folder``, and one JSON document instead of tables to stdout.

    ``overwrite`` replaces files that clippy did not write; ``new`` replaces none.
    """

    folder: Path
    kinds: tuple[str, ...]
    json: bool
    overwrite: bool = False
    new: bool = False

    @classmethod
    def choose(cls, named: Path | None, kinds: tuple[str, ...], json: bool, overwrite: bool, bases: Bases) -> Output:
        """The folder that --out names, or the first of clippy_out, clippy_out-2, ... without results of these photos.

        ClippyError, before any work, that names files in the way which clippy did not make from the same photo.
        """
        if named is not None or overwrite or not kinds:
            folder = named or _OUT
            if not overwrite:
                bases.check(folder, kinds)
            return cls(folder, kinds, json, overwrite)
        folder = next(folder for folder in numbered(_OUT) if bases.are_free(folder))
        if folder != _OUT:
            console.print_hint(
                f"Results go to {folder}, since earlier ones of these photos are kept; --overwrite replaces those in "
                f"{_OUT}, --out names another folder."
            )
        return cls(folder, kinds, json, new=True)

    @contextmanager
    def held(self, work: str) -> Iterator[None]:
        """While the block runs, share the folder with others that write photo by photo, and with nobody else."""
        from clippy_cli.locks import hold_folder

        with hold_folder(self.folder, work, shared=True) if self.kinds else nullcontext():
            yield


def run_divided(
    clip: Clip,
    answer: Answer[Divided],
    images: ImageInput,
    output: Output,
    *,
    verb: str,
    batch_size: int,
    regions: Path | None = None,
    profile: Profile | None = None,
) -> None:
    """Save the result of every photo, print tables or JSON and the ``profile``, leave with the exit code due."""
    from clippy_cli.reporting.files import WITH_REGIONS
    from clippy_cli.reporting.overlay import tint
    from clippy_cli.reporting.results import Segmentation

    previews: list[NDArray[np.uint8]] = []
    wants_preview = len(images.paths) == 1 and console.out.is_terminal and not output.json

    def record(result: Divided, stem: str) -> Record:
        files = result.save(output.folder, output.kinds, stem=stem, overwrite=output.overwrite, new=output.new)
        voted_files = files.pop(WITH_REGIONS, None)
        fields: Record = {**result.record(), "files": files}
        if isinstance(result, Segmentation) and result.by_region is not None:
            fields[WITH_REGIONS] = {**result.by_region.record(), "files": voted_files}
        if wants_preview:
            previews.append(tint(result.image, result.mask))
        return fields

    results = clip.answer(answer, images.paths, regions=regions, batch_size=batch_size)
    run = collect(results, images, verb, record)
    timed = {} if profile is None else {"profile": profile_record(profile, len(images.paths))}
    if output.json:
        console.print_json(
            {**answer.settings, "images": run.done, "failed": run.failed, "notices": run.notices.records(), **timed}
        )
    else:
        for picture in previews:
            console.out.print(console.half_blocks(picture, width=console.out.width))
        _print_regions([part for done in run.done for part in _apart(done, WITH_REGIONS)])
    if timed and not output.json:
        print_profile(timed["profile"])
    run.finish()


def _apart(record: Record, key: str) -> list[Record]:
    """A record, and that of its regions from elsewhere, if any."""
    voted = record.get(key)
    return [record] if voted is None else [record, {"image": f"{record['image']} {key}", **voted}]


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
        table.add_row("", Text("unlabeled", "dim"), _percent(record["unlabelled"]))
    console.out.print(table)
    absent = [region["name"] for region in record["regions"] if region["share"] == 0]
    if absent:
        console.out.print(Text(f"no pixel: {', '.join(absent)}", "dim"), soft_wrap=True)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _paths(files: Mapping[str, str | list[str]]) -> list[str]:
    return [path for value in files.values() for path in (value if isinstance(value, list) else [value])]
