"""A folder of shards as the place of one pack: its settings, what it was packed from, and what has changed since."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from clippy_cli.data.pack_index import PackedRow, captions_digest, has_changed, kept_rows, read_index
from clippy_cli.errors import ClippyError, refusal
from clippy_cli.files import claim_folder, write_whole
from clippy_cli.notices import Notices, printable
from clippy_cli.regular_files import is_folder, read_bytes

PACK_FILE = "pack.json"
MAX_SHARDS = 1_000_000

_NAMED = 5
_OR_OVERWRITE = (
    "Choose another folder for the shards, or replace an earlier pack and files of the shards' names with --overwrite."
)


class CaptionedFiles(Protocol):
    """Image files, each with its captions."""

    @property
    def notices(self) -> Notices: ...

    def __len__(self) -> int: ...

    def key(self, index: int) -> str: ...

    def path(self, index: int) -> Path: ...

    def captions(self, index: int) -> tuple[str, ...]: ...

    def image_bytes(self, index: int) -> bytes: ...


class Packing(BaseModel):
    """How shards are made.

    Attributes:
        shards: how many; samples are spread evenly over them.
        max_side: larger images are shrunk to this longer side in pixels and become upright JPEGs; None: none are.
        quality: of the JPEGs that are made, 1 to 95.
        shuffle, seed: whether samples are mixed over all shards, and by which draw.
        prefix: of the shards' names and keys: letters, digits, ``-`` and ``_``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    shards: Annotated[int, Field(ge=1, le=MAX_SHARDS)]
    max_side: int | None = None
    quality: int = 92
    shuffle: bool = True
    seed: int = 0
    prefix: str = ""

    @property
    def digits(self) -> int:
        """Of a shard's number; at least five, as img2dataset has it."""
        return max(5, len(str(self.shards - 1)))

    def name(self, number: int) -> str:
        """What shard ``number`` is called, without ``.tar``."""
        return f"{self.prefix}{number:0{self.digits}}"

    def files(self, out: Path, number: int) -> tuple[Path, Path]:
        """Shard ``number`` in the folder ``out``, and its index."""
        return out / f"{self.name(number)}.tar", out / f"{self.name(number)}.tsv"

    @property
    def pattern(self) -> str:
        """All shards' file names, as a recipe takes them: ``{00000..00007}.tar``."""
        if self.shards == 1:
            return f"{self.name(0)}.tar"
        return f"{self.prefix}{{{0:0{self.digits}}..{self.shards - 1:0{self.digits}}}}.tar"


class PackFile(BaseModel):
    """What ``pack.json`` says: the settings, and a fingerprint of the names and captions that were packed.

    ``notices``, once all shards are whole, are what of the table or folder was not used as it stands.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    packing: Packing
    images: int
    fingerprint: str
    notices: list[dict[str, Any]] | None = None


def claim(
    out: Path, described: PackFile, source: CaptionedFiles, order: NDArray[np.int64], notices: Notices
) -> dict[int, list[PackedRow]]:
    """Write ``pack.json`` into an empty folder; where it is, the rows of the shards that can be kept, by their numbers.

    ClippyError where another pack or anything else is there, or where files have changed since.
    """
    path, description = out / PACK_FILE, described.model_dump_json(indent=2).encode()
    earlier = claim_folder(out, PACK_FILE, description, _OR_OVERWRITE)
    if earlier is None:
        return {}
    try:
        before = PackFile.model_validate_json(earlier)
    except ValidationError as error:
        raise ClippyError(f"{path}: is not what a pack leaves here", _OR_OVERWRITE) from error
    if before.model_copy(update={"notices": None}) != described:
        old, new = before.packing.model_dump(), described.packing.model_dump()
        changed = [f"{name} was {old[name]}, now {new[name]}" for name in old if old[name] != new[name]]
        changed += [] if before.fingerprint == described.fingerprint else [_named_changes(out, before, source)]
        raise ClippyError(f"{out}: holds another pack: {'; '.join(changed)}", _OR_OVERWRITE)
    for part in out.glob(".*.part"):  # what a killed run left
        part.unlink(missing_ok=True)
    kept: dict[int, list[PackedRow]] = {}
    for number, indices in enumerate(np.array_split(order, described.packing.shards)):
        tar, index = described.packing.files(out, number)
        rows = kept_rows(tar, index, len(indices))
        if rows is not None:
            kept[number] = rows
        elif tar.exists():
            reason = "was not whole, or of an earlier version, and is packed again"
            notices.assumed("shard", reason, tar.name)
    _refuse_changed(out, described.packing, kept)
    return kept


def claim_anew(out: Path, described: PackFile) -> None:
    """Write ``pack.json``, in place of an earlier pack there and of whatever has its shards' names; the rest stays."""
    path = out / PACK_FILE
    packings = [described.packing]
    with suppress(OSError, ValidationError):
        packings.append(PackFile.model_validate_json(read_bytes(path)).packing)
    try:
        path.unlink(missing_ok=True)
        for packing in packings if is_folder(out) else ():
            for number in range(packing.shards):
                for file in packing.files(out, number):
                    file.unlink(missing_ok=True)
    except OSError as error:
        raise ClippyError(f"{out}: cannot be replaced ({refusal(error)})", "Choose another folder.") from error
    description = described.model_dump_json(indent=2).encode()
    write_whole(path, lambda stream: stream.write(description))


def _refuse_changed(out: Path, packing: Packing, kept: dict[int, list[PackedRow]]) -> None:
    """ClippyError where the image of a kept row is another file now."""
    changed = {number: [row.image for row in rows if has_changed(row)] for number, rows in kept.items()}
    images = [image for found in changed.values() for image in found]
    if images:
        shards = [str(packing.files(out, number)[0]) for number, found in changed.items() if found]
        raise ClippyError(
            f"{out}: {len(images):,} images have changed since they were packed here: {_listed(images)}",
            f"To pack them again, delete {_listed(shards)} and repeat the command, or replace all with --overwrite; or "
            "choose another folder.",
        )


def _named_changes(out: Path, before: PackFile, source: CaptionedFiles) -> str:
    """What of the images and captions differs from those that were packed, as far as the shards' indices tell."""
    packed: dict[str, str] = {}
    for number in range(before.packing.shards):
        rows = read_index(before.packing.files(out, number)[1]) or []
        packed.update((row.image, row.captions) for row in rows)
    places = {os.fspath(source.path(index)): index for index in range(len(source))}
    gone = [image for image in packed if image not in places]
    new = [image for image in places if image not in packed]
    said = [
        image
        for image, digest in packed.items()
        if image in places and captions_digest(source.captions(places[image])) != digest
    ]
    found = [("have other captions", said), ("are gone", gone)]
    found += [("are new", new)] if len(packed) == before.images else []
    named = [f"{len(images):,} {what} ({_listed(images)})" for what, images in found if images]
    return "its images or captions were others" + (f": {', '.join(named)}" if named else "")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(map(printable, names[:_NAMED])) + more
