"""Models, sets and a protocol -> results that say how they were made.

:func:`evaluate` is the whole way from names to a document; :func:`evaluate_set` is one model on one open set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from clippy_cli import __version__
from clippy_cli.data.benchmarks import open_benchmark
from clippy_cli.data.benchmarks.base import AnnotatedSet, ImageSet, Reading, set_classes
from clippy_cli.data.benchmarks.catalogue import SCENES, load_spec
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.journal import Journal, fingerprint
from clippy_cli.evaluation.protocol import Overrides, Protocol, Settings, load_protocol, resolve_settings
from clippy_cli.evaluation.provenance import describe_device, library_versions, model_fingerprint
from clippy_cli.evaluation.published import published_for
from clippy_cli.evaluation.result import (
    DataRecord,
    Document,
    ImageRecord,
    ModelRecord,
    PublishedFigure,
    ResultTask,
    TaskResult,
    all_notices,
    notice_records,
)
from clippy_cli.evaluation.run import AnyTask, Measured, Progress, measure_set
from clippy_cli.evaluation.suites import OpenSuite
from clippy_cli.evaluation.tasks import Task, check_tasks, default_tasks, parse_tasks, task_class, tasks_of_sets
from clippy_cli.evaluation.tasks.base import Options, Setup, common_record
from clippy_cli.model import DEFAULT_MODEL
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.patch_forms import with_patch_form
from clippy_cli.model.sources import loading
from clippy_cli.notices import Notices
from clippy_cli.processes import ALONE, Processes


@dataclass(frozen=True)
class SetEvaluation:
    """The results of one model on one set, with what was counted in each image.

    Attributes:
        tasks: the prepared tasks, by name, which keep the model in memory; none once they are released.
        results: one per task, and a second one of the task ``segment`` where regions were given.
        records: of every image that was tried, by result, in the set's order.
        device: what the model ran on, in words.
        journal: where the counts are noted for an interruption, if anywhere.
    """

    images: ImageSet
    settings: Settings
    tasks: dict[Task, AnyTask]
    results: tuple[TaskResult, ...]
    records: dict[ResultTask, list[ImageRecord]]
    device: str
    journal: Journal | None

    @property
    def notices(self) -> Notices:
        """What was skipped, ignored or assumed of the set and of its images, those counted before too."""
        return all_notices(self.images.notices, next(iter(self.records.values()), []))

    def released(self) -> SetEvaluation:
        """The same without the prepared tasks, so that the model's memory is free for the next one."""
        return replace(self, tasks={})


@dataclass(frozen=True)
class ModelLoading:
    """How models that are named by a source are loaded; see :func:`~clippy_cli.model.sources.loading.load_model`."""

    device: str = "auto"
    dense: str | None = None
    proxy: str | None = None


@dataclass(frozen=True)
class Host:
    """Where an evaluation runs, and what is called meanwhile; by default one silent process that keeps no journal.

    Attributes:
        processes: they share the work, and each gets the same results.
        journals: folder in which counts are noted, and from which an interrupted evaluation continues.
        checked: called once all names and settings are known to be right, before the first model is loaded.
        busy: entered while something takes a moment, with words for it such as ``loading clippy-ti``.
        progress: entered with a set's name while it is measured.
        evaluated: called after each model on each set.
    """

    processes: Processes = ALONE
    journals: Path | None = None
    checked: Callable[[], object] = lambda: None
    busy: Callable[[str], AbstractContextManager[object]] = lambda what: nullcontext()
    progress: Callable[[str], AbstractContextManager[Progress]] = lambda name: nullcontext(Progress())
    evaluated: Callable[[SetEvaluation], object] = lambda evaluation: None


