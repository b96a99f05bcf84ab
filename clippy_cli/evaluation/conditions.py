"""What a figure was measured with, one condition after the other: the ground on which ours and a published one compare.

Each condition has a name and a plain value. :func:`measured_with` gives ours, from what was really used;
``published.yaml`` states those of published figures under the same names. A name of a protocol is no condition.

A new field of :class:`~clippy_cli.evaluation.settings.Settings` or :class:`~clippy_cli.evaluation.tasks.base.Options`
that changes figures is one line in ``CONDITIONS``, which names it among ``reads``; one that does not is one in
``NO_CONDITION``. A test finds the field that is in neither.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from clippy_cli.data.benchmarks.catalogue import load_spec
from clippy_cli.data.benchmarks.framed import Frame
from clippy_cli.data.prompts import canonical_template
from clippy_cli.evaluation.protocol import Background
from clippy_cli.evaluation.settings import class_entries
from clippy_cli.evaluation.tasks import Task
from clippy_cli.evaluation.tasks.base import Setup
from clippy_cli.inference.choices import Competition, Filter, Refinement, Sizes
from clippy_cli.inference.refine.pamr import DILATIONS, ITERATIONS

Value: TypeAlias = str | int | float | bool | tuple[str | int | float, ...]
Measured: TypeAlias = Setup[Any]

UNKNOWN = "unknown"  # a published condition that is not stated, or was not read; equal to nothing
NONE = "none"
UNUSED = "not used"
_SHOWN = 3  # values of a condition that a reason lists

_SEGMENT = (Task.SEGMENT,)
_PATCHES = (Task.SEGMENT, Task.GROUP)
_WORDS = (Task.SEGMENT, Task.CLASSIFY)
_ALL = (Task.SEGMENT, Task.GROUP, Task.CLASSIFY)


@dataclass(frozen=True)
class Condition:
    """One thing that changes figures.

    Attributes:
        name: its key in ``published.yaml``, and what a reason calls it, with spaces.
        tasks: those whose figures it changes.
        ours: its value in a measurement.
        reads: the fields of Settings and Options that decide it.
    """

    name: str
    tasks: tuple[Task, ...]
    ours: Callable[[Measured], Value]
    reads: tuple[str, ...] = ()


def measured_with(setup: Measured, task: Task) -> dict[str, Value]:
    """Condition -> its value in a measurement of ``task``; empty where the task has no published figures."""
    return {condition.name: condition.ours(setup) for condition in CONDITIONS if task in condition.tasks}


def differences(theirs: Mapping[str, Value], ours: Mapping[str, Value]) -> tuple[str, ...]:
    """Why a published figure and ours do not compare, one reason each; none where they do.

    Every condition of ours must be stated of theirs, known, and equal.
    """
    reasons = [
        f"{_spaced(name)}: {_text(value)} (ours: {_text(ours[name])})"
        for name in ours
        if (value := theirs.get(name, UNKNOWN)) != UNKNOWN and value != ours[name]
    ]
    unknown = [_spaced(name) for name in ours if theirs.get(name, UNKNOWN) == UNKNOWN]
    if unknown:
        what = "how it was measured" if len(unknown) == len(ours) else ", ".join(unknown)
        reasons.append(f"not known: {what}")
    return tuple(reasons)


def vocabulary(classes: Mapping[int, list[str]]) -> str:
    """The texts of each class in a line: ``56 texts in 21 classes (a7258808309b)``.

    The bracket holds the first 12 digits of the SHA-256 of the classes, one a line in alphabetical order, the texts of
    a class in alphabetical order with ``|`` between them. Neither the order of classes nor their names matter.
    """
    lines = sorted("|".join(sorted(texts)) for texts in classes.values())
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
    return f"{sum(map(len, classes.values()))} texts in {len(classes)} classes ({digest})"


def _annotation(setup: Measured) -> Value:
    """``standard`` is the annotation that the catalogue's file of the set reads; a fallback has other pixels."""
    info = setup.images.info
    standard = not info.catalogued or load_spec(info.name).annotation == info.annotation
    return "standard" if standard else info.annotation


def _classes(setup: Measured) -> Value:
    images = setup.images
    if images.kind == "boundaries":
        return "regions of each annotator"
    count, background = len(images.classes), images.background if images.kind == "segmentation" else None
    return f"{count} classes" if background is None else f"{count - 1} classes and background"


def _cropped(setup: Measured) -> bool:
    return setup.images.kind == "classification" or setup.settings.frame is not Frame.WHOLE


def _sizing(setup: Measured) -> Value:
    if _cropped(setup):
        return "short side, center crop"
    exact = setup.settings.sizes is Sizes.EXACT
    return "short side, exact pixels" if exact else "short side, multiples of the patch"


def _resize(setup: Measured) -> Value:
    """The frame and the middle of a photo are always cut from an antialiased one."""
    bilinear = setup.settings.resize is Filter.BILINEAR and not _cropped(setup)
    return "bilinear" if bilinear else "bicubic, antialiased"


def _window_average(setup: Measured) -> Value:
    return NONE if setup.settings.window is None else str(setup.settings.window_average)


def _positions(setup: Measured) -> Value:
    """How the position table is brought to the grid: ``native`` where every view has the grid it was trained on."""
    settings, native = setup.settings, setup.model.preprocess.resolution
    if _cropped(setup) and settings.resolution == native and settings.scales == (1.0,):
        return "native"
    if settings.window == native and min(settings.scales) * settings.resolution >= native:
        return "native"
    return "the model's own" if settings.positions is None else str(settings.positions)


