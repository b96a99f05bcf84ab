"""The public Python interface: load a model, ask it about photos, measure it, train one.

>>> import clippy_cli as clippy
>>> clip = clippy.load()
>>> seg = clip.segment(clippy.sample_photo(), ["raccoon", "grass"])
>>> seg.labels
('raccoon', 'grass')
>>> seg.mask.shape
(768, 1024)

Commands and demo stand on the same calls. Photos go in as paths, Pillow images, NumPy arrays or torch tensors; results
are frozen dataclasses of NumPy arrays that draw, save and show themselves. Mistakes of a caller raise a
:class:`~clippy_cli.errors.ClippyError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from clippy_cli.clip import Clip, Photo
from clippy_cli.data.text_cache import TextCache
from clippy_cli.errors import ClippyError
from clippy_cli.inference.choices import GroupMethod
from clippy_cli.model import DEFAULT_MODEL
from clippy_cli.model.choices import AUTO
from clippy_cli.model.sources.loading import check_source, load_model
from clippy_cli.reporting.model_choice import ModelChoice

if TYPE_CHECKING:
    from clippy_cli.evaluation.protocol import Protocol
    from clippy_cli.evaluation.result import Document
    from clippy_cli.training.events import Event, Stop
    from clippy_cli.training.run import TrainingResult

__all__ = ["Clip", "Photo", "evaluate", "load", "sample_photo", "train"]


def load(
    model: str = DEFAULT_MODEL,
    *,
    device: str = "auto",
    dense: str | None = None,
    proxy: str | None = None,
    positions: str | None = None,
    texts: bool = False,
    precision: str = AUTO,
    compile: bool = False,
    cache: bool = True,
) -> Clip:
    """Load a model, ready to be asked.

    Args:
        model: a shipped model's name, a model directory, a run folder, or a source such as
            ``open_clip:ViT-B-16/openai``; ``clippy models`` lists them.
        device: auto, cpu, cuda, cuda:N or mps.
        dense: attention of the last block where patches are wanted, for models not trained for patches: plain,
            maskclip, sclip, naclip, clearclip, resclip or proxyclip.
        proxy: source of the model whose patches steer proxyclip.
        positions: how the position table is resampled to other grids: timm, dino or plain; None takes the model's.
        texts: refuse, before anything is loaded, a model that cannot read texts.
        precision: of the image tower, fp32 or bf16; auto is fp32 on every device today.
        compile: compile the image tower with torch.compile, which pays in long runs only.
        cache: keep embeddings of texts on disk, for later runs (see docs/models.md for where, and how much).

    Raises:
        ClippyError: no such model, weights that are not at hand, a dense mode that the model does not have.

    >>> load("clippy-ti").name
    'clippy-ti'
    """
    if texts:
        check_source(model, texts=True)
    loaded = load_model(
        model,
        device=device,
        dense=dense,
        proxy=proxy,
        positions=positions,
        precision=precision,
        compiled=compile,
    )
    kept = TextCache.of_source(model) if cache and loaded.reads_texts else None
    return Clip(ModelChoice(loaded, model, dense, proxy, kept))


def sample_photo() -> Path:
    """Path of a photo in the public domain that comes with the package: a raccoon in grass, 1024x768 pixels.

    >>> sample_photo().name
    'raccoon.jpg'
    """
    return Path(str(resources.files("clippy_cli") / "assets" / "samples" / "raccoon.jpg"))


class ProtocolOptions(TypedDict, total=False):
    """What departs from a protocol, named as such in the results; see ``clippy evaluate --help``.

    resolution, window, stride: in pixels. templates: a prompt set or a template. background: ``words``, a probability
    such as ``"0.4"``, or both as in ``"words+0.1"``. patches: the form of patch embeddings. scales, flip: views to be
    averaged. refine: guided, pamr, crf or none.
    """

    resolution: int | None
    window: int | None
    stride: int | None
    templates: str | None
    background: str | None
    patches: str | None
    scales: Sequence[float] | None
    flip: bool | None
    refine: str | None
    positions: str | None
    pool_prefix: bool | None
    window_average: str | None


class MeasureOptions(TypedDict, total=False):
    """How a measurement is carried out.

    limit: take the first images only. batch_size: images of one size in a forward pass. workers: threads that decode.
    groups, method: of the task group. clusters: of the task cluster. seed: of the clusters. regions: folder of region
    files, for a second result of the task segment. exif: apply or ignore the EXIF orientation of annotated photos.
    strict: refuse what would be skipped or assumed. precision, compile, cache: of models that are named, as of
    :func:`load`; a loaded model is measured as it is, and its texts are not kept.
    """

    limit: int | None
    batch_size: int
    workers: int
    groups: int
    method: GroupMethod
    clusters: int | None
    seed: int
    regions: Path | None
    exif: str | None
    strict: bool
    precision: str
    compile: bool
    cache: bool


def evaluate(
    sets: str | Sequence[str] = (),
    *,
    suite: str | None = None,
    model: str | Clip | Sequence[str | Clip] = DEFAULT_MODEL,
    data_root: str | Path | None = None,
    tasks: str | Sequence[str] = (),
    protocol: str | Protocol = "clippy",
    changes: ProtocolOptions | None = None,
    **options: Unpack[MeasureOptions],
) -> Document:
    """Measure models on data sets under one protocol, as ``clippy evaluate`` does, without its files and tables.

    Args:
        sets: a name of ``clippy sets``, a YAML file of your own set, a folder of class folders or captioned tar shards;
            or several.
        suite: instead of ``sets``, a suite such as ``ovss8`` or a YAML file; the document then holds its table.
        model: a loaded :class:`Clip` or a source of :func:`load`; or several, each measured on every set.
        data_root: folder of the data sets; by default where CLIPPY_DATA points.
        tasks: ``segment``, ``group``, ``cluster``, ``classify``, ``retrieve``; by default what each set is for.
        protocol: ``clippy``, ``tcl``, ``sclip``, or a YAML file.
        changes: what departs from the protocol, such as ``{"resolution": 448}``.
        options: see :class:`MeasureOptions`.

    Returns:
        The content of ``result.json``: one result for each model, set and task, in this order, metrics in [0, 1].

    Raises:
        ClippyError: an unknown set, task, protocol or model; a set that is not there; options that do not fit together.

    >>> document = evaluate("scenes", limit=4)
    >>> [str(result.task) for result in document.results]
    ['segment', 'group']
    >>> 0 <= document.results[0].metrics["miou"] <= 1
    True
    """
    from clippy_cli.data.benchmarks.base import Reading, parse_exif_rule
    from clippy_cli.evaluation.evaluate import ModelLoading
    from clippy_cli.evaluation.evaluate import evaluate as measure
    from clippy_cli.evaluation.settings import Overrides
    from clippy_cli.evaluation.suites import open_suite
    from clippy_cli.evaluation.tasks.base import Options

    root = None if data_root is None else Path(data_root).expanduser()
    several = [model] if isinstance(model, str | Clip) else list(model)
    models = [one.model if isinstance(one, Clip) else one for one in several]
    named: dict[str, Any] = dict(changes or {})
    if named.get("scales") is not None:
        named["scales"] = tuple(named["scales"])
    if suite is not None and (sets or tasks):
        raise ClippyError(f"suite={suite!r} names the sets and the task itself", "Leave out sets and tasks, or suite.")
    measuring: dict[str, Any] = {**options}
    how = ModelLoading(
        precision=measuring.pop("precision", AUTO),
        compiled=measuring.pop("compile", False),
        cache=measuring.pop("cache", True),
    )
    reading = Reading(parse_exif_rule(measuring.pop("exif", None)), measuring.pop("strict", False))
    return measure(
        sets if suite is None else open_suite(suite, root),
        models,
        data_root=root,
        tasks=tasks,
        protocol=protocol,
        overrides=Overrides(**named),
        options=Options(**measuring),
        reading=reading,
        model_loading=how,
    )


def train(
    recipe: str | Path,
    *,
    output: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    smoke: bool = False,
    device: str = "auto",
    resume: bool = False,
    on_event: Callable[[Event], None] | None = None,
    should_stop: Callable[[], Stop] | None = None,
) -> TrainingResult:
    """Train a model by a recipe, as ``clippy train`` does, without its display.

    Args:
        recipe: a YAML file, or the name of a shipped recipe such as ``quickstart``.
        output: run folder; by default the recipe's.
        overrides: dotted field to value, such as ``{"train.lr": 3e-4, "data.resolution": [224, 336]}``.
        smoke: the whole recipe in small, which needs no data.
        device: auto, cpu, cuda, cuda:N or mps.
        resume: continue from the newest checkpoint in the run folder, or start where there is none.
        on_event: called with every event, in order (see :mod:`clippy_cli.training.events`).
        should_stop: called after each step; a reason to stop saves a checkpoint and returns an unfinished result.

    Returns:
        The model, and what was written where; ``load(str(result.folder.root))`` loads it.

    Raises:
        ClippyError: every mistake in the recipe at once; a used run folder without ``resume``; missing data or weights.

    >>> result = train("quickstart", output="tiny-run", smoke=True)
    >>> result.finished, (result.folder.model / "config.json").is_file()
    (True, True)
    """
    from clippy_cli.evaluation.in_training import periodic_evaluation
    from clippy_cli.processes import ALONE
    from clippy_cli.recipe.loading import load_recipe
    from clippy_cli.training.events import Stop
    from clippy_cli.training.run import train as run_training

    changes = dict(overrides or {}) | ({} if output is None else {"output": str(output)})
    checked = load_recipe(recipe, changes, smoke=smoke)
    return run_training(
        checked,
        device=device,
        resume=resume,
        on_event=on_event or (lambda event: None),
        should_stop=should_stop or (lambda: Stop.GO_ON),
        evaluate=periodic_evaluation(checked, ALONE, Path(checked.output)),
    )