def evaluate(
    sets: str | Path | ImageSet | OpenSuite | Sequence[str | Path | ImageSet],
    model: str | Path | VisionLanguageModel | Sequence[str | Path | VisionLanguageModel] = DEFAULT_MODEL,
    *,
    data_root: str | Path | None = None,
    tasks: str | Sequence[str] = (),
    protocol: str | Protocol = "clippy",
    overrides: Overrides | None = None,
    options: Options | None = None,
    model_loading: ModelLoading | None = None,
    reading: Reading | None = None,
    host: Host | None = None,
) -> Document:
    """Measure models on sets under one protocol: what ``clippy evaluate`` does, without its files and tables.

    Args:
        sets: a name of ``clippy sets``, a YAML file of your own set, a folder of class folders, captioned tar shards,
            or an open set; or several. Or an open suite, whose sets that were found are measured on its task.
        model: a loaded model or a source as of ``--model``; or several, each measured on every set.
        data_root: folder of the data sets; by default where CLIPPY_DATA points.
        tasks: ``"segment,group"`` or a sequence of :class:`~clippy_cli.evaluation.tasks.Task`; by default what each set
            is for.
        protocol: ``clippy``, ``tcl``, ``sclip``, a YAML file, or a loaded protocol.
        overrides: what departs from the protocol, such as the resolution.
        options: batch size, limit, regions and the settings of single tasks.
        model_loading: device and dense mode of models that are named by a source.
        reading: the EXIF rule of all named sets, and whether to refuse what would be skipped or assumed.
        host: processes, journals, and what is called meanwhile.

    Returns:
        The content of ``result.json``: one result per model, set and task, in this order, metrics in [0, 1].

    Raises:
        ClippyError: an unknown set, task, protocol or model, a set that is not there, a task that a set cannot measure,
            settings that do not fit together, a full disk. Images that cannot be used are no error: results name them.
    """
    host, how, options = host or Host(), model_loading or ModelLoading(), options or Options()
    reading = reading or Reading()
    rules = load_protocol(protocol) if isinstance(protocol, str) else protocol
    requested = parse_tasks(tasks)
    root = None if data_root is None else Path(data_root)
    suite = None
    if isinstance(sets, OpenSuite):
        suite = sets
        sets, requested = suite.found, (suite.suite.task,)
    named = dict.fromkeys([sets] if isinstance(sets, str | Path | AnnotatedSet) else sets)
    models = dict.fromkeys(model if isinstance(model, Sequence) and not isinstance(model, str) else [model])
    if not named or not models:
        raise ClippyError("Nothing to evaluate: no set or no model is named", "Name one of each, such as voc20.")
    with host.busy("looking for data sets"):
        opened = [open_benchmark(str(one), root, reading) if isinstance(one, str | Path) else one for one in named]
    jobs = list(zip(opened, tasks_of_sets(opened, requested), strict=True))
    reads_texts = any(task_class(task).reads_texts for _, chosen in jobs for task in chosen)
    for one in models:
        if isinstance(one, str | Path):
            loading.check_source(str(one), texts=reads_texts, dense=how.dense, proxy=how.proxy)
    host.checked()
    evaluations: list[SetEvaluation] = []
    for one in models:
        evaluations += _evaluate_model(one, how, jobs, rules, overrides or Overrides(), options, host)
        if reading.strict:
            _all_notices(evaluations).refuse("What was measured on")
    return make_document(evaluations, seed=options.seed, suite=suite)


def _evaluate_model(
    model: str | Path | VisionLanguageModel,
    how: ModelLoading,
    jobs: Sequence[tuple[ImageSet, tuple[Task, ...]]],
    protocol: Protocol,
    overrides: Overrides,
    options: Options,
    host: Host,
) -> list[SetEvaluation]:
    """One model on every set. A model that is loaded here is freed at the end: what is returned does not hold it."""
    source = str(model) if isinstance(model, str | Path) else model.name
    if isinstance(model, str | Path):
        device = host.processes.device(how.device)
        with host.busy(f"loading {source}"):
            model = loading.load_model(source, device=device, dense=how.dense, proxy=how.proxy)
    if overrides.patches is not None:
        model = with_patch_form(model, overrides.patches)
    evaluations = []
    for images, tasks in jobs:
        with host.progress(images.info.name) as progress:
            evaluation = evaluate_set(
                model,
                images,
                protocol,
                tasks=tasks,
                source=source,
                overrides=overrides,
                options=options,
                journals=host.journals,
                processes=host.processes,
                progress=progress,
            )
        host.evaluated(evaluation)
        evaluations.append(evaluation.released())
    return evaluations


