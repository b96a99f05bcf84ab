"""Measure one model on one set: forward passes shared by all tasks, in blocks that any number of processes can divide.

A block is ``batch_size`` consecutive images. It is encoded together whoever encodes it, so that counts do not depend on
how many processes there are, or on where an earlier run was interrupted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clippy_cli.data.benchmarks.base import ImageSet, Sample, set_classes
from clippy_cli.data.prompts import OnTexts, unheard
from clippy_cli.evaluation.journal import Counted, Journal, Records, file_stamp
from clippy_cli.evaluation.result import ImageRecord, ResultTask, notice_records
from clippy_cli.evaluation.tasks.base import EvaluationTask, Setup
from clippy_cli.inference.classify import image_scores
from clippy_cli.inference.features import Encode, Failed, encode_images
from clippy_cli.notices import MOST_EXAMPLES, printable
from clippy_cli.processes import Processes
from clippy_cli.stages import MEASURE, stage

logger = logging.getLogger(__name__)
AnyTask = EvaluationTask[Any, Any]


@dataclass(frozen=True)
class Progress:
    """Functions that are called as a measurement advances.

    Attributes:
        start: called once with the images counted before, and those that this process has to do.
        advance: called after each of the latter.
        texts: called before, with the texts embedded so far and all of them, where there are many.
    """

    start: Callable[[int, int], object] = lambda before, left: None
    advance: Callable[[], object] = lambda: None
    texts: OnTexts = unheard


@dataclass(frozen=True)
class Measured:
    """What a measurement gave.

    Attributes:
        records: of every image that was tried, failed ones too, by result, in the set's order.
        seconds: wall time of this process's loops, of earlier parts of a continued run too.
        encoder_share: of the wall time of this run, in [0, 1]; None where nothing was left to do.
        images_per_second: of all processes together, in this run; None likewise.
    """

    records: dict[ResultTask, list[ImageRecord]]
    seconds: float
    encoder_share: float | None
    images_per_second: float | None

    def joined(self, other: Measured) -> Measured:
        """This and a second pass over the same images."""
        seconds = self.seconds + other.seconds
        shares = [(part.encoder_share, part.seconds) for part in (self, other)]
        rates = [part.images_per_second for part in (self, other)]
        known = all(share is not None for share, _ in shares)
        return Measured(
            self.records | other.records,
            seconds,
            sum((share or 0) * part for share, part in shares) / seconds if known and seconds else None,
            1 / sum(1 / rate for rate in rates if rate) if all(rates) else None,
        )


def measure_set(
    setup: Setup[ImageSet],
    tasks: Sequence[AnyTask],
    *,
    journal: Journal | None = None,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Measure prepared ``tasks`` on every image, skipping those that ``journal`` has; all processes return the same.

    Images that cannot be read become records with an ``error``.
    """
    processes, progress = processes or Processes(), progress or Progress()
    names = [name for task in tasks for name in task.results]
    if not all(task.resumable for task in tasks):
        journal = None
    stamp = partial(_stamp, setup, tasks)
    before, earlier = _counted_before(journal, setup, names)
    changed = sorted(index for index, counted in before.items() if counted.stamp != stamp(index))
    changed = sorted({index for part in processes.gather(changed) for index in part})  # nobody writes before all read
    if changed:
        _warn_of_changes(setup.images, changed)
    done = {index: counted.records for index, counted in before.items() if index not in changed}
    size, total = setup.options.batch_size, setup.total
    blocks = [range(start, min(start + size, total)) for start in range(0, total, size)]
    mine = processes.share([block for block in blocks if not all(index in done for index in block)])
    clock = _EncoderClock(setup.model.device)
    progress.start(len(done), sum(map(len, mine)))
    begun = time.perf_counter()
    fresh: dict[int, Records] = {}
    for block, seconds in _measured_blocks(setup, tasks, mine, clock, progress):
        if journal is not None:
            journal.append(block, seconds)
        fresh |= {index: counted.records for index, counted in block.items()}
    parts = processes.gather((fresh, time.perf_counter() - begun, clock.seconds))
    for part, _, _ in parts:
        done |= part
    records: dict[ResultTask, list[ImageRecord]] = {}
    for task in tasks:
        for name in task.results:
            records[name] = task.complete([done[index][name] for index in range(total)], processes)
    share, rate = _rates([(len(part), seconds, encoder) for part, seconds, encoder in parts])
    return Measured(records, earlier + max(seconds for _, seconds, _ in parts), share, rate)


def _rates(parts: Sequence[tuple[int, float, float]]) -> tuple[float | None, float | None]:
    """(images, seconds, seconds in the encoder) of each process -> the encoder's share, and images a second of all."""
    measured = sum(images for images, _, _ in parts)
    if not measured:
        return None, None
    wall = [seconds for _, seconds, _ in parts]
    return sum(encoder for _, _, encoder in parts) / sum(wall), measured / max(wall)


