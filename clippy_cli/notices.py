"""What was given and not used as it stood: counted by reason, with examples, in one form everywhere.

Readers fill :class:`Notices`; commands print them once at the end, write them into their JSON, and exit with 3 where
something was skipped that was asked for. ``--strict`` makes what was skipped or assumed an
error.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from clippy_cli.errors import ClippyError, encodable

MOST_EXAMPLES = 3
_MOST_LINES = 8


class NoticeKind(StrEnum):
    """What happened to it.

    SKIPPED: it was asked for and could not be used. IGNORED: it lay there and is none of clippy's business.
    ASSUMED: it was used, in a reading that may not be the one that was meant.
    """

    SKIPPED = "skipped"
    IGNORED = "ignored"
    ASSUMED = "assumed"


@dataclass(frozen=True)
class Notice:
    """One reason, how often it applied, and up to three examples.

    Attributes:
        kind: what happened.
        unit: what is counted, in the singular: file, row, mask.
        reason: why, without a full stop: "type .heic is not read".
        count: how many.
        examples: names or line numbers, the first ones.
        hint: what would use them, as a sentence; empty where nothing would.
    """

    kind: NoticeKind
    unit: str
    reason: str
    count: int
    examples: tuple[str, ...]
    hint: str = ""

    def __str__(self) -> str:
        verb = "" if self.kind is NoticeKind.ASSUMED else f" {self.kind}"
        more = ", ..." if self.count > len(self.examples) else ""
        shown = f" ({', '.join(map(printable, self.examples))}{more})" if self.examples else ""
        hint = f". {self.hint}" if self.hint else ""
        return f"{self.count:,} {_plural(self.unit, self.count)}{verb}: {self.reason}{shown}{hint}"

    def record(self) -> dict[str, Any]:
        """As JSON; names that are not UTF-8 are escaped."""
        return {
            "kind": str(self.kind),
            "unit": self.unit,
            "reason": self.reason,
            "count": self.count,
            "examples": [printable(example) for example in self.examples],
            "hint": self.hint,
        }


class Notices:
    """Collects notices, from any thread; equal reasons are counted together.

    >>> notices = Notices()
    >>> notices.skipped("file", "type .heic is not read", "a.heic", hint="Install clippy-seg[heic].")
    >>> notices.skipped("file", "type .heic is not read", "b.heic", hint="Install clippy-seg[heic].")
    >>> print(*notices)
    2 files skipped: type .heic is not read (a.heic, b.heic). Install clippy-seg[heic].
    """

    def __init__(self, notices: Iterable[Notice] = ()) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[NoticeKind, str, str, str], tuple[int, tuple[str, ...]]] = {}
        self.update(notices)

    def __iter__(self) -> Iterator[Notice]:
        """In the order of the kinds, then as they came."""
        with self._lock:
            found = list(self._found.items())
        order = list(NoticeKind)
        for (kind, unit, reason, hint), (count, examples) in sorted(found, key=lambda item: order.index(item[0][0])):
            yield Notice(kind, unit, reason, count, examples, hint)

    def __len__(self) -> int:
        return len(self._found)

    def __getstate__(self) -> list[Notice]:
        return list(self)

    def __setstate__(self, state: list[Notice]) -> None:
        self.__init__(state)  # type: ignore[misc]

    @property
    def incomplete(self) -> bool:
        """Whether something was asked for and skipped; the exit code is then 3."""
        return any(notice.kind is NoticeKind.SKIPPED for notice in self)

    def skipped(self, unit: str, reason: str, *examples: str, hint: str = "", count: int | None = None) -> None:
        """What was asked for and could not be used; ``count`` is by default the number of ``examples``."""
        self._add(NoticeKind.SKIPPED, unit, reason, examples, hint, count)

    def ignored(self, unit: str, reason: str, *examples: str, hint: str = "", count: int | None = None) -> None:
        """What lay among the input and was not meant."""
        self._add(NoticeKind.IGNORED, unit, reason, examples, hint, count)

    def assumed(self, unit: str, reason: str, *examples: str, hint: str = "", count: int | None = None) -> None:
        """What was used in a reading that ``reason`` names."""
        self._add(NoticeKind.ASSUMED, unit, reason, examples, hint, count)

    def update(self, others: Iterable[Notice]) -> None:
        """Add what another collector found."""
        for notice in others:
            self._add(notice.kind, notice.unit, notice.reason, notice.examples, notice.hint, notice.count)

    def records(self) -> list[dict[str, Any]]:
        """As JSON."""
        return [notice.record() for notice in self]

    def refuse(self, what: str) -> None:
        """ClippyError that lists what was skipped or assumed, where anything was: what ``--strict`` does."""
        lines = [str(notice) for notice in self if notice.kind is not NoticeKind.IGNORED]
        if lines:
            more = [f"and {len(lines) - _MOST_LINES} more"] if len(lines) > _MOST_LINES else []
            listed = "".join(f"\n  {line}" for line in [*lines[:_MOST_LINES], *more])
            raise ClippyError(f"{what} was not used as it stands:{listed}", "Mend these, or leave out --strict.")

    def _add(
        self, kind: NoticeKind, unit: str, reason: str, examples: tuple[str, ...], hint: str, count: int | None
    ) -> None:
        key = (kind, unit, reason, hint)
        with self._lock:
            before, shown = self._found.get(key, (0, ()))
            total = before + (len(examples) if count is None else count)
            self._found[key] = total, (*shown, *examples)[:MOST_EXAMPLES]


def printable(name: str) -> str:
    """A name that any terminal, log and JSON can hold: control characters and what is not UTF-8 escaped.

    >>> printable("caf\\udce9\\n.jpg")
    'caf\\\\xe9\\\\n.jpg'
    """
    text = encodable(name)
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _plural(unit: str, count: int) -> str:
    if count == 1:
        return unit
    plural = unit.replace(" of a ", "s of ")  # "rest of a shard"
    return f"{plural}es" if plural.endswith("s") else f"{plural}s"
