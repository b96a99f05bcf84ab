"""What segment, classify and embed do with shards: one result file a shard, by any number of processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands.image_run import load_clip
from clippy_cli.errors import ClippyError, ExitCode
from clippy_cli.notices import Notices

if TYPE_CHECKING:
    from clippy_cli.api import Clip
    from clippy_cli.bulk.folder import BulkFolder
    from clippy_cli.bulk.products import Product
    from clippy_cli.bulk.run import BulkReport
    from clippy_cli.processes import Processes
    from clippy_cli.reporting.answers import Answer

_REDRAW_SECONDS = 1.0
_LINE_SECONDS = 30.0
_LATER_SECONDS = 3.0


def are_shards(inputs: Sequence[str]) -> bool:
    """Whether any argument names tar shards, and none is a mere photo."""
    from clippy_cli.bulk.parts import names_shards

    return any(map(names_shards, inputs))


def refuse_for_shards(out: Path | None, **given: object) -> Path:
    """The folder of ``--out``; ClippyError where it is missing, or an option is given that is not for shards."""
    for name, value in given.items():
        if value:
            flag = name.replace("_", "-")
            raise ClippyError(f"--{flag} is not for shards", f"Leave --{flag} out, or unpack the photos that need it.")
    if out is None:
        raise ClippyError("Shards need a folder for their results", "Name it with --out.")
    return out


def run_bulk(
    inputs: Sequence[str],
    out: Path,
    product: Product,
    described: Mapping[str, Any],
    *,
    command: str,
    prepare: Callable[[Clip], Answer[Any]],
    load: Mapping[str, Any],
    device: str,
    batch_size: int,
    json: bool = False,
    photos: Sequence[Path] = (),
    notices: Notices | None = None,
) -> None:
    """Do all parts of the input, print what came of it, and leave with the exit code due.

    Args:
        inputs: shards, as the command line has them; or ``photos``, where that is not empty.
        out: folder of the results.
        product: how results are written.
        described: what is written, for the manifest.
        command: such as ``segment``.
        prepare: from a loaded model to what it is asked.
        load: what :func:`~clippy_cli.commands.image_run.load_clip` takes beside the device.
        device: as the command line has it; several processes take a GPU each.
        batch_size: photos in a forward pass.
        json: print one document instead of lines.
        photos: files that are to be done in lists.
        notices: what was found beside the input.
    """
    from clippy_cli.bulk.folder import FETCHED, BulkFolder
    from clippy_cli.bulk.parts import FetchedShards, find_shards, split_photos
    from clippy_cli.bulk.run import fixed_threads, run_parts, run_settings, stated_processes

    processes, found = stated_processes(), Notices(notices or ())
    if not processes.first:
        console.be_silent()
    with _stoppable(out, processes), fixed_threads():
        parts = split_photos(photos) if photos else find_shards(inputs, FetchedShards(out / FETCHED), found)
        folder = BulkFolder(out, parts, product.ending, f"clippy {command}")
        if processes.size == 1 and len(parts) > 1 and (cores := os.cpu_count() or 1) > 1:
            launch = f"torchrun --nproc-per-node {cores} -m clippy_cli {command} ..."
            console.print_hint(f"One process works on one of {cores} cores; {launch} shares the work.")
        clip = load_clip(device=processes.device(device), **load)
        answer = prepare(clip)
        settings = run_settings(clip, answer, described, batch_size)
        with _display(folder, command) if processes.first else nullcontext(lambda: None) as on_photo:
            report = run_parts(
                clip, answer, product, folder, settings, batch_size=batch_size, processes=processes, on_photo=on_photo
            )
    found.update(report.notices)
    if processes.first:
        _print_report(report, found, out, json=json)
        _leave(report, found, processes)


@contextmanager
def _stoppable(out: Path, processes: Processes) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGUSR1 end the run at once; no result is left half written.

    What all processes of a launch come to, such as an error, the first one says.
    """
    from clippy_cli.bulk.folder import finished_parts

    preempted = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal preempted
        if not preempted:  # a launcher may repeat it while files are cleared away
            preempted = True
            raise KeyboardInterrupt

    numbers = [signal.SIGTERM, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        try:
            yield
        except ClippyError:
            if not processes.first:
                time.sleep(_LATER_SECONDS)  # a launcher ends it meanwhile, where the first has met the same
            raise
    except KeyboardInterrupt:
        code = ExitCode.PREEMPTED if preempted else ExitCode.INTERRUPTED
        if not processes.first:
            raise typer.Exit(code) from None
        raise ClippyError(
            f"{'Stopped' if preempted else 'Interrupted'}: {finished_parts(out):,} files are finished.",
            "Run the same command again to go on.",
            code,
        ) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _display(folder: BulkFolder, command: str) -> Iterator[Callable[[], None]]:
    """Give a function that counts a photo of this process: shards of all, photos/s, and the time left.

    A terminal sees a line that changes; elsewhere one is written every half minute.
    """
    from clippy_cli.bulk.folder import finished_parts

    before, begun = finished_parts(folder.root), time.monotonic()
    own, last = 0, begun
    status = console.err.status(f"{command}: beginning") if console.err.is_terminal else None

    def count() -> None:
        nonlocal own, last
        own += 1
        now = time.monotonic()
        if now - last < (_LINE_SECONDS if status is None else _REDRAW_SECONDS):
            return
        last = now
        line = progress_line(finished_parts(folder.root), before, len(folder.parts), own, now - begun)
        if status is None:
            console.err.print(f"{command}: {line}", soft_wrap=True)
        else:
            status.update(Text(f"{command}: {line}"))

    with nullcontext() if status is None else status:
        yield count


def progress_line(finished: int, before: int, parts: int, photos: int, seconds: float) -> str:
    """How far all processes are, and how fast this one is.

    Args:
        finished: parts with a result, by any process.
        before: how many of them there were when this one began.
        parts: of the input.
        photos: that this process has done.
        seconds: since it began.

    >>> progress_line(12, 2, 102, 30_000, 600.0)
    '12 of 102 shards, 50.0 photos/s in this process, about 1 h 30 min left'
    """
    rate = f"{finished:,} of {parts:,} shards, {photos / max(seconds, 1e-9):.1f} photos/s in this process"
    if finished <= before:
        return rate
    minutes = round((parts - finished) * seconds / (finished - before) / 60)
    left = f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"
    return f"{rate}, about {left} left"


def _print_report(report: BulkReport, notices: Notices, out: Path, *, json: bool) -> None:
    from clippy_cli.bulk.folder import MANIFEST

    usable = report.photos - report.failures
    if json:
        totals = {name: getattr(report, name) for name in ("parts", "finished", "photos", "failures", "bytes")}
        console.print_json({"out": str(out), **totals, "notices": notices.records()})
    else:
        sizes = f"{usable:,} photos in {report.finished:,} files, {report.bytes / 1e6:,.1f} MB"
        console.out.print(Text(f"wrote {sizes}; {out / MANIFEST}"), soft_wrap=True)
    console.print_notices(notices)
    if not report.complete:
        missing = report.parts - report.finished
        console.print_hint(f"{missing:,} shards have no result; run the same command again to try them once more.")


def _leave(report: BulkReport, notices: Notices, processes: Processes) -> None:
    """Leave with the exit code where photos or shards failed; else return. The other processes of a launch have 0."""
    code = ExitCode.OK
    if notices.incomplete or not report.complete:
        code = ExitCode.PARTIAL
    if report.photos and report.photos == report.failures:
        code = ExitCode.FAILED
    if code:
        if processes.size > 1:
            time.sleep(_LATER_SECONDS)  # torchrun ends all when one leaves so
        raise typer.Exit(code)
