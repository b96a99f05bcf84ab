"""The words that a picture is cut into: labels with synonyms, and words that count as background."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from unicodedata import normalize

from clippy_cli.errors import ClippyError, as_unicode

_EXAMPLE = "Write labels as in --labels 'dog|puppy, grass': commas between labels, | between synonyms."
_INVISIBLE = " \t\r\n\ufeff\u200b\u2060"  # a byte order mark and a space of no width among them
_LIST_FILES = (".txt", ".csv", ".tsv", ".json", ".yaml", ".yml")
_QUOTES = "\"'“”„«»`"
_OTHER_COMMAS = ("\n", ";", "，", "、", "،")  # those of Chinese, Japanese and Arabic among them


@dataclass(frozen=True)
class Label:
    """One label: the name that is shown, and every word that stands for it (the name first)."""

    name: str
    synonyms: tuple[str, ...]


@dataclass(frozen=True)
class Vocabulary:
    """Labels to find and words that count as background; no word may occur twice (upper and lower case are one)."""

    labels: tuple[Label, ...]
    background: tuple[Label, ...] = ()

    def __post_init__(self) -> None:
        _refuse_doubles((*self.labels, *self.background))

    @property
    def texts(self) -> tuple[str, ...]:
        """Every synonym of every label, then of every background word: the K texts to embed."""
        return tuple(word for label in (*self.labels, *self.background) for word in label.synonyms)

    @property
    def owner(self) -> tuple[int, ...]:
        """For each of ``texts`` the index of its label, or -1 for background."""
        owned = [index for index, label in enumerate(self.labels) for _ in label.synonyms]
        return (*owned, *(-1 for label in self.background for _ in label.synonyms))


def parse_labels(text: str) -> tuple[Label, ...]:
    """Read ``"dog|puppy, fire hydrant"``: commas between labels, ``|`` between synonyms, spaces around them ignored.

    ClippyError where nothing is named, a label or synonym is empty, or a word occurs twice in any spelling of case.
    """
    text = as_unicode(text, "label")
    if not text.strip(_INVISIBLE):
        raise ClippyError("No label is given", _EXAMPLE)
    _refuse_other_forms(text)
    labels = tuple(_parse_label(part, text) for part in text.split(","))
    _refuse_doubles(labels)
    return labels


def read_labels(labels: str | Sequence[str]) -> tuple[Label, ...]:
    """Labels as one text of :func:`parse_labels`, or as a sequence with one label an item, such as ``["dog|puppy"]``.

    In a sequence a comma is part of its label. ClippyError as there, and where an item is not text.
    """
    if isinstance(labels, str):
        return parse_labels(labels)
    parts = list(labels)
    if not parts:
        raise ClippyError("No label is given", _EXAMPLE)
    for part in parts:
        if not isinstance(part, str):
            raise ClippyError(f"A label must be text, not {type(part).__name__}: {part!r}", _EXAMPLE)
    read = tuple(_parse_label(as_unicode(part, "label"), part) for part in parts)
    _refuse_doubles(read)
    return read


def _refuse_other_forms(text: str) -> None:
    """ClippyError for labels in a file, in a list, in quotes, or with anything but commas between them."""
    stripped = text.strip(_INVISIBLE)
    if PurePath(stripped.removeprefix("@")).suffix.lower() in _LIST_FILES:
        hint = f'Write --labels "$(paste -sd, {stripped.removeprefix("@")})" for a file of one label a line.'
        raise ClippyError(f"{stripped!r} names a file; labels are given as text", hint)
    if (stripped[0] in _QUOTES and stripped[-1] in _QUOTES) or stripped.startswith(("['", '["')):
        raise ClippyError(f"Quotes around labels would be part of them: {stripped}", _EXAMPLE)
    other = next((one for one in _OTHER_COMMAS if one in stripped), None)
    if other is not None:
        shown = "a line break" if other == "\n" else repr(other)
        raise ClippyError(f"Labels have commas between them, not {shown}: {stripped!r}", _EXAMPLE)


def _parse_label(part: str, text: str) -> Label:
    words = tuple(" ".join(word.strip(_INVISIBLE).split()) for word in part.split("|"))
    if not all(any(character.isprintable() and character != " " for character in word) for word in words):
        kind = "label" if len(words) == 1 else "synonym"
        raise ClippyError(f"Empty {kind} in {text!r}", _EXAMPLE)
    return Label(words[0], words)


def _refuse_doubles(labels: Iterable[Label]) -> None:
    owners: dict[str, str] = {}
    for label in labels:
        for word in label.synonyms:
            key = normalize("NFC", word).casefold()
            if key in owners:
                where = (
                    f"under {owners[key]!r} and {label.name!r}" if owners[key] != label.name else f"in {label.name!r}"
                )
                raise ClippyError(f"{word!r} occurs twice, {where}", "Name each word once; | joins synonyms.")
            owners[key] = label.name
