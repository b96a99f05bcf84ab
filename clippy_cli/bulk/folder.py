"""The folder of one bulk run: its settings, which parts are finished, and who works on the others.

    manifest.json        settings, inputs; once all is done, every result with its counts and digest
    NAME.tar             the result of the part NAME (or .jsonl, .safetensors, .parquet)
    records/NAME.json    written after the result, in one step: the part is finished
    .working/NAME/       of a part that is worked on: a lock, and the result as it grows

A process may die at any point: what has no record is done again, into the same bytes.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from clippy_cli.bulk.parts import Part, file_digest
from clippy_cli.errors import ClippyError, refusal
from clippy_cli.files import json_text, require_empty, write_whole
from clippy_cli.locks import LOCK, hold_folder
from clippy_cli.notices import NoticeKind, Notices
from clippy_cli.regular_files import read_bytes

MANIFEST = "manifest.json"
WORKING = ".working"
FETCHED = ".shards"
LEASE_SECONDS = 600.0
FORMAT = 1

_RECORDS = "records"
_MOST_NAMED = 6
_OTHER = "Choose another folder with --out, or delete this one."


class NoticeRecord(BaseModel):
    """A :class:`~clippy_cli.notices.Notice` as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: NoticeKind
    unit: str
    reason: str
    count: int
    examples: tuple[str, ...]
    hint: str


class PartRecord(BaseModel):
    """What is noted of a finished part.

    Attributes:
        result: name of its file; of ``bytes`` bytes, with this ``sha256``.
        source: what the part is called.
        input: what it was made from, see :meth:`Part.facts`.
        photos: how many there were; ``failures`` of them could not be used.
        notices: what was not used as it stands.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    result: str
    source: str
    input: dict[str, str | int]
    bytes: int
    sha256: str
    photos: int
    failures: int
    notices: tuple[NoticeRecord, ...]

    def lasting(self) -> dict[str, Any]:
        """Ready for JSON, without times."""
        document = self.model_dump(mode="json")
        document["input"].pop("modified", None)
        return document


@dataclass(frozen=True)
class BulkFolder:
    """Where results of ``parts`` go, each with the ending ``ending``; ``work`` is what others are told of a lock."""

    root: Path
    parts: Sequence[Part]
    ending: str
    work: str

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Write the manifest into a new or empty folder, or find the same one there.

        ClippyError that names what differs where the folder belongs to another run, or holds anything else.
        """
        run = json.loads(json_text({**settings, "inputs": [part.source for part in self.parts]}))
        path = self.root / MANIFEST
        if not path.exists() and not self._is_used_by_others(path):
            _write_new(path, json_text({"format": FORMAT, "run": run, "finished": False}).encode())
        try:
            document = json.loads(read_bytes(path))
            before = document["run"]
            if document["format"] != FORMAT or not isinstance(before, dict):
                raise ValueError("of another version")
            changed = _differences(before, run)
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise ClippyError(f"{path}: is not what a run over shards leaves here ({error})", _OTHER) from error
        if changed:
            more = f"; and {len(changed) - _MOST_NAMED} more" if len(changed) > _MOST_NAMED else ""
            listed = "; ".join(changed[:_MOST_NAMED]) + more
            raise ClippyError(f"{self.root} holds the results of another run: {listed}", _OTHER)

    def result(self, part: Part) -> Path:
        """The file that the part becomes."""
        return self.root / f"{part.name}{self.ending}"

    def record(self, part: Part) -> PartRecord | None:
        """What was noted of a finished part; None where it is to be done, or was made from another input."""
        try:
            record = PartRecord.model_validate_json(read_bytes(self._record_path(part)))
            whole = self.result(part).stat().st_size == record.bytes
            return record if whole and part.is_same(record.input) else None
        except (OSError, ValueError, KeyError):
            return None

    @contextmanager
    def working(self, part: Part) -> Iterator[Path]:
        """Hold a part, for the length of the block, and give an empty folder for it.

        FolderInUseError where another process has it: one of this machine that lives, or one of another machine that
        has touched its lock within ``LEASE_SECONDS``.
        """
        folder = self.root / WORKING / part.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ClippyError(f"{folder}: cannot be made ({refusal(error)})", "Choose another folder.") from error
        with hold_folder(folder, self.work, lease=LEASE_SECONDS):
            _clear(folder)
            try:
                yield folder
            finally:
                _clear(folder)

    def finish(self, part: Part, written: Path, photos: int, failures: int, notices: Notices) -> None:
        """Move the whole result of a held part to its place, and record it."""
        record = PartRecord(
            result=self.result(part).name,
            source=part.source,
            input=part.facts(),
            bytes=written.stat().st_size,
            sha256=file_digest(written),
            photos=photos,
            failures=failures,
            notices=tuple(NoticeRecord.model_validate(notice) for notice in notices.records()),
        )
        try:
            written.replace(self.result(part))
        except OSError as error:
            raise ClippyError(
                f"{self.result(part)}: cannot be written ({refusal(error)})", "Free some space."
            ) from error
        text = json_text(record.model_dump(mode="json"))
        write_whole(self._record_path(part), lambda stream: stream.write(text.encode()))

    def complete(self, settings: Mapping[str, Any]) -> list[PartRecord] | None:
        """Write every record into the manifest, where all parts are finished; else None.

        The bytes do not depend on which process does so, nor on times.
        """
        records = []
        for part in self.parts:
            record = self.record(part)
            if record is None:
                return None
            records.append(record)
        run = {**settings, "inputs": [part.source for part in self.parts]}
        totals = {name: sum(getattr(record, name) for record in records) for name in ("photos", "failures", "bytes")}
        results = [record.lasting() for record in records]
        document = json_text({"format": FORMAT, "run": run, "finished": True, **totals, "results": results})
        write_whole(self.root / MANIFEST, lambda stream: stream.write(document.encode()))
        for name in (WORKING, FETCHED):
            shutil.rmtree(self.root / name, ignore_errors=True)
        return records

    def _is_used_by_others(self, path: Path) -> bool:
        """False for a new or empty folder; True where another process has written the manifest meanwhile."""
        try:
            require_empty(self.root, _OTHER)
        except ClippyError:
            if not path.exists():
                raise
            return True
        return False

    def _record_path(self, part: Part) -> Path:
        return self.root / _RECORDS / f"{part.name}.json"