def _pooled_tokens(setup: Measured) -> Value:
    prefix = setup.settings.pool_prefix
    if prefix is None:
        return "as the model is configured"
    return "patches and class token" if prefix else "patches"


def _scored_at(setup: Measured) -> Value:
    side = setup.settings.resolution
    squashed = setup.settings.frame is Frame.SQUASHED_MASKS
    return f"{side} x {side}, masks squashed to it" if squashed else "the annotation's size"


def _groups(setup: Measured) -> dict[int, list[str]]:
    """Class index -> the texts that stand for it, in classes that have any."""
    images, settings = setup.images, setup.settings
    if images.kind == "classification":
        return {index: list(entry.prompts) for index, entry in enumerate(images.classes)}
    entries, start = class_entries(images, settings), 0
    groups: dict[int, list[str]] = {}
    for size, code in zip(entries.sizes, entries.codes, strict=True):
        groups.setdefault(code, []).extend(entries.texts[start : start + size])
        start += size
    return groups


def _competition(setup: Measured) -> Value:
    """Where no class but the background has two texts, the ways to let them compete are one."""
    background = setup.images.background
    if all(len(texts) == 1 for code, texts in _groups(setup).items() if code != background):
        return "no synonyms"
    return "texts" if setup.settings.competition is Competition.TEXTS else "synonyms merged on the patch grid"


def _thresholded(setup: Measured) -> bool:
    return setup.images.background is not None and setup.settings.threshold is not None


def _logit_scale(setup: Measured) -> Value:
    """It changes no map that is the best class alone."""
    settings = setup.settings
    if not _thresholded(setup) and settings.refine is None:
        return UNUSED
    return "the model's" if settings.own_logit_scale else settings.logit_scale


def _background(setup: Measured) -> Value:
    settings = setup.settings
    if setup.images.background is None:
        return "no background class"
    parts = [] if settings.background is Background.THRESHOLD else ["words"]
    if settings.threshold is not None:
        parts.append(f"probability below {settings.threshold:g}")
    return " and ".join(parts)


def _min_area(setup: Measured) -> Value:
    return setup.settings.min_area if _thresholded(setup) and setup.settings.min_area else NONE


def _refinement(setup: Measured) -> Value:
    refine = setup.settings.refine
    if refine is Refinement.PAMR:
        return f"pamr, {ITERATIONS} steps, dilations {' '.join(map(str, DILATIONS))}"
    return NONE if refine is None else str(refine)


def _text(value: Value) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_text, value)) if len(value) <= _SHOWN else f"{len(value)} of its own"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _spaced(name: str) -> str:
    return name.replace("_", " ")


CONDITIONS = (
    Condition("split", _ALL, lambda m: m.images.info.split or UNKNOWN),
    Condition("annotation", _PATCHES, _annotation),
    Condition("classes", _ALL, _classes),
    Condition("resolution", _ALL, lambda m: m.settings.resolution, ("resolution",)),
    Condition("sizing", _ALL, _sizing, ("sizes", "frame")),
    Condition("resize", _ALL, _resize, ("resize",)),
    Condition("window", _PATCHES, lambda m: m.settings.window or NONE, ("window",)),
    Condition("stride", _PATCHES, lambda m: m.settings.stride or NONE, ("stride",)),
    Condition("window_average", _PATCHES, _window_average, ("window_average",)),
    Condition("scales", _PATCHES, lambda m: m.settings.scales, ("scales",)),
    Condition("flip", _PATCHES, lambda m: m.settings.flip, ("flip",)),
    Condition("positions", _ALL, _positions, ("positions",)),
    Condition("pooled_tokens", (Task.CLASSIFY,), _pooled_tokens, ("pool_prefix",)),
    Condition(
        "templates",
        _WORDS,
        lambda m: tuple(map(canonical_template, m.settings.template_names)),
        ("template_names", "templates"),
    ),
    Condition("words", _WORDS, lambda m: vocabulary(_groups(m)), ("classes", "context")),
    Condition("competition", _SEGMENT, _competition, ("competition",)),
    Condition("best_classes", _SEGMENT, lambda m: m.settings.best_classes or "all", ("best_classes",)),
    Condition("background", _SEGMENT, _background, ("background", "threshold")),
    Condition("min_area", _SEGMENT, _min_area, ("min_area",)),
    Condition("logit_scale", _SEGMENT, _logit_scale, ("logit_scale", "own_logit_scale")),
    Condition("refinement", _SEGMENT, _refinement, ("refine",)),
    Condition("scored_at", _PATCHES, _scored_at),
    Condition("groups", (Task.GROUP,), lambda m: m.options.groups, ("groups",)),
    Condition("method", (Task.GROUP,), lambda m: str(m.options.method), ("method",)),
)

# Fields of Settings and Options that are no condition, and why.
NO_CONDITION = {
    "protocol": "a name; what it stands for is compared",
    "overridden": "names; the values are compared",
    "patches": "part of the model that is measured",
    "batch_size": "changes no figure",
    "workers": "changes no figure",
    "limit": "a part of the images is a reason of its own",
    "clusters": "no figure of task cluster is published here",
    "seed": "of task cluster only",
    "regions": "their result is of another task, without published figures",
}
