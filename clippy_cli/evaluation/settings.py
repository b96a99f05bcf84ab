"""What a protocol comes to for one set and one model, and the rules of segmentation that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from clippy_cli.data.benchmarks.base import SegmentationSet, SetInfo
from clippy_cli.data.benchmarks.framed import Frame
from clippy_cli.data.prompts import resolve_templates
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.protocol import Background, Protocol, Rules
from clippy_cli.inference.choices import Competition, Filter, Refinement, Sizes, WindowAverage
from clippy_cli.inference.refine.refinement import parse_refinement
from clippy_cli.inference.segment import Entries, Rule
from clippy_cli.inference.views import Views, check_scales, fit_windows
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.choices import PositionResampling
from clippy_cli.model.patch_forms import parse_positions, patch_form, pools_prefix, position_rule


@dataclass(frozen=True)
class Settings:
    """What is really used for one set and one model.

    Attributes:
        protocol: its name.
        resolution: short side in pixels; aspect is kept and sides are rounded to multiples of the patch.
        window, stride: in pixels, rounded to multiples of the patch; None for the whole image.
        scales: factors of the resolution, averaged; ``flip``: whether mirrored images are averaged in.
        refine: how masks of the task segment are refined; None for not at all.
        template_names: the sets or texts as they were requested; ``templates`` are all texts.
        logit_scale: factor of a cosine before a softmax.
        own_logit_scale: whether that is the model's own, rather than one that the protocol fixes.
        background: the rule, for sets with a background class.
        threshold, min_area: of the rule, where it has them.
        window_average: where overlapping windows are averaged.
        sizes: whether sides are rounded to multiples of the patch.
        resize: the filter.
        best_classes: how many classes may be found in a window, each pixel in that of its group (GroupViT's rule); None
            for all, pixel by pixel.
        competition: whether synonyms are merged before the softmax, or each text competes by itself.
        classes: prompts that replace the set's own, by class name.
        context: context words that replace the set's own, or None.
        patches: the form of patch embeddings (see ``model/patch_forms.py``), or None where the model does not say.
        positions: how the position table is resampled, or None where the model has none that it could choose for.
        pool_prefix: whether pooling takes in class and register tokens, or None where the model's pooling never does.
        frame: what of a photo is seen.
        overridden: what the command line changed of what the protocol fixes.
    """

    protocol: str
    resolution: int
    window: int | None
    stride: int | None
    scales: tuple[float, ...]
    flip: bool
    refine: Refinement | None
    template_names: tuple[str, ...]
    templates: tuple[str, ...]
    logit_scale: float
    own_logit_scale: bool
    background: Background
    threshold: float | None
    min_area: float | None
    window_average: WindowAverage
    sizes: Sizes
    resize: Filter
    best_classes: int | None
    competition: Competition
    classes: dict[str, tuple[str, ...]]
    context: tuple[str, ...] | None
    patches: str | None
    positions: PositionResampling | None
    pool_prefix: bool | None
    frame: Frame
    overridden: tuple[str, ...]

    @property
    def protocol_name(self) -> str:
        """``sclip``, or ``sclip, changed: resolution`` where the command line changed something."""
        changes = ", ".join(self.overridden)
        return f"{self.protocol}, changed: {changes}" if changes else self.protocol

    @property
    def views(self) -> Views:
        """How images are looked at for masks."""
        return Views(self.scales, self.flip, self.window, self.stride)


@dataclass(frozen=True)
class Overrides:
    """What the command line says against the protocol; None leaves it."""

    resolution: int | None = None
    window: int | None = None
    stride: int | None = None
    templates: str | None = None
    background: str | None = None
    patches: str | None = None
    scales: tuple[float, ...] | None = None
    flip: bool | None = None
    refine: str | None = None
    positions: str | None = None
    pool_prefix: bool | None = None
    window_average: str | None = None

    def __post_init__(self) -> None:
        check_whole_numbers(self, {"resolution": 1, "window": 0, "stride": 1})
        if self.scales is not None:
            check_scales(self.scales)

    def names(self) -> tuple[str, ...]:
        return tuple(name for name, value in vars(self).items() if value is not None)


def check_whole_numbers(given: object, lowest: Mapping[str, int]) -> None:
    """ClippyError for an attribute of ``given`` that is no whole number, or below the ``lowest`` one; None is left."""
    for name, least in lowest.items():
        value = getattr(given, name)
        if value is not None and (not isinstance(value, Integral) or value < least):
            raise ClippyError(f"{name} must be a whole number from {least}, not {value!r}", f"Change {name}.")


def resolve_settings(protocol: Protocol, info: SetInfo, model: VisionLanguageModel, overrides: Overrides) -> Settings:
    """Join the protocol, its rules for this set, the overrides and the model's defaults.

    ClippyError where they do not fit together, such as a stride beyond the window.
    """
    own = protocol.sets.get(info.name, Rules()) if info.catalogued or protocol.is_own else Rules()

    def rule(name: str, fallback: Any = None) -> Any:
        for rules in (own, protocol):
            if (value := getattr(rules, name)) is not None:
                return value
        return fallback

    resolution = overrides.resolution or rule("resolution", "model")
    wanted = (overrides.templates,) if overrides.templates else rule("templates", ("model",))
    names = tuple(model.defaults.templates if name == "model" else name for name in wanted)
    window = rule("window") if overrides.window is None else overrides.window or None
    stride = overrides.stride or rule("stride")
    if window is None and overrides.stride is not None:
        raise ClippyError("--stride needs windows", "Give --window PIXELS too, or leave --stride out.")
    window, stride = fit_windows(window, stride, model.preprocess.patch_size)
    background, threshold = rule("background", Background.WORDS), rule("threshold")
    if overrides.background is not None:
        background, threshold = parse_background(overrides.background)
    scale = rule("logit_scale", "model")
    average = _window_average(rule("window_average"), overrides.window_average, window)
    scales, flip = overrides.scales or rule("scales", (1.0,)), rule("flip", False)
    flip = flip if overrides.flip is None else overrides.flip
    if average is WindowAverage.PIXELS and (flip or scales != (1.0,)):
        raise ClippyError(
            "Windows that are averaged at pixels take one scale and no flip.",
            "Add --window-average patches, or leave --scales and --flip out.",
        )
    return Settings(
        protocol=protocol.name,
        resolution=model.defaults.resolution if resolution == "model" else resolution,
        window=window,
        stride=stride,
        scales=scales,
        flip=flip,
        refine=rule("refine") if overrides.refine is None else parse_refinement(overrides.refine),
        template_names=names,
        templates=tuple(template for name in names for template in resolve_templates(name)),
        logit_scale=model.defaults.logit_scale if scale == "model" else scale,
        own_logit_scale=scale == "model",
        background=background,
        threshold=None if background is Background.WORDS else threshold,
        min_area=None if background is Background.WORDS else rule("min_area"),
        window_average=average,
        sizes=rule("sizes", Sizes.PATCH) if average is WindowAverage.PIXELS else Sizes.PATCH,
        resize=rule("resize", Filter.BICUBIC),
        best_classes=rule("best_classes") if average is WindowAverage.PIXELS else None,
        competition=rule("competition", Competition.ENTRIES),
        classes=dict(own.classes) or dict(protocol.classes),
        context=rule("context"),
        patches=patch_form(model),
        positions=_positions(model, rule("positions", "model"), overrides.positions),
        pool_prefix=_pool_prefix(model, rule("pool_prefix"), overrides.pool_prefix),
        frame=rule("frame", Frame.WHOLE),
        overridden=tuple(
            name for name in overrides.names() if name != "resolution" or rule("resolution", "model") != "model"
        ),
    )


def _window_average(wanted: WindowAverage | None, override: str | None, window: int | None) -> WindowAverage:
    if override is not None and override not in list(WindowAverage):
        raise ClippyError(f"--window-average cannot be {override!r}", f"Choose among {', '.join(WindowAverage)}.")
    if window is None:
        if override == WindowAverage.PIXELS:
            raise ClippyError("--window-average pixels needs windows", "Give --window PIXELS too.")
        return WindowAverage.PATCHES
    return WindowAverage(override or wanted or WindowAverage.PATCHES)


def _positions(model: VisionLanguageModel, wanted: str, override: str | None) -> PositionResampling | None:
    """A protocol's wish passes by models without a table; an override, which a user wrote, is refused there later."""
    own = position_rule(model)
    if override is not None:
        return parse_positions(override)
    return own if own is None or wanted == "model" else PositionResampling(wanted)


def _pool_prefix(model: VisionLanguageModel, wanted: bool | None, override: bool | None) -> bool | None:
    """As :func:`_positions`, for the tokens that pooling takes in."""
    own = pools_prefix(model)
    if override is not None:
        return override
    return own if own is None or wanted is None else wanted


def class_entries(images: SegmentationSet, settings: Settings) -> Entries:
    """What competes for a pixel, and the class that each entry stands for.

    The words of a class are synonyms, one entry; each word of the background class, its context words included, is an
    entry of its own. Under ``competition: texts`` every text is one.

    Raises:
        ClippyError: the protocol renames a class that the set does not have, or nothing is left to ask for.
    """
    names = [entry.name for entry in images.classes]
    unknown = [name for name in settings.classes if name not in names]
    if unknown:
        raise ClippyError(
            f"Protocol {settings.protocol} gives words for {', '.join(unknown)}, not among the classes of "
            f"{images.info.name}",
            f"Its classes are {', '.join(names)}.",
        )
    groups: list[tuple[Sequence[str], int]] = []
    for index, entry in enumerate(images.classes):
        words = settings.classes.get(entry.name, entry.prompts)
        if index != images.background:
            groups.append((words, index))
        elif settings.background is not Background.THRESHOLD:
            groups += [((word,), index) for word in words]
    if images.background is not None and settings.background is not Background.THRESHOLD:
        context = images.context if settings.context is None else settings.context
        groups += [((word,), images.background) for word in context]
    if not groups:
        raise ClippyError(
            f"No class of {images.info.name} is asked for: its only one is the background, which has no words here",
            "Use --background words, or name more classes.",
        )
    return Entries.of(groups, settings.competition)


def segmentation_rule(images: SegmentationSet, settings: Settings) -> Rule:
    """How a pixel's class follows from the scores: refinement, and when it falls to the background class."""
    if images.background is None or settings.threshold is None:
        return Rule(settings.logit_scale, refine=settings.refine)
    return Rule(
        settings.logit_scale, settings.threshold, settings.min_area, fallback=images.background, refine=settings.refine
    )


def describe_background(images: SegmentationSet, settings: Settings) -> str:
    """The rule in words, for results."""
    if images.background is None:
        return "no background class: pixels outside the classes are ignored"
    words = class_entries(images, settings).codes.count(images.background)
    parts = []
    if settings.background is not Background.THRESHOLD:
        parts.append(f"{words} words count as {images.classes[images.background].name!r}")
    if settings.threshold is not None:
        parts.append(f"pixels below probability {settings.threshold:g} at logit scale {settings.logit_scale:g}")
    if settings.min_area:
        parts.append(f"classes below {settings.min_area:.0%} of the foreground are taken back")
    return "; ".join(parts)


def parse_background(text: str) -> tuple[Background, float | None]:
    """Read ``words``, ``0.4`` or ``words+0.1``."""
    hint = "Write words, a probability such as 0.4, or both as in words+0.1."
    words, _, number = text.rpartition("+")
    if text == "words":
        return Background.WORDS, None
    try:
        threshold = float(number)
    except ValueError:
        raise ClippyError(f"--background cannot be {text!r}", hint) from None
    if words not in ("", "words") or not 0 <= threshold <= 1:
        raise ClippyError(f"--background cannot be {text!r}", hint)
    return (Background.BOTH if words else Background.THRESHOLD), threshold
