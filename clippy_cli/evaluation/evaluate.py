"""A model, a set and a protocol -> results that say how they were made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from clippy_cli import __version__
from clippy_cli.data.benchmarks.base import ClassificationSet, ImageSet, SegmentationSet
from clippy_cli.data.benchmarks.captioned import CaptionedSet
from clippy_cli.data.benchmarks.catalogue import SCENES, load_spec
from clippy_cli.evaluation.journal import Journal, fingerprint
from clippy_cli.evaluation.measure import Segmenter
from clippy_cli.evaluation.protocol import Overrides, Protocol, Settings, class_texts, describe_background, settle
from clippy_cli.evaluation.provenance import model_fingerprint
from clippy_cli.evaluation.published import published_for
from clippy_cli.evaluation.result import DataRecord, ImageRecord, ModelRecord, PublishedFigure, Task, TaskResult
from clippy_cli.evaluation.retrieval import measure_retrieval
from clippy_cli.evaluation.run import Measured, Options, Progress, measure_set
from clippy_cli.evaluation.summary import summarise
from clippy_cli.evaluation.tasks import DEFAULT_TASKS, WITH_REGIONS, check_tasks
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.processes import Processes


@dataclass(frozen=True)
class Evaluated:
    """The results of one model on one set, a result a task, with what was counted in each image."""

    images: ImageSet
    settings: Settings
    results: tuple[TaskResult, ...]
    records: dict[Task, list[ImageRecord]]
    segmenter: Segmenter | None
    journal: Journal | None


def evaluate_set(
    model: VisionLanguageModel,
    images: ImageSet,
    protocol: Protocol,
    *,
    tasks: Sequence[Task] = (),
    source: str = "",
    overrides: Overrides | None = None,
    options: Options | None = None,
    journals: Path | None = None,
    processes: Processes | None = None,
    progress: Progress | None = None,
) -> Evaluated:
    """Measure ``tasks`` (by default what the kind of set is for) of one model on one set under one protocol.

    ``source`` is what the model was asked for by, ``overrides`` what departs from the protocol. What was counted is
    noted in the folder ``journals``, and taken up from there, where one is given. ``processes`` share the work, and
    each gets the same results. ``progress`` is told how far it is.

    Raises:
        ClippyError: a task that the set does not have, settings that do not fit together, a full disk.
    """
    options = options or Options()
    tasks = tuple(tasks) or DEFAULT_TASKS[images.info.kind]
    check_tasks(images, tasks)
    if options.regions is not None and "segment" in tasks:
        tasks = tuple(part for task in tasks for part in ((task, WITH_REGIONS) if task == "segment" else (task,)))
    settings = settle(protocol, images.info, model, overrides or Overrides())
    identity = model_fingerprint(model)
    journal = None
    if journals is not None:
        journal = Journal(journals, _journal_name(model, images, tasks, settings, options, identity), _rank(processes))
    segmenter = Segmenter(model, cast(SegmentationSet, images), settings) if "segment" in tasks else None
    try:
        if images.info.kind == "retrieval":
            captioned = cast(CaptionedSet, images)
            measured = measure_retrieval(
                model, captioned, settings, options, processes or Processes(), progress or Progress()
            )
        else:
            measured = measure_set(
                model,
                images,
                tasks,
                settings,
                options,
                segmenter=segmenter,
                journal=journal,
                processes=processes,
                progress=progress,
            )
    finally:
        if journal is not None:
            journal.close()
    record = ModelRecord(name=model.name, source=source or model.name, fingerprint=identity)
    results = tuple(_result(task, record, images, settings, options, measured) for task in tasks)
    return Evaluated(images, settings, results, measured.records, segmenter, journal)


def _result(
    task: Task, model: ModelRecord, images: ImageSet, settings: Settings, options: Options, measured: Measured
) -> TaskResult:
    records = measured.records[task]
    names = [entry.name for entry in getattr(images, "classes", ())]
    summary = summarise(task, records, names, options.clusters)
    failed = tuple(record.error for record in records if record.error is not None)
    info, count = images.info, len(records) - len(failed)
    subset = count < (info.complete or len(images))
    return TaskResult(
        data=DataRecord(
            name=info.name,
            title=info.title,
            images=count,
            available=len(images),
            complete=info.complete,
            subset=subset,
            annotation=info.annotation,
            failed=failed,
        ),
        model=model,
        task=task,
        headline=summary.headline,
        metrics=summary.metrics,
        definitions=summary.definitions,
        protocol=_protocol_record(task, images, settings, options),
        classes=summary.classes,
        absent=summary.absent,
        confusion=summary.confusion,
        published=_published(images, task, tuple(summary.metrics), settings, subset, count),
        seconds=measured.seconds,
        images_per_second=measured.images_per_second,
        encoder_share=measured.encoder_share,
    )


def _is_variant(images: ImageSet) -> bool:
    """Whether a set of the catalogue was read from other annotation than its figures in the literature are of."""
    return load_spec(images.info.name).annotation != images.info.annotation


def _published(
    images: ImageSet, task: Task, metrics: Sequence[str], settings: Settings, subset: bool, count: int
) -> tuple[PublishedFigure, ...]:
    """Figures of the same set of the catalogue; a set of one's own has none, whatever it is called."""
    if not images.info.catalogued or images.info.name == SCENES:
        return ()
    return tuple(
        figure
        for metric in metrics
        for figure in published_for(
            images.info.name,
            task,
            metric,
            protocol=settings.protocol,
            subset=subset,
            images=count,
            complete=images.info.complete,
            changed=(*settings.overridden, *(["annotation"] if _is_variant(images) else [])),
        )
    )


