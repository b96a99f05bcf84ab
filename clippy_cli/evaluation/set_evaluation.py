"""One model on one set: prepared tasks, a forward pass per image, results that say how they were made."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from clippy_cli import __version__
from clippy_cli.data.benchmarks.base import ImageSet, set_classes
from clippy_cli.data.benchmarks.catalogue import SCENES
from clippy_cli.data.benchmarks.framed import Frame, framed
from clippy_cli.data.text_cache import TextCache
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.conditions import measured_with
from clippy_cli.evaluation.journal import Facts, Journal
from clippy_cli.evaluation.protocol import Protocol
from clippy_cli.evaluation.provenance import describe_device, model_fingerprint
from clippy_cli.evaluation.published import published_for
from clippy_cli.evaluation.result import (
    DataRecord,
    ImageRecord,
    ModelRecord,
    PublishedFigure,
    ResultTask,
    TaskResult,
    all_notices,
    notice_records,
)
from clippy_cli.evaluation.run import AnyTask, Measured, Progress, measure_set
from clippy_cli.evaluation.settings import Overrides, Settings, resolve_settings
from clippy_cli.evaluation.tasks import Task, check_tasks, default_tasks, parse_tasks, task_class
from clippy_cli.evaluation.tasks.base import Options, Setup, common_record
from clippy_cli.inference.choices import Sizes, WindowAverage
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.patch_forms import with_pool_prefix, with_positions
from clippy_cli.model.precision import is_compiled, precision_of
from clippy_cli.notices import Notices
from clippy_cli.processes import Processes
from clippy_cli.stages import TEXTS, stage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SetEvaluation:
    """The results of one model on one set, with what was counted in each image.

    Attributes:
        tasks: the prepared tasks, by name, which keep the model in memory; none once they are released.
        results: one per task, and a second one of the task ``segment`` where regions were given.
        records: of every image that was tried, by result, in the set's order.
        device: what the model ran on, in words.
        journals: where the counts are noted for an interruption, if anywhere.
    """

    images: ImageSet
    settings: Settings
    tasks: dict[Task, AnyTask]
    results: tuple[TaskResult, ...]
    records: dict[ResultTask, list[ImageRecord]]
    device: str
    journals: tuple[Journal, ...]

    @property
    def notices(self) -> Notices:
        """What was skipped, ignored or assumed of the set and of its images, those counted before too."""
        return all_notices(self.images.notices, next(iter(self.records.values()), []))

    def released(self) -> SetEvaluation:
        """The same without the prepared tasks, so that the model's memory is free for the next one."""
        return replace(self, tasks={})


def evaluate_set(
    model: VisionLanguageModel,
    images: ImageSet,
    protocol: Protocol,
    *,
    tasks: Sequence[str] = (),
    source: str = "",
    overrides: Overrides | None = None,
    options: Options | None = None,
    journals: Path | None = None,
    processes: Processes | None = None,
    progress: Progress | None = None,
    cache: TextCache | None = None,
) -> SetEvaluation:
    """Measure ``tasks`` (by default what the kind of set is for) of one model on one set under one protocol.

    ``source`` is what names the model in the results, ``overrides`` what departs from the protocol. What was counted is
    noted in the folder ``journals``, and read from there, where one is given. ``processes`` share the work, and
    each gets the same results. ``progress`` is called as images are done. Embeddings of texts are kept in ``cache``.

    Raises:
        ClippyError: a task that the set does not have, settings that do not fit together, a full disk.
    """
    chosen = parse_tasks(tasks) or default_tasks(images.kind)
    check_tasks(images, chosen)
    settings = resolve_settings(protocol, images.info, model, overrides or Overrides())
    identity = model_fingerprint(model)  # of the weights, before the protocol chooses how they are read
    setup = _setup(model, images, settings, options or Options())
    setup = replace(setup, cache=cache, on_texts=(progress or Progress()).texts)
    prepared: dict[Task, AnyTask] = {}
    measured, kept = None, []
    for looked, together in _passes(setup, chosen):
        journal = None
        if journals is not None:
            rank = 0 if processes is None else processes.rank
            journal = Journal(journals, _facts(looked, together, source or model.name, identity), rank)
            kept.append(journal)
            _warn_if_superseded(images, journal.superseded())
        with stage(TEXTS):
            prepared |= {task: task_class(task)(looked) for task in together}
        ready = [prepared[task] for task in together]
        try:
            part = measure_set(looked, ready, journal=journal, processes=processes, progress=progress)
        finally:
            if journal is not None:
                journal.close()
        measured = part if measured is None else measured.joined(part)
    assert measured is not None
    record = ModelRecord(
        name=model.name,
        source=source or model.name,
        fingerprint=identity,
        precision=precision_of(model),
        compiled=is_compiled(model),
    )
    results = tuple(_result(name, task, record, measured) for task in prepared.values() for name in task.results)
    device = describe_device(model.device)
    return SetEvaluation(images, settings, prepared, results, measured.records, device, tuple(kept))


