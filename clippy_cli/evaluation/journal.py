"""What an evaluation has counted so far, one line an image, so that an interrupted one goes on where it stopped.

The processes of a distributed run write a file each; whoever continues reads them all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TextIO

from pydantic import BaseModel, Field, NonNegativeInt

from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.result import ImageRecord, ResultTask
from clippy_cli.regular_files import read_bytes

_CHECK = ',"crc32":"'
logger = logging.getLogger(__name__)

Records = dict[ResultTask, ImageRecord]


def fingerprint(facts: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that change with any of these plain values."""
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Facts:
    """What an evaluation is ``of``, in words, and by their names digests of all else that its counts depend on."""

    of: str
    digests: Mapping[str, str]

    @property
    def name(self) -> str:
        """Another one for other facts."""
        return fingerprint({"of": self.of, **self.digests})

    @classmethod
    def digested(cls, of: str, values: Mapping[str, Any]) -> Facts:
        """Of plain values."""
        return cls(of, {name: fingerprint({name: value}) for name, value in values.items()})


@dataclass(frozen=True)
class Counted:
    """What an image added, and the stamp of the files that it was counted from (see :func:`file_stamp`)."""

    records: Records
    stamp: str = ""


class _Entry(BaseModel):
    """One image: a record a task, and the stamp of its files."""

    index: NonNegativeInt
    tasks: Records
    stamp: str = ""


class _Line(BaseModel):
    """One block of images, and how long it took."""

    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    images: tuple[_Entry, ...]


def file_stamp(files: Iterable[Path]) -> str:
    """Changes when one of the files is edited or replaced: their sizes and times of modification and change, hashed.

    The time of change is the system's own: it shows a replaced file whose size and other time are those of before.
    """
    digest = hashlib.sha256()
    for path in files:
        try:
            status = path.stat()
            digest.update(f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns};".encode())
        except OSError:
            digest.update(b"missing;")
    return digest.hexdigest()[:16]


class Journal:
    """The journal of one model on one set, for one process.

    Args:
        folder: where the files are; made if missing.
        facts: all that counts depend on; the name of the files is made of them, and other facts are another evaluation.
        process: rank of this process, which writes its own file.
    """

    def __init__(self, folder: Path, facts: Facts, process: int = 0) -> None:
        self._folder, self._facts, self._process = folder, facts, process
        self._name = facts.name
        self._stream: TextIO | None = None

    def superseded(self) -> tuple[str, ...]:
        """What differs from an evaluation of the same in this folder that was interrupted; none where this goes on."""
        others = {} if any(self._folder.glob(f"{self._name}.part*.jsonl")) else self._of_the_same()
        for digests in others.values():
            return tuple(name for name, digest in self._facts.digests.items() if digests.get(name) != digest)
        return ()

    def _of_the_same(self) -> dict[str, Mapping[str, str]]:
        """Names and digests of the journals here that are of the same in words, this one among them."""
        found: dict[str, Mapping[str, str]] = {}
        for path in sorted(self._folder.glob("*.facts.json")):
            with suppress(OSError, ValueError, TypeError, AttributeError):
                before = Facts(**json.loads(read_bytes(path)))
                if before.of == self._facts.of:
                    found[path.name.removesuffix(".facts.json")] = dict(before.digests.items())
        return found

    def read(self) -> tuple[dict[int, Counted], float]:
        """What all processes have counted, by the image's index, and the seconds that it took.

        Images that could not be used are left out, since they may be there by now; so are a last line that was cut
        short, and everything behind a damaged one.
        """
        done: dict[int, Counted] = {}
        seconds = 0.0
        for path in sorted(self._folder.glob(f"{self._name}.part*.jsonl")):
            for line, _ in self._lines(path):
                seconds += line.seconds
                for entry in line.images:
                    if not any(record.error for record in entry.tasks.values()):
                        done[entry.index] = Counted(entry.tasks, entry.stamp)
        return done, seconds

    def append(self, block: Mapping[int, Counted], seconds: float) -> None:
        """Note a block of images and the seconds that it took, so that it outlives this process."""
        images = tuple(_Entry(index=i, tasks=counted.records, stamp=counted.stamp) for i, counted in block.items())
        line = _checked(_Line(seconds=seconds, images=images).model_dump_json(exclude_defaults=True))
        try:
            if self._stream is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                about = json.dumps({"of": self._facts.of, "digests": dict(self._facts.digests)})
                (self._folder / f"{self._name}.facts.json").write_text(about, encoding="utf-8")
                self._stream = self._open()
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except OSError as error:
            raise ClippyError(
                f"{self._folder}: cannot be written ({error.strerror or error})",
                "Free some space or choose another --out; what was counted so far is kept.",
            ) from error

    def remove(self) -> None:
        """Delete the files of all processes, and those of evaluations that this one superseded."""
        self.close()
        for name in {self._name, *self._of_the_same()}:
            for path in (*self._folder.glob(f"{name}.part*.jsonl"), self._folder / f"{name}.facts.json"):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; what is in it stays."""
        if self._stream is not None:
            with suppress(OSError):  # what a full disk did not take has been said already
                self._stream.close()
            self._stream = None

    def _open(self) -> TextIO:
        """This process's file, after what was cut short in it."""
        path = self._folder / f"{self._name}.part{self._process}.jsonl"
        whole = sum(len(raw) for _, raw in self._lines(path)) if path.is_file() else 0
        stream = path.open("r+" if path.is_file() else "w", encoding="utf-8", newline="\n")
        stream.seek(whole)
        stream.truncate()
        return stream

    def _lines(self, path: Path) -> Iterator[tuple[_Line, bytes]]:
        try:
            content = read_bytes(path).splitlines(keepends=True)
        except OSError as error:
            raise ClippyError(f"{path}: cannot be read ({error})", "Delete it to count from the beginning.") from error
        for number, raw in enumerate(content, start=1):
            try:
                line = _Line.model_validate_json(_unchecked(raw))
            except ValueError:  # pydantic's errors are such
                logger.warning("%s: line %d is damaged; what follows is counted again", path, number)
                return
            yield line, raw


def _checked(line: str) -> str:
    """A JSON object with the CRC-32 of its text as its last field."""
    return f'{line[:-1]}{_CHECK}{zlib.crc32(line.encode()):08x}"}}'


def _unchecked(raw: bytes) -> bytes:
    """The object that :func:`_checked` was given; ValueError where the line is cut short, or a digit has changed."""
    text, found, end = raw.rpartition(_CHECK.encode())
    whole = text + b"}"
    if not found or end != f'{zlib.crc32(whole):08x}"}}\n'.encode():
        raise ValueError("cut short or changed")
    return whole


def write_lines(records: Sequence[ImageRecord]) -> bytes:
    """The JSON Lines file that goes beside a result: one line an image, in the set's order."""
    lines = (record.model_dump_json(exclude_defaults=True) for record in sorted(records, key=lambda r: r.index))
    return "".join(f"{line}\n" for line in lines).encode()