def _counted_before(
    journal: Journal | None, setup: Setup[ImageSet], names: Sequence[ResultTask]
) -> tuple[dict[int, Counted], float]:
    """What the journal has that fits these images, results and classes, and the seconds that it took."""
    if journal is None:
        return {}, 0.0
    done, seconds = journal.read()
    classes, total = len(set_classes(setup.images)), setup.total
    widest = max(classes, setup.options.clusters or 0)

    def fits(index: int, records: Records) -> bool:
        cells = [cell for record in records.values() for cell in record.counts]
        inside = all(row < classes and column < widest for row, column, _ in cells)
        return index < total and records.keys() == set(names) and inside

    return {index: counted for index, counted in done.items() if fits(index, counted.records)}, seconds


def _stamp(setup: Setup[ImageSet], tasks: Sequence[AnyTask], index: int) -> str:
    """Changes with every file that the counts of image ``index`` depend on."""
    return file_stamp([*setup.images.files(index), *(path for task in tasks for path in task.files(index))])


def _warn_of_changes(images: ImageSet, changed: Sequence[int]) -> None:
    shown = ", ".join(printable(images.key(index)) for index in changed[:MOST_EXAMPLES])
    more = ", ..." if len(changed) > MOST_EXAMPLES else ""
    what = "1 image has" if len(changed) == 1 else f"{len(changed):,} images have"
    logger.warning(
        "%s: %s changed since the interrupted evaluation counted them (%s%s); they are counted again",
        images.info.name,
        what,
        shown,
        more,
    )


def _measured_blocks(
    setup: Setup[ImageSet],
    tasks: Sequence[AnyTask],
    blocks: Sequence[range],
    clock: _EncoderClock,
    progress: Progress,
) -> Iterator[tuple[dict[int, Counted], float]]:
    """The records of each block, and the seconds that it took."""
    model, images, settings, options = setup.model, setup.images, setup.settings, setup.options
    crop = tasks[0].needs == "scores"

    def read(index: int) -> _Indexed:
        stamps[index] = _stamp(setup, tasks, index)  # before reading: what changes meanwhile is counted again
        return _Indexed(index, images.read(index))

    stamps: dict[int, str] = {}
    results = encode_images(
        [index for block in blocks for index in block],
        read,
        clock.timed(_encoder(setup, tasks)),
        patch_size=model.preprocess.patch_size,
        resolution=settings.resolution if crop else settings.views.short_side(settings.resolution),
        batch_size=options.batch_size,
        workers=options.workers,
        crop=crop,
        resize=None if crop else setup.resize,
    )
    names = [name for task in tasks for name in task.results]
    for block in blocks:
        begun = time.perf_counter()
        records: dict[int, Counted] = {}
        for index, result in zip(block, results, strict=False):
            if isinstance(result, Failed):
                failed = ImageRecord(index=index, key=images.key(index), error=result.error.message)
                records[index] = Counted(dict.fromkeys(names, failed))
            else:
                outputs = _outputs(tasks, result.output)
                noted = notice_records(getattr(result.sample.sample, "notices", ()))
                with stage(MEASURE):
                    measured = {
                        name: record.model_copy(update={"notices": noted}) if noted else record
                        for task, output in zip(tasks, outputs, strict=True)
                        for name, record in task.measure(index, result.sample.sample, output).items()
                    }
                records[index] = Counted(measured, stamps.pop(index))
            progress.advance()
        yield records, time.perf_counter() - begun


def _encoder(setup: Setup[ImageSet], tasks: Sequence[AnyTask]) -> Encode:
    """What the model makes of B images for all tasks: patch embeddings, or the scores of all their texts in a row."""
    if tasks[0].needs == "patches":
        return setup.encode_patches
    return partial(image_scores, setup.model, torch.cat([task.texts for task in tasks]))


def _outputs(tasks: Sequence[AnyTask], output: Tensor) -> Sequence[Tensor]:
    """Each task's part of what the model made of one image."""
    if tasks[0].needs == "patches":
        return [output] * len(tasks)
    return torch.split(output, [len(task.texts) for task in tasks])


@dataclass(frozen=True)
class _Indexed:
    """A sample with its place in the set."""

    index: int
    sample: Sample

    @property
    def key(self) -> str:
        return self.sample.key

    @property
    def image(self) -> NDArray[np.uint8]:
        return self.sample.image


class _EncoderClock:
    """Seconds spent in the image encoder; waits for the device to finish, so that they are its own."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self.seconds = 0.0

    def timed(self, encode: Encode) -> Encode:
        def run(batch: Sequence[NDArray[np.uint8]]) -> Tensor:
            begun = time.perf_counter()
            output = encode(batch)
            if self._cuda:
                torch.cuda.synchronize()
            self.seconds += time.perf_counter() - begun
            return output

        return run
