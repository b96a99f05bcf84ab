"""From objects and backgrounds to a set on disk, in the layout that :func:`open_waterbirds` reads."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from clippy_cli.data.images import read_image
from clippy_cli.errors import ClippyError
from clippy_cli.files import claim_folder, write_whole
from clippy_cli.notices import MOST_EXAMPLES, Notices, printable
from clippy_cli.waterbirds.build.backgrounds import Backgrounds
from clippy_cli.waterbirds.build.compose import compose
from clippy_cli.waterbirds.build.foregrounds import Foregrounds
from clippy_cli.waterbirds.build.plan import Placement, PlacementPlan, plan_placements
from clippy_cli.waterbirds.dataset import BUILD_FILE, COLUMNS, METADATA, SPLITS, GroupCounts, open_waterbirds

JPEG_QUALITY = 95
_ELSEWHERE = "Choose another --out, or empty this one."
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildReport:
    """What was built.

    Attributes:
        classes, places: names, by their codes; class 0 goes with place 0 in training.
        counts: images of each split in each group, 2 * class + place, as read back from disk.
        written, kept: images made now, and images that were there whole from an earlier run.
        reused: for each place, how many images got a background that another one has already.
    """

    folder: Path
    classes: tuple[str, str]
    places: tuple[str, str]
    counts: dict[str, GroupCounts]
    written: int
    kept: int
    reused: tuple[int, int]


class _BuildFile(BaseModel):
    """What ``build.json`` says: how the set is made, and a fingerprint of all that its images depend on."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    strength: float
    seed: int
    classes: tuple[str, str]
    places: tuple[str, str]
    foregrounds: int
    backgrounds: tuple[int, int]
    fingerprint: str


def build_set(
    foregrounds: Foregrounds,
    backgrounds: Backgrounds,
    out: Path,
    *,
    strength: float = 0.95,
    seed: int = 0,
    workers: int = 2,
    on_notices: Callable[[Notices], object] = lambda notices: None,
    on_progress: Callable[[], object] | None = None,
) -> BuildReport:
    """Paste every object on a background, write images and ``metadata.csv`` into ``out``, and read the set back.

    The result depends on everything but ``workers``. Whole images of an interrupted run of the same plan are kept;
    ``metadata.csv`` comes last. ``on_progress`` is called once an image, ``on_notices`` before one is written with what
    was assumed when its files were read; it may raise. ClippyError where ``out`` holds anything else
    or an input cannot be used.
    """
    plan = plan_placements(foregrounds, backgrounds, strength=strength, seed=seed)
    described = _BuildFile(
        strength=strength,
        seed=seed,
        classes=foregrounds.classes,
        places=backgrounds.places,
        foregrounds=len(foregrounds),
        backgrounds=(len(backgrounds.files[0]), len(backgrounds.files[1])),
        fingerprint=_fingerprint(foregrounds, backgrounds, plan),
    )
    _claim(out, described, lambda path: _modified_since(path, foregrounds, backgrounds, plan))
    for place, reused in zip(backgrounds.places, plan.reused, strict=True):
        if reused:
            _log.warning("%s: there are too few backgrounds, %d images get one that another has already", place, reused)
    make = partial(_make, foregrounds, backgrounds, out, on_notices)
    written = 0
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        for future in as_completed([pool.submit(make, row) for row in plan.placements]):
            written += future.result()
            if on_progress is not None:
                on_progress()
    finally:
        pool.shutdown(cancel_futures=True)  # on Ctrl-C the images at hand become whole, the others are left
    write_whole(out / METADATA, lambda stream: stream.write(_metadata(plan)))
    return BuildReport(
        out,
        foregrounds.classes,
        backgrounds.places,
        _verified(out, plan),
        written,
        len(plan.placements) - written,
        plan.reused,
    )


