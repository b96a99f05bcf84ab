"""Where models come from: one object a source, found by the prefix of what ``--model`` is given.

Nothing here and in the sources' own files loads torch or a model library; their methods do.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from clippy_cli.errors import ClippyError, first_line

if TYPE_CHECKING:
    import torch

    from clippy_cli.model.base import VisionLanguageModel

ENTRY_POINTS = "clippy_cli.sources"
ALL_TASKS = "segment, group, classify"
GROUP_ONLY = "group"
OWN = "clippy"  # what has no prefix
OWN_CLASS = (OWN, "dinotxt")  # sources whose models are of clippy's own class, which can be exported
_FILES = {
    OWN: "clippy_cli.model.sources.directory",
    "open_clip": "clippy_cli.model.sources.open_clip",
    "hf": "clippy_cli.model.sources.transformers",
    "timm": "clippy_cli.model.sources.timm",
    "dinotxt": "clippy_cli.model.sources.dinotxt",
    "talk2dino": "clippy_cli.model.sources.talk2dino",
    "clip-dinoiser": "clippy_cli.model.sources.clip_dinoiser",
}


@dataclass(frozen=True)
class Listed:
    """One model that ``--model`` takes.

    Attributes:
        source: what to write after ``--model``.
        kind: the prefix of its source, or ``clippy``.
        tasks: what it can do, ``ALL_TASKS`` or ``GROUP_ONLY``.
        weights: where its weights come from.
        at_hand: whether they are on this machine.
    """

    source: str
    kind: str
    tasks: str
    weights: str
    at_hand: bool


class ModelSource(Protocol):
    """One library's or one format's models. ``name`` is what follows the prefix and its colon.

    Attributes:
        takes_dense: whether its models may take ``--dense``; they then have ``with_dense`` (see ``patch_forms.py``).
    """

    takes_dense: bool

    def check(self, name: str, *, texts: bool) -> None:
        """ClippyError where it is plain without loading that ``name`` cannot be had, or reads no ``texts``."""
        ...

    def load(self, name: str, device: torch.device) -> VisionLanguageModel:
        """The model in evaluation mode, in float32; ClippyError says what was looked for."""
        ...

    def examples(self, *, everything: bool) -> Iterable[Listed]:
        """What ``clippy models`` lists, without asking a network; ``everything`` where that takes seconds."""
        ...


@runtime_checkable
class ListsTextFiles(Protocol):
    """A source that knows, before it loads a model, the files that its text side is made of."""

    def text_files(self, name: str) -> dict[str, Path] | None:
        """Every file that changes what becomes of a text, by its name; None where these are not known."""
        ...


S = TypeVar("S", bound=type[ModelSource])
_SOURCES: dict[str, ModelSource] = {}


def source(prefix: str) -> Callable[[S], S]:
    """Class decorator: register an instance for ``prefix:NAME``. ClippyError where the prefix is taken."""

    def register(kind: S) -> S:
        known = _SOURCES.get(prefix)
        if known is not None or (prefix in _FILES and kind.__module__ != _FILES[prefix]):
            raise ClippyError(f"Two sources of models are called {prefix!r}; one is {kind.__module__}.{kind.__name__}.")
        _SOURCES[prefix] = kind()
        return kind

    return register


def source_names() -> tuple[str, ...]:
    """Prefixes of clippy's own sources, then of installed packages' ones, whether or not these can be imported."""
    return (*_FILES, *sorted(set(_plugins()) - set(_FILES)))


def find_source(prefix: str) -> ModelSource:
    """The source of that prefix, imported now; ClippyError names the package whose source cannot be."""
    if prefix not in _SOURCES:
        if prefix in _FILES:
            importlib.import_module(_FILES[prefix])
        else:
            _import_plugin(prefix, _plugins()[prefix])
    return _SOURCES[prefix]


def regular_files(folder: Path, patterns: Sequence[str]) -> dict[str, Path]:
    """The files of a folder that match any of the patterns, by their names in it."""
    found = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path for path in found}


def _plugins() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _import_plugin(prefix: str, entry: EntryPoint) -> None:
    package = entry.dist.name if entry.dist is not None else entry.module
    try:
        entry.load()
    except Exception as error:  # code of others, which may raise anything
        raise ClippyError(
            f"The source {prefix}: of the package {package} cannot be imported ({entry.value}): {first_line(error)}",
            f"Mend or remove it: pip uninstall {package}",
        ) from error
    if prefix not in _SOURCES:
        raise ClippyError(
            f"The package {package} announces the source {prefix}:, but importing {entry.value} registers none.",
            f'Decorate its class with @source("{prefix}") of clippy_cli.model.sources.registry.',
        )