def _protocol_record(task: Task, images: ImageSet, settings: Settings, options: Options) -> dict[str, Any]:
    """What was really used for this task, as plain values."""
    record: dict[str, Any] = {
        "name": settings.protocol_name,
        "resolution": settings.resolution,
        "resize": "short side, bicubic, antialiased",
    }
    if task in ("classify", "retrieve"):
        record["resize"] += ", centre crop"
    else:
        window = f"{settings.window} at stride {settings.stride}, averaged on the patch grid"
        record["window"] = "whole image" if settings.window is None else window
        record["patches"] = settings.patches or "as the model gives them"
        record["scales"], record["flip"] = list(settings.scales), settings.flip
        segments = task in ("segment", WITH_REGIONS)
        record["refinement"] = (settings.refine or "none") if segments else "none"
        if segments and settings.refine is not None:
            record["logit_scale"] = settings.logit_scale
        if task == WITH_REGIONS:
            record["regions"] = f"majority class of each region in {options.regions}"
    if task in ("segment", WITH_REGIONS):
        annotated = cast(SegmentationSet, images)
        record["templates"] = _one_or_list(settings.template_names)
        record["texts"] = len(class_texts(annotated, settings).texts)
        record["background"] = describe_background(annotated, settings)
        if settings.classes:
            record["words of the protocol"] = {name: list(words) for name, words in settings.classes.items()}
    elif task == "classify":
        record["templates"] = _one_or_list(settings.template_names)
        record["classes"] = len(cast(ClassificationSet, images).classes)
    elif task == "retrieve":
        record["texts"] = "captions as they are"
    elif task == "group":
        record["groups"], record["method"] = options.groups, options.method
        record["segments"] = _segments(images)
    elif task == "cluster":
        classes = len(cast(SegmentationSet, images).classes)
        record["clusters"] = options.clusters or classes
        record["method"] = "mini-batch k-means on unit patch embeddings of up to 500 images"
    return record


def _one_or_list(names: tuple[str, ...]) -> str | list[str]:
    return names[0] if len(names) == 1 else list(names)


def _segments(images: ImageSet) -> str:
    if images.info.kind == "boundaries":
        return "regions of each annotator"
    background = cast(SegmentationSet, images).background
    return "classes of each image" + ("" if background is None else ", background included")


def _journal_name(
    model: VisionLanguageModel,
    images: ImageSet,
    tasks: Sequence[Task],
    settings: Settings,
    options: Options,
    identity: str,
) -> str:
    """Another name for whatever could change a count."""
    facts = {
        "version": __version__,
        "set": (asdict(images.info), [images.key(index) for index in range(len(images))]),
        "classes": [asdict(entry) for entry in getattr(images, "classes", ())],
        "model": identity,
        "tasks": sorted(tasks),
        "settings": asdict(settings),
        "options": {**asdict(options), "workers": None},
        "device": model.device.type,
    }
    return fingerprint(facts)


def _rank(processes: Processes | None) -> int:
    return 0 if processes is None else processes.rank
