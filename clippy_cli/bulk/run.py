"""One process's work on a bulk run: take a part that nobody has, write its result, go on until all are finished.

Nothing is agreed upon between processes but what lies in the folder, so any number of them may start, die and start
again. Each begins with its own share of the parts, then takes what others have not begun.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch

from clippy_cli import __version__
from clippy_cli.bulk.folder import BulkFolder, PartRecord
from clippy_cli.bulk.parts import Part, RemoteShard
from clippy_cli.bulk.products import Keyed, Product
from clippy_cli.bulk.shard_photos import Photos
from clippy_cli.clip import Clip
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.provenance import weights_fingerprint
from clippy_cli.files import write_whole
from clippy_cli.locks import FolderInUseError, hold_folder
from clippy_cli.notices import Notice, Notices
from clippy_cli.processes import Processes
from clippy_cli.reporting.answers import Answer, Failure

THREADS = 1  # of torch and OpenCV, in every process: their sums depend on it

_WAIT_SECONDS = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BulkReport:
    """What a run has come to, when this process has nothing left to do.

    Attributes:
        parts: of the input; ``finished`` of them have a result.
        photos: in the results, ``failures`` of which could not be used.
        notices: of all parts together.
    """

    parts: int
    finished: int
    photos: int
    failures: int
    bytes: int
    notices: Notices

    @property
    def complete(self) -> bool:
        """Whether every part has a result."""
        return self.finished == self.parts


@dataclass
class _Counts:
    photos: int = 0
    failures: int = 0
    notices: Notices = field(default_factory=Notices)


@contextmanager
def fixed_threads() -> Iterator[None]:
    """While the block runs, torch and OpenCV work on ``THREADS`` threads; the model is to be loaded inside it."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(THREADS)
    cv2.setNumThreads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def stated_processes() -> Processes:
    """This process among those of torchrun or, without it, of srun; they need not find each other."""
    environment = os.environ
    torchrun, slurm = ("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    for names in (torchrun, slurm):
        if all(environment.get(name, "").isdigit() for name in names):
            rank, size, local = (int(environment[name]) for name in names)
            return Processes(rank, max(size, 1), local)
    return Processes()


def run_settings(clip: Clip, answer: Answer[Any], product: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    """Everything that results depend on, ready for JSON; ``product`` is what is written and how."""
    return {
        "settings": answer.settings,
        "product": dict(product),
        "model": {"name": clip.name, "fingerprint": weights_fingerprint(clip.model)},
        "batch_size": batch_size,
        "device": clip.model.device.type,
        "threads": THREADS,
        "versions": {"clippy": __version__, "torch": torch.__version__},
    }


def run_parts(
    clip: Clip,
    answer: Answer[Any],
    product: Product,
    folder: BulkFolder,
    settings: Mapping[str, Any],
    *,
    batch_size: int,
    processes: Processes,
    on_photo: Callable[[], None] = lambda: None,
) -> BulkReport:
    """Work until every part of ``folder`` has a result, or cannot be had.

    Args:
        clip: the model.
        answer: what it is asked.
        product: how results are written.
        folder: where they go, claimed for ``settings`` before anything else.
        settings: as :func:`run_settings` gives them.
        batch_size: photos in a forward pass; batches never reach across parts.
        processes: which share this process begins with.
        on_photo: called after each photo of this process.

    Raises:
        ClippyError: the folder belongs to another run; it cannot be written to; the device ran out of memory.
    """
    folder.claim(settings)
    unavailable = Notices()
    with fixed_threads(), hold_folder(folder.root, folder.work, shared=True):
        write = partial(_write, clip, answer, product, batch_size=batch_size, on_photo=on_photo)
        pending = in_order_of_share(folder.parts, processes)
        while pending:
            before = len(pending)
            pending = [part for part in pending if not _done(folder, part, pending, write, unavailable)]
            if len(pending) == before:
                time.sleep(_WAIT_SECONDS)  # others have them, or had them and are gone
        records = folder.complete(settings)
    return _report(folder, records, unavailable)


def in_order_of_share(parts: Sequence[Part], processes: Processes) -> list[Part]:
    """All parts, a process's own share first, then those of the others from their ends."""
    rank, size = processes.rank, processes.size
    order = list(parts[rank::size])
    for other in range(rank + 1, rank + size):
        order += reversed(parts[other % size :: size])
    return order


def _done(
    folder: BulkFolder,
    part: Part,
    pending: Sequence[Part],
    write: Callable[[Photos, Path], _Counts],
    unavailable: Notices,
) -> bool:
    """Do a part unless it is done; False where another process works on it."""
    if folder.record(part) is not None:
        return True
    try:
        with folder.working(part) as working:
            if folder.record(part) is not None:  # by who held it until now
                return True
            _prefetch_next(folder, part, pending)
            with ExitStack() as stack:
                try:
                    photos = stack.enter_context(part.opened())
                except ClippyError as error:
                    _log.info("%s", error)
                    unavailable.skipped("shard", "cannot be read or fetched", error.message, hint=error.hint or "")
                    return True
                counts = write(photos, working)
                if not counts.photos:
                    counts.notices.skipped("shard", "holds no photo", part.source)
                folder.finish(part, working / "result", counts.photos, counts.failures, counts.notices)
            part.close()
            return True
    except FolderInUseError:
        return False
    except ClippyError:
        if folder.record(part) is None:  # else others have finished all, and cleared the working folders away
            raise
        return True


def _prefetch_next(folder: BulkFolder, part: Part, pending: Sequence[Part]) -> None:
    """Begin to fetch the part that will probably come next."""
    following = pending[pending.index(part) + 1 :]
    upcoming = next((one for one in following if folder.record(one) is None), None)
    for one in (part, upcoming):
        if isinstance(one, RemoteShard):
            one.prefetch()


def _write(
    clip: Clip,
    answer: Answer[Any],
    product: Product,
    photos: Photos,
    working: Path,
    *,
    batch_size: int,
    on_photo: Callable[[], None],
) -> _Counts:
    """Write the result of one part as ``working/result``."""
    counts = _Counts(notices=photos.notices)

    def keyed() -> Iterator[Keyed]:
        results = clip.answer(answer, photos.photos, batch_size=batch_size)
        for key, result in zip(photos.keys, results, strict=True):
            counts.photos += 1
            if isinstance(result, Failure):
                counts.failures += 1
                counts.notices.skipped("photo", "cannot be used", result.error.message)
            else:
                counts.notices.update(result.notices)
            yield key, result
            on_photo()

    write_whole(working / "result", lambda stream: product.write(stream, keyed(), working))
    return counts


def _report(folder: BulkFolder, records: list[PartRecord] | None, unavailable: Notices) -> BulkReport:
    if records is None:
        records = [record for part in folder.parts if (record := folder.record(part)) is not None]
    notices = Notices()
    for record in records:
        notices.update(Notice(**dict(noted)) for noted in record.notices)
    notices.update(unavailable)
    photos, failures, size = (
        sum(getattr(record, name) for record in records) for name in ("photos", "failures", "bytes")
    )
    return BulkReport(len(folder.parts), len(records), photos, failures, size, notices)
