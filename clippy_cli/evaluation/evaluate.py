"""Models, sets and a protocol -> results that say how they were made.

:func:`evaluate` is the whole way from names to a document; one model on one open set is ``set_evaluation.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from clippy_cli.data.benchmarks import open_benchmark
from clippy_cli.data.benchmarks.base import AnnotatedSet, ImageSet, Reading
from clippy_cli.data.text_cache import TextCache
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.protocol import Protocol, load_protocol
from clippy_cli.evaluation.provenance import library_versions
from clippy_cli.evaluation.result import (
    Document,
    notice_records,
)
from clippy_cli.evaluation.run import Progress
from clippy_cli.evaluation.set_evaluation import SetEvaluation, evaluate_set
from clippy_cli.evaluation.settings import Overrides
from clippy_cli.evaluation.suites import OpenSuite
from clippy_cli.evaluation.tasks import Task, parse_tasks, task_class, tasks_of_sets
from clippy_cli.evaluation.tasks.base import Options
from clippy_cli.model import DEFAULT_MODEL
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.choices import AUTO
from clippy_cli.model.patch_forms import with_patch_form
from clippy_cli.model.sources import loading
from clippy_cli.notices import Notices
from clippy_cli.processes import ALONE, Processes
from clippy_cli.stages import LOAD_MODEL, stage


@dataclass(frozen=True)
class ModelLoading:
    """How models that are named by a source are loaded; see :func:`~clippy_cli.model.sources.loading.load_model`.

    With ``cache`` embeddings of their texts are kept on disk (see :class:`~clippy_cli.data.text_cache.TextCache`).
    """

    device: str = "auto"
    dense: str | None = None
    proxy: str | None = None
    precision: str = AUTO
    compiled: bool = False
    cache: bool = True


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
    source, cache = str(model) if isinstance(model, str | Path) else model.name, None
    if isinstance(model, str | Path):
        device = host.processes.device(how.device)
        with host.busy(f"loading {source}"), stage(LOAD_MODEL):
            model = loading.load_model(
                source,
                device=device,
                dense=how.dense,
                proxy=how.proxy,
                precision=how.precision,
                compiled=how.compiled,
            )
            cache = TextCache.of_source(source) if how.cache and model.reads_texts else None
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
                cache=cache,
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