def finished_parts(root: Path) -> int:
    """How many parts have a record in the folder of a run; quick, for a display."""
    with suppress(OSError):
        return sum(not path.name.startswith(".") for path in (root / _RECORDS).iterdir())
    return 0


def _write_new(path: Path, content: bytes) -> None:
    """Write a file whole unless another process has done so meanwhile."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            with suppress(FileExistsError):
                _link(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ClippyError(f"{path}: cannot be written ({refusal(error)})", "Choose another folder.") from error


def _link(temporary: Path, path: Path) -> None:
    """Give a file its name in one step; FileExistsError where that is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError from None
        temporary.replace(path)


def _clear(folder: Path) -> None:
    """Remove what a killed process left, but not the lock."""
    for path in folder.iterdir():
        if path.name != LOCK:
            with suppress(OSError):
                path.unlink()


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], inside: str = "") -> list[str]:
    """Lines such as ``settings.labels.dog was ['dog'], now ['puppy']``."""
    found = []
    for name in dict.fromkeys((*before, *now)):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += _differences(old, new, f"{inside}{name}.")
        elif old != new:
            found.append(f"{inside}{name} {_change(old, new)}")
    return found


def _change(old: Any, new: Any) -> str:
    if isinstance(old, list) and isinstance(new, list) and len(old) + len(new) > _MOST_NAMED:
        before, now = set(map(str, old)), set(map(str, new))
        gone, added = sorted(before - now), sorted(now - before)
        first = next(iter((*gone, *added)), "their order")
        return f"had {len(old):,}, now {len(new):,}; {len(gone):,} gone, {len(added):,} new, such as {first}"
    return f"was {old!r}, now {new!r}"
