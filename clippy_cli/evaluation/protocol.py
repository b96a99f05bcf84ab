"""Protocols: all that stands between a model, a set of images and a number, as data files that anyone can change."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator

from clippy_cli.checked_yaml import conflict, load_checked
from clippy_cli.data.benchmarks.base import SegmentationSet, SetInfo
from clippy_cli.data.benchmarks.spec import Word
from clippy_cli.data.prompts import resolve_templates
from clippy_cli.errors import ClippyError
from clippy_cli.inference.choices import Competition, Refinement
from clippy_cli.inference.refine.refinement import parse_refinement
from clippy_cli.inference.segment import Entries, Rule
from clippy_cli.inference.views import MAX_SCALES, SCALE_LIMITS, Views, fit_windows
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.model.patch_forms import patch_form

_FOLDER = Path(__file__).parent / "protocols"


class Background(StrEnum):
    """What makes a pixel background, in sets that have such a class."""

    WORDS = "words"
    THRESHOLD = "threshold"
    BOTH = "words+threshold"


Scale = Annotated[float, Field(ge=SCALE_LIMITS[0], le=SCALE_LIMITS[1])]
Words = Annotated[tuple[Word, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


class Rules(BaseModel):
    """The part of a protocol that may differ from set to set; None leaves it to the protocol."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resolution: Annotated[int, Field(ge=1)] | Literal["model"] | None = None
    window: Annotated[int, Field(ge=1)] | None = None
    stride: Annotated[int, Field(ge=1)] | None = None
    scales: Annotated[tuple[Scale, ...], Field(min_length=1, max_length=MAX_SCALES)] | None = None
    flip: bool | None = None
    refine: Refinement | None = None
    templates: Annotated[Words, Field(min_length=1)] | None = None
    logit_scale: Annotated[float, Field(gt=0)] | Literal["model"] | None = None
    background: Background | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    min_area: Annotated[float, Field(ge=0, le=1)] | None = None
    competition: Competition | None = None
    classes: dict[str, Annotated[Words, Field(min_length=1)]] = {}
    context: Words | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.background is Background.WORDS and self.threshold is not None:
            raise conflict("words alone decide, so a threshold says nothing; write words+threshold", "threshold")
        if self.stride is not None and self.window is not None and self.stride > self.window:
            raise conflict("a stride beyond the window leaves gaps", "stride")
        return self


class Protocol(Rules):
    """A whole protocol. ``sets`` holds what differs for single sets of the catalogue, and for a user's own, by name."""

    source: str = ""
    sets: dict[str, Rules] = {}
    _name: str = PrivateAttr(default="")

    @property
    def name(self) -> str:
        """``sclip`` for a shipped protocol, ``own:mine`` for a file of one's own called mine.yaml."""
        return self._name

    @property
    def is_own(self) -> bool:
        """Whether it is a user's; the rules of a shipped one for single sets are for the catalogue's."""
        return self._name.startswith("own:")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        parts: list[tuple[str, Rules]] = [("", self), *self.sets.items()]
        for field, rules in parts:
            where = f"sets.{field}." if field else ""
            if rules.stride is not None and rules.window is None and self.window is None:
                raise conflict("a stride needs a window", f"{where}stride")
            needs = (rules.background or self.background or Background.WORDS) is not Background.WORDS
            if needs and rules.threshold is None and self.threshold is None:
                raise conflict("this background rule needs a threshold, a probability", f"{where}background")
        return self


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
        competition: whether synonyms are merged before the softmax, or each text competes by itself.
        classes: prompts that replace the set's own, by class name.
        context: context words that replace the set's own, or None.
        patches: the form of patch embeddings (see ``model/patch_forms.py``), or None where the model does not say.
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
    competition: Competition
    classes: dict[str, tuple[str, ...]]
    context: tuple[str, ...] | None
    patches: str | None
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

    def names(self) -> tuple[str, ...]:
        return tuple(name for name, value in vars(self).items() if value is not None)


def protocol_names() -> tuple[str, ...]:
    """The protocols that ship with the package."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))


def load_protocol(source: str) -> Protocol:
    """A shipped protocol by its name, or one from a YAML file; ClippyError with every mistake in it."""
    path, own = Path(source), True
    if path.suffix not in (".yaml", ".yml"):
        if source not in protocol_names():
            close = difflib.get_close_matches(source, protocol_names(), n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise ClippyError(
                f"No protocol is called {source!r}{meant}",
                f"Choose among {', '.join(protocol_names())}, or name a YAML file of your own.",
            )
        path, own = _FOLDER / f"{source}.yaml", False
    protocol = load_checked(path, Protocol, what="protocol")
    protocol._name = f"own:{path.stem}" if own else source
    return protocol


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
    return Settings(
        protocol=protocol.name,
        resolution=model.defaults.resolution if resolution == "model" else resolution,
        window=window,
        stride=stride,
        scales=overrides.scales or rule("scales", (1.0,)),
        flip=rule("flip", False) if overrides.flip is None else overrides.flip,
        refine=rule("refine") if overrides.refine is None else parse_refinement(overrides.refine),
        template_names=names,
        templates=tuple(template for name in names for template in resolve_templates(name)),
        logit_scale=model.defaults.logit_scale if scale == "model" else scale,
        own_logit_scale=scale == "model",
        background=background,
        threshold=None if background is Background.WORDS else threshold,
        min_area=None if background is Background.WORDS else rule("min_area"),
        competition=rule("competition", Competition.ENTRIES),
        classes=dict(own.classes) or dict(protocol.classes),
        context=rule("context"),
        patches=patch_form(model),
        overridden=tuple(
            name for name in overrides.names() if name != "resolution" or rule("resolution", "model") != "model"
        ),
    )


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
