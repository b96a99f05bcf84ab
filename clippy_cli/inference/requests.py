"""What a user asks of photos, checked before any model is loaded: what to segment, group or classify, and how to look.

The options are the same for Python, the commands and the demo, which turn what they are given into one of the requests
here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, TypeVar

from clippy_cli.data.labels import Label, Vocabulary, read_labels
from clippy_cli.data.prompts import resolve_templates
from clippy_cli.errors import ClippyError
from clippy_cli.inference.choices import (
    DEFAULT_GROUPS,
    DEFAULT_REFINEMENT,
    NO_REFINEMENT,
    GroupMethod,
    Refinement,
)
from clippy_cli.inference.refine.refinement import parse_refinement
from clippy_cli.inference.views import Views, check_scales, fit_windows
from clippy_cli.model.base import VisionLanguageModel

MAX_GROUPS = 254  # what a palette image holds
DEFAULT_TOP_K = 5

Words = str | Sequence[str]
Choice = TypeVar("Choice", Refinement, GroupMethod)


class ViewOptions(TypedDict, total=False):
    """How a photo is looked at.

    resolution: short side in pixels that it is resized to; None for the model's own.
    scales: up to eight factors of the resolution; similarities are averaged over them.
    flip: average with the mirrored photo.
    window: side of sliding windows in pixels; None or 0 for the whole photo.
    stride: step between windows in pixels; None for windows side by side.
    """

    resolution: int | None
    scales: Sequence[float] | None
    flip: bool
    window: int | None
    stride: int | None


class RuleOptions(TypedDict, total=False):
    """Which pixels get a label.

    background: words that compete like labels but leave pixels unlabelled.
    threshold: leave pixels unlabelled whose score, in [0, 1], is below this.
    min_area: take back labels that win less than this share in [0, 1] of the labelled pixels.
    templates: name of a prompt set, or one template with ``{}``; None for the model's own.
    refine: guided (the default), pamr, crf, or none.
    """

    background: Words
    threshold: float | None
    min_area: float | None
    templates: str | None
    refine: str | None


class SegmentOptions(ViewOptions, RuleOptions, total=False):
    """What :class:`ViewOptions` and :class:`RuleOptions` hold."""


@dataclass(frozen=True)
class Look:
    """Checked :class:`ViewOptions`."""

    resolution: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: int | None = None
    stride: int | None = None

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> Look:
        """ClippyError where the options do not fit together or are out of range."""
        window, stride = options.get("window") or None, options.get("stride")
        if stride is not None and window is None:
            raise ClippyError("--stride needs windows", "Give --window PIXELS too, or leave --stride out.")
        for name in ("resolution", "window", "stride"):
            _check_at_least(name, options.get(name), 0 if name == "window" else 1)
        fit_windows(window, stride, 1)
        scales = tuple(options.get("scales") or (1.0,))
        check_scales(scales)
        return cls(options.get("resolution"), scales, bool(options.get("flip")), window, stride)

    def options(self) -> ViewOptions:
        """What :meth:`read` makes the same look of."""
        return {
            "resolution": self.resolution,
            "scales": self.scales,
            "flip": self.flip,
            "window": self.window,
            "stride": self.stride,
        }

    def fit(self, model: VisionLanguageModel) -> tuple[int, Views]:
        """The short side in pixels at scale 1, and the views, in multiples of the model's patch."""
        window, stride = fit_windows(self.window, self.stride, model.preprocess.patch_size)
        return self.resolution or model.defaults.resolution, Views(self.scales, self.flip, window, stride)


@dataclass(frozen=True)
class SegmentRequest:
    """Label every pixel with one of ``vocabulary``'s labels; see :class:`RuleOptions` for the rest."""

    vocabulary: Vocabulary
    threshold: float | None = None
    min_area: float | None = None
    templates: tuple[str, ...] | None = None
    refine: Refinement | None = DEFAULT_REFINEMENT
    look: Look = field(default_factory=Look)

    @classmethod
    def read(cls, labels: Words, options: Mapping[str, Any]) -> SegmentRequest:
        """ClippyError where labels or options cannot be used; TypeError for an option that does not exist."""
        _check_names(options, SegmentOptions)
        for name in ("threshold", "min_area"):
            value = options.get(name)
            if value is not None and not 0 <= value <= 1:
                raise ClippyError(f"{name} must be from 0 to 1, not {value}", f"Change {name}, or leave it out.")
        background = options.get("background") or ()
        words: tuple[Label, ...] = read_labels(background) if background else ()
        refine = options.get("refine", DEFAULT_REFINEMENT)
        return cls(
            Vocabulary(read_labels(labels), words),
            options.get("threshold"),
            options.get("min_area"),
            read_templates(options.get("templates")),
            parse_refinement(refine or NO_REFINEMENT),
            Look.read(options),
        )


@dataclass(frozen=True)
class GroupRequest:
    """Divide photos into ``groups`` without words."""

    groups: int = DEFAULT_GROUPS
    method: GroupMethod = GroupMethod.PCA
    look: Look = field(default_factory=Look)

    @classmethod
    def read(cls, groups: int, method: str, options: Mapping[str, Any]) -> GroupRequest:
        """ClippyError where the number, the method or the options cannot be used."""
        _check_names(options, ViewOptions)
        if not 1 <= groups <= MAX_GROUPS:
            raise ClippyError(f"{groups} groups are not from 1 to {MAX_GROUPS}", "Change the number of groups.")
        if method not in list(GroupMethod):
            raise ClippyError(f"No grouping method is called {method!r}", f"Choose among {', '.join(GroupMethod)}.")
        return cls(groups, GroupMethod(method), Look.read(options))


@dataclass(frozen=True)
class ClassifyRequest:
    """Rank ``vocabulary``'s labels for whole photos."""

    vocabulary: Vocabulary
    top_k: int = DEFAULT_TOP_K
    templates: tuple[str, ...] | None = None
    resolution: int | None = None

    @classmethod
    def read(cls, labels: Words, top_k: int, templates: str | None, resolution: int | None) -> ClassifyRequest:
        """ClippyError where one of them cannot be used."""
        _check_at_least("top_k", top_k, 1)
        _check_at_least("resolution", resolution, 1)
        return cls(Vocabulary(read_labels(labels)), top_k, read_templates(templates), resolution)


def read_templates(spec: str | None) -> tuple[str, ...] | None:
    """The templates that a name or text stands for; None leaves them to the model."""
    return None if spec is None else resolve_templates(spec)


def _check_names(options: Mapping[str, Any], known: type) -> None:
    allowed: frozenset[str] = getattr(known, "__optional_keys__", frozenset())
    for name in options:
        if name not in allowed:
            raise TypeError(f"There is no option {name!r}; there are {', '.join(sorted(allowed))}")


def _check_at_least(name: str, value: int | None, least: int) -> None:
    if value is not None and value < least:
        raise ClippyError(f"{name} must be at least {least}, not {value}", f"Change {name}, or leave it out.")