def make_document(
    evaluations: Sequence[SetEvaluation], *, seed: int, command: str = "", suite: OpenSuite | None = None
) -> Document:
    """The content of ``result.json`` for at least one evaluation; ``command`` are the arguments, where there were."""
    results = tuple(result for evaluation in evaluations for result in evaluation.results)
    return Document(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        device=evaluations[-1].device,
        versions=library_versions(),
        seed=seed,
        results=results,
        suite=None if suite is None else suite.record(results),
        notices=notice_records(_all_notices(evaluations)),
    )


def _all_notices(evaluations: Sequence[SetEvaluation]) -> Notices:
    """Those of each set once, however many models were measured on it."""
    notices = Notices()
    for evaluation in {id(evaluation.images): evaluation for evaluation in evaluations}.values():
        notices.update(evaluation.notices)
    return notices


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
) -> SetEvaluation:
    """Measure ``tasks`` (by default what the kind of set is for) of one model on one set under one protocol.

    ``source`` is what names the model in the results, ``overrides`` what departs from the protocol. What was counted is
    noted in the folder ``journals``, and read from there, where one is given. ``processes`` share the work, and
    each gets the same results. ``progress`` is called as images are done.

    Raises:
        ClippyError: a task that the set does not have, settings that do not fit together, a full disk.
    """
    chosen = parse_tasks(tasks) or default_tasks(images.kind)
    check_tasks(images, chosen)
    settings = resolve_settings(protocol, images.info, model, overrides or Overrides())
    setup = Setup(model, images, settings, options or Options())
    identity = model_fingerprint(model)
    journal = None
    if journals is not None:
        journal = Journal(journals, _journal_name(setup, chosen, identity), 0 if processes is None else processes.rank)
    prepared: dict[Task, AnyTask] = {task: task_class(task)(setup) for task in chosen}
    try:
        measured = measure_set(setup, list(prepared.values()), journal=journal, processes=processes, progress=progress)
    finally:
        if journal is not None:
            journal.close()
    record = ModelRecord(name=model.name, source=source or model.name, fingerprint=identity)
    results = tuple(_result(name, task, record, measured) for task in prepared.values() for name in task.results)
    device = describe_device(model.device)
    return SetEvaluation(images, settings, prepared, results, measured.records, device, journal)


def _result(name: ResultTask, task: AnyTask, model: ModelRecord, measured: Measured) -> TaskResult:
    images, settings = task.setup.images, task.setup.settings
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
        published=_published(images, name, tuple(figures.metrics), settings, data),
        seconds=measured.seconds,
        images_per_second=measured.images_per_second,
        encoder_share=measured.encoder_share,
    )


def _is_variant(images: ImageSet) -> bool:
    """Whether a set of the catalogue was read from other annotation than its figures in the literature are of."""
    return load_spec(images.info.name).annotation != images.info.annotation


def _published(
    images: ImageSet, task: ResultTask, metrics: Sequence[str], settings: Settings, data: DataRecord
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
            subset=data.subset,
            images=data.images,
            complete=images.info.complete,
            changed=(*settings.overridden, *(["annotation"] if _is_variant(images) else [])),
        )
    )


def _journal_name(setup: Setup[ImageSet], tasks: Sequence[Task], identity: str) -> str:
    """Another name for whatever could change a count."""
    images = setup.images
    facts = {
        "version": __version__,
        "set": (images.kind, asdict(images.info), [images.key(index) for index in range(len(images))]),
        "classes": [asdict(entry) for entry in set_classes(images)],
        "model": identity,
        "tasks": sorted(tasks),
        "settings": asdict(setup.settings),
        "options": {**asdict(setup.options), "workers": None},
        "device": setup.model.device.type,
    }
    return fingerprint(facts)
