"""Protocols: all that stands between a model, a set of images and a number, as data files that anyone can change."""

from __future__ import annotations

import difflib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr, RootModel, model_validator

from clippy_cli.checked_yaml import EncodableModel, conflict, load_checked
from clippy_cli.data.benchmarks.framed import Frame
from clippy_cli.data.benchmarks.spec import Word
from clippy_cli.errors import ClippyError
from clippy_cli.inference.choices import Competition, Filter, Refinement, Sizes, WindowAverage
from clippy_cli.inference.views import MAX_SCALES, SCALE_LIMITS
from clippy_cli.model.choices import PositionResampling

_FOLDER = Path(__file__).parent / "protocols"


class Background(StrEnum):
    """What makes a pixel background, in sets that have such a class."""

    WORDS = "words"
    THRESHOLD = "threshold"
    BOTH = "words+threshold"


Scale = Annotated[float, Field(ge=SCALE_LIMITS[0], le=SCALE_LIMITS[1])]
Words = Annotated[tuple[Word, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


class Rules(EncodableModel):
    """The part of a protocol that may differ from set to set; None leaves it to the protocol."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

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
    window_average: WindowAverage | None = None
    sizes: Sizes | None = None
    resize: Filter | None = None
    best_classes: Annotated[int, Field(ge=1)] | None = None
    classes: dict[str, Annotated[Words, Field(min_length=1)]] = Field(default_factory=dict)
    context: Words | None = None
    positions: PositionResampling | Literal["model"] | None = None
    pool_prefix: bool | None = None
    frame: Frame | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.background is Background.WORDS and self.threshold is not None:
            raise conflict("words alone decide, so a threshold says nothing; write words+threshold", "threshold")
        if self.stride is not None and self.window is not None and self.stride > self.window:
            raise conflict("a stride beyond the window leaves gaps", "stride")
        return self


class ClassWords(RootModel[dict[str, dict[str, Annotated[Words, Field(min_length=1)]]]]):
    """Set, class, and the words that a model is asked for."""


class Protocol(Rules):
    """A whole protocol. ``sets`` holds what differs for single sets of the catalogue, and for a user's own, by name.

    ``words`` names a YAML file, beside this one, of words for the classes of sets: set, class, word or words. They take
    the place of the sets' own, and those in ``sets`` take theirs.
    """

    source: str = ""
    words: str | None = None
    sets: dict[str, Rules] = Field(default_factory=dict)
    _name: str = PrivateAttr(default="")

    @property
    def name(self) -> str:
        """``sclip`` for a shipped protocol, ``own:mine`` for your own file mine.yaml."""
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
            average = rules.window_average or self.window_average
            if average is WindowAverage.PIXELS and rules.window is None and self.window is None:
                raise conflict("averaging at pixels needs a window", f"{where}window_average")
            if (rules.best_classes or self.best_classes) and average is not WindowAverage.PIXELS:
                raise conflict("best classes are of windows that are averaged at pixels", f"{where}best_classes")
            if (rules.best_classes or self.best_classes) and (rules.min_area or self.min_area):
                raise conflict("pixels take the class of their group, so no class is taken back", f"{where}min_area")
            if (rules.sizes or self.sizes) is Sizes.EXACT and average is not WindowAverage.PIXELS:
                raise conflict("exact sizes need windows that are averaged at pixels", f"{where}sizes")
        return self


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
    protocol = _with_words(load_checked(path, Protocol, what="protocol"), path)
    protocol._name = f"own:{path.stem}" if own else source
    return protocol


def _with_words(protocol: Protocol, path: Path) -> Protocol:
    """The protocol with the words of its file of words; ClippyError with every mistake in that."""
    if protocol.words is None:
        return protocol
    words = load_checked(path.parent / protocol.words, ClassWords, what="list of class words").root
    sets = dict(protocol.sets)
    for name, classes in words.items():
        rules = sets.get(name, Rules())
        sets[name] = rules.model_copy(update={"classes": {**classes, **rules.classes}})
    return protocol.model_copy(update={"sets": sets})