def _warn_if_superseded(images: ImageSet, changed: Sequence[str]) -> None:
    if changed:
        what = ", ".join(changed)
        logger.warning(
            "%s: what an interrupted evaluation counted is not used, since %s changed; all images are counted anew",
            images.info.name,
            what,
        )


def _passes(setup: Setup[ImageSet], tasks: Sequence[Task]) -> list[tuple[Setup[ImageSet], tuple[Task, ...]]]:
    """The tasks that share a forward pass, and how they look at images.

    Windows that are averaged at pixels give scores, not patches, so that tasks without words take theirs in a pass of
    their own, averaged on the patch grid.
    """
    others = tuple(task for task in tasks if task is not Task.SEGMENT)
    if setup.windows is None:
        return [(setup, tuple(tasks))]
    on_grid = replace(setup.settings, window_average=WindowAverage.PATCHES, sizes=Sizes.PATCH, best_classes=None)
    passes = [(setup, (Task.SEGMENT,)), (replace(setup, settings=on_grid), others)]
    return [(looked, together) for looked, together in passes if set(together) & set(tasks)]


def _setup(model: VisionLanguageModel, images: ImageSet, settings: Settings, options: Options) -> Setup[ImageSet]:
    """The model and the set as ``settings`` look at them; ClippyError where they cannot."""
    if settings.positions is not None:
        model = with_positions(model, settings.positions)
    if settings.pool_prefix is not None:
        model = with_pool_prefix(model, settings.pool_prefix)
    if settings.frame is not Frame.WHOLE and options.regions is not None:
        raise ClippyError(
            f"Protocol {settings.protocol} cuts photos to squares, which --regions do not fit.",
            "Leave one of them out.",
        )
    return Setup(model, framed(images, settings.frame, settings.resolution), settings, options)


def _result(name: ResultTask, task: AnyTask, model: ModelRecord, measured: Measured) -> TaskResult:
    images = task.setup.images
    records = measured.records[name]
    figures = task.summarize([record for record in records if record.error is None])
    failed = tuple(record.error for record in records if record.error is not None)
    info, count = images.info, len(records) - len(failed)
    data = DataRecord(
        name=info.name,
        title=info.title,
        images=count,
        available=len(images),
        complete=info.complete,
        subset=count < (info.complete or len(images)),
        split=info.split,
        annotation=info.annotation,
        failed=failed,
        notices=notice_records(all_notices(images.notices, records)),
    )
    return TaskResult(
        data=data,
        model=model,
        task=name,
        headline=task.headline,
        metrics=figures.metrics,
        definitions={metric: task.definitions[metric] for metric in figures.metrics},
        protocol=common_record(task) | task.record(name) | ({} if info.exif is None else {"exif": str(info.exif)}),
        classes=figures.classes,
        absent=figures.absent,
        confusion=figures.confusion,
        published=_published(name, task, tuple(figures.metrics), data),
        seconds=measured.seconds,
        images_per_second=measured.images_per_second,
        encoder_share=measured.encoder_share,
    )


def _published(
    name: ResultTask, task: AnyTask, metrics: Sequence[str], data: DataRecord
) -> tuple[PublishedFigure, ...]:
    """Figures of the same set of the catalogue; your own sets have none, whatever they are called."""
    info = task.setup.images.info
    if not info.catalogued or info.name == SCENES:
        return ()
    whole = info.complete or data.available
    incomplete = f"{data.images:,} of {whole:,} images" if data.subset else ""
    ours = measured_with(task.setup, task.task)
    return tuple(
        figure
        for metric in metrics
        for figure in published_for(info.name, name, metric, ours=ours, incomplete=incomplete)
    )


def _facts(setup: Setup[ImageSet], tasks: Sequence[Task], source: str, identity: str) -> Facts:
    """Whatever could change a count."""
    images = setup.images
    values = {
        "the version of clippy": __version__,
        "the set": (images.kind, asdict(images.info)),
        "the list of images": [images.key(index) for index in range(len(images))],
        "the classes or their words": [asdict(entry) for entry in set_classes(images)],
        "the model's weights": identity,
        "the precision": (precision_of(setup.model), is_compiled(setup.model)),
        "the device": setup.model.device.type,
        **{f"the setting {name}": value for name, value in asdict(setup.settings).items()},
        **{f"the option {name}": value for name, value in asdict(setup.options).items() if name != "workers"},
    }
    of = f"{images.info.name} in {images.info.folder}, {source}, {', '.join(sorted(tasks))}"
    return Facts.digested(of, values)