def _claim(out: Path, described: _BuildFile, modified_since: Callable[[Path], str]) -> None:
    """Write the plan's description into an empty folder; ClippyError where another plan or anything else is there."""
    path = out / BUILD_FILE
    earlier = claim_folder(out, BUILD_FILE, described.model_dump_json(indent=2).encode(), _ELSEWHERE)
    if earlier is None:
        return
    try:
        before = _BuildFile.model_validate_json(earlier)
    except ValidationError as error:
        raise ClippyError(f"{path}: is not the plan of a set that was built here", _ELSEWHERE) from error
    if before != described:
        old, new = before.model_dump(), described.model_dump()
        named = [name for name in old if name != "fingerprint" and old[name] != new[name]]
        changed = [f"{name} was {old[name]}, now {new[name]}" for name in named]
        if before.fingerprint != described.fingerprint and not named:
            changed = [f"its photos, masks or backgrounds were others{modified_since(path)}"]
        raise ClippyError(
            f"{out}: holds another set: {'; '.join(changed)}",
            "Empty the folder to build again, or name another one with --out.",
        )


def _make(
    foregrounds: Foregrounds,
    backgrounds: Backgrounds,
    out: Path,
    on_notices: Callable[[Notices], object],
    row: Placement,
) -> bool:
    """Write one image; False where it is there already and can be read."""
    path = out / row.key
    try:
        read_image(path)
        return False
    except ClippyError:  # missing, or damaged since
        pass
    foreground = foregrounds.read(row.foreground)
    notices = Notices(foreground.notices)
    background = read_image(backgrounds.folder / row.background, notices=notices)
    on_notices(notices)
    pixels = compose(foreground.image, foreground.mask, background)
    write_whole(path, partial(Image.fromarray(pixels).save, format="JPEG", quality=JPEG_QUALITY))
    return True


def _metadata(plan: PlacementPlan) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in plan.placements:
        # as published, numbers start at 1 and backgrounds with a slash
        writer.writerow((row.foreground + 1, row.key, row.class_index, row.split, row.place, f"/{row.background}"))
    return text.getvalue().encode()


def _sources(foregrounds: Foregrounds, backgrounds: Backgrounds, row: Placement) -> tuple[Path, Path, Path]:
    file = foregrounds.files[row.foreground]
    return file.image, file.mask, backgrounds.folder / row.background


def _modified_since(path: Path, foregrounds: Foregrounds, backgrounds: Backgrounds, plan: PlacementPlan) -> str:
    """The photos, masks and backgrounds that are newer than ``path``, in words; empty where none is."""
    begun = path.stat().st_mtime_ns
    used = dict.fromkeys(file for row in plan.placements for file in _sources(foregrounds, backgrounds, row))
    newer = [str(file) for file in used if file.stat().st_mtime_ns > begun]
    more = ", ..." if len(newer) > MOST_EXAMPLES else ""
    shown = ", ".join(map(printable, newer[:MOST_EXAMPLES]))
    return f" ({len(newer):,} modified since: {shown}{more})" if newer else ""


def _fingerprint(foregrounds: Foregrounds, backgrounds: Backgrounds, plan: PlacementPlan) -> str:
    """32 hexadecimal digits that change with any row of the plan, and with size or time of any file that it uses."""
    digest = hashlib.sha256()
    for row in plan.placements:
        try:
            found = [path.stat() for path in _sources(foregrounds, backgrounds, row)]
        except OSError as error:
            raise ClippyError(
                f"{error.filename}: cannot be read ({error.strerror})", "Unpack the data set again, or leave it out."
            ) from error
        codes = (
            row.key,
            row.class_index,
            row.split,
            row.place,
            row.background,
            *((stat.st_size, stat.st_mtime_ns) for stat in found),
        )
        digest.update(json.dumps(codes).encode() + b"\n")
    return digest.hexdigest()[:32]


def _verified(out: Path, plan: PlacementPlan) -> dict[str, GroupCounts]:
    """Group counts of each split, read back; ClippyError where they or the image files are not as planned."""
    counts: dict[str, GroupCounts] = {}
    for split in SPLITS:
        images = open_waterbirds(out, split)
        counts[split] = images.counts
        missing = [images.key(index) for index in range(len(images)) if not (out / images.key(index)).is_file()]
        if missing:
            raise ClippyError(f"{out / missing[0]}: was removed while the set was built", "Run the same command again.")
    if counts != plan.counts():
        raise ClippyError(f"{out / METADATA}: was changed while the set was built", "Run the same command again.")
    return counts
