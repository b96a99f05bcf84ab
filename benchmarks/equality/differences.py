"""What differs between two folders that two code bases filled by the same command.

Pictures are compared pixel by pixel, documents value by value, arrays and weights element by element. Left out are
clocks (times, rates, memory, versions) and prose for readers (definitions, published figures, HTML and Markdown).
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import safe_open

CLOCKS = {
    "created", "versions", "seconds", "images_per_second", "encoder_share", "seconds_left", "tokens_per_second",
    "teraflops", "flop_utilisation", "flop_utilization", "wait_share", "memory_gb",
}  # fmt: skip
PROSE = {"definitions", "published"}
COMPARED = (".png", ".json", ".jsonl", ".npz", ".csv", ".safetensors")
NAMED = 3  # fields that a summary names


@dataclass
class Differences:
    """Found so far.

    Attributes:
        values: numbers, texts, pixels, elements that were compared.
        pixels: of each kind of picture, and of what an evaluation counted, the pixels that differ, and all.
        largest: of each field with numbers that differ, the largest absolute difference.
        metrics: "SET TASK METRIC" -> difference in points.
        texts: fields whose texts differ, with an example.
        missing: files and fields that only the earlier side wrote.
        added: files and fields that only the later side wrote; they are named and are no failure.
        failed: why the comparison itself is worth nothing.
    """

    values: int = 0
    pixels: dict[str, tuple[float, int]] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    added: set[str] = field(default_factory=set)
    failed: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        differing = any(count for count, _ in self.pixels.values())
        return not (self.failed or differing or self.largest or self.metrics or self.texts or self.missing)

    def summary(self) -> str:
        """One line: bit-equal, or how much differs."""
        said = list(self.failed)
        said += [
            f"{count:,.0f} of {total:,} {kind} pixels ({count / total:.2%})"
            for kind, (count, total) in self.pixels.items()
            if count
        ]
        said += [f"{name} {points:+.3f} points" for name, points in self.metrics.items()]
        largest = sorted(self.largest.items(), key=lambda pair: -pair[1])
        said += [f"{name} by up to {size:.2g}" for name, size in largest[:NAMED]]
        said += [f"{len(largest) - NAMED} more fields with other numbers"] if len(largest) > NAMED else []
        said += [f"{name}: {example}" for name, example in list(self.texts.items())[:NAMED]]
        said += [f"{len(self.texts) - NAMED} more fields with other texts"] if len(self.texts) > NAMED else []
        said += [f"not written any more: {', '.join(sorted(self.missing)[:NAMED])}"] if self.missing else []
        return "; ".join(said) or "bit-equal"

    def folders(self, before: Path, after: Path) -> None:
        """Compare all files below two folders by their relative names."""
        first, second = ({str(p.relative_to(root)): p for p in _files(root)} for root in (before, after))
        self.missing |= first.keys() - second.keys()
        self.added |= second.keys() - first.keys()
        for name in sorted(first.keys() & second.keys()):
            self.files(first[name], second[name])
        if not self.values:
            self.failed.append("nothing to compare")

    def files(self, before: Path, after: Path) -> None:
        """Compare two files of one kind."""
        if before.suffix == ".png":
            self._pictures(before, after)
        elif before.suffix == ".npz":
            with np.load(before) as first, np.load(after) as second:
                self._arrays(_kind(before), dict(first), dict(second))
        elif before.suffix == ".safetensors":
            self._arrays("weights", _weights(before), _weights(after))
        else:
            self.documents(_read(before), _read(after))

    def _pictures(self, before: Path, after: Path) -> None:
        with Image.open(before) as first, Image.open(after) as second:
            kind = _kind(before)
            one, other = np.asarray(first), np.asarray(second)
            same_shape = one.shape == other.shape
            differs = (one != other).reshape(*one.shape[:2], -1).any(axis=2) if same_shape else np.ones(one.shape[:2])
            if first.getpalette() != second.getpalette():
                self.texts[f"{kind} palette"] = "other colors"
        count, total = self.pixels.get(kind, (0, 0))
        self.pixels[kind] = count + int(differs.sum()), total + differs.size
        self.values += differs.size

    def _arrays(self, kind: str, first: dict[str, Any], second: dict[str, Any]) -> None:
        self.missing |= {f"{kind} {name}" for name in first.keys() - second.keys()}
        self.added |= {f"{kind} {name}" for name in second.keys() - first.keys()}
        for name in first.keys() & second.keys():
            one, other = first[name], second[name]
            self.values += one.size
            if one.shape != other.shape or one.dtype != other.dtype:
                self.texts[f"{kind} {name}"] = f"{one.dtype}{one.shape} became {other.dtype}{other.shape}"
            elif one.tobytes() == other.tobytes():
                continue
            elif one.dtype.kind == "f":
                self._number(f"{kind} {name}", float(np.abs(one.astype(np.float64) - other).max()))
            else:
                self.texts[f"{kind} {name}"] = "other values"

    def documents(self, before: Any, after: Any) -> None:
        """Compare two JSON values field by field."""
        first, second = dict(_leaves(before)), dict(_leaves(after))
        self._cells(first, second)
        self.missing |= {_plain(path) for path in first.keys() - second.keys()}
        self.added |= {_plain(path) for path in second.keys() - first.keys()}
        for path in first.keys() & second.keys():
            one, other = first[path], second[path]
            self.values += 1
            if one == other and type(one) is type(other):
                continue
            if isinstance(one, int | float) and isinstance(other, int | float):
                metric = re.fullmatch(r"results\.(\S+ \S+)\.metrics\.(\w+)", path)
                if metric:
                    self.metrics[" ".join(metric.groups())] = 100 * (other - one)
                else:
                    self._number(_plain(path), abs(other - one))
            elif path.endswith("rle.counts"):
                self.texts[_plain(path)] = "other runs"
            else:
                self.texts[_plain(path)] = f"{_short(one)} became {_short(other)}"

    def _cells(self, first: dict[str, Any], second: dict[str, Any]) -> None:
        """Take sparse confusion counts out: an absent cell is 0, and what moved between cells was counted otherwise."""
        cells = [path for path in {**first, **second} if re.search(r"\.(counts|confusion)\.\[", path)]
        pairs = [(first.pop(path, 0), second.pop(path, 0)) for path in cells]
        if pairs:
            moved, total = self.pixels.get("counted", (0.0, 0))
            moved += sum(abs(one - other) for one, other in pairs) / 2
            self.pixels["counted"] = moved, total + sum(one for one, _ in pairs)
            self.values += len(pairs)

    def _number(self, name: str, size: float) -> None:
        self.largest[name] = max(size, self.largest.get(name, 0.0))


def _files(root: Path) -> Iterator[Path]:
    return (path for path in root.rglob("*") if path.suffix in COMPARED and path.is_file())


def _kind(path: Path) -> str:
    """``mask`` of ``photo_mask.png``."""
    return "cutout" if path.parent.name.endswith("_cutouts") else path.stem.rpartition("_")[2]


def _plain(path: str) -> str:
    """A field without what numbers it; that of a photo's own document and that of all photos' are one."""
    return re.sub(r"\[[^]]*\]", "[]", path).removeprefix("images[].")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _read(path: Path) -> Any:
    """A document whose lists of records are keyed by what a record is about, so that one more shifts nothing."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return list(csv.reader(text.splitlines()))
    if path.suffix == ".jsonl":
        lines = [json.loads(line) for line in text.splitlines()]
        return {f"[{line.get('key') or (line.get('event'), line.get('step'))}]": _by_cell(line) for line in lines}
    document = json.loads(text)
    if isinstance(document, dict) and isinstance(results := document.get("results"), list):
        document["results"] = {
            f"{entry['data']['name']} {entry['task']}": _by_cell(entry) if isinstance(entry, dict) else entry
            for entry in results
        }
    return document


def _by_cell(record: dict[str, Any]) -> dict[str, Any]:
    """A record whose sparse confusion counts are keyed by their cell."""
    for name in ("counts", "confusion"):
        if name in record:
            record[name] = {f"[{truth},{predicted}]": count for truth, predicted, count in record[name]}
    return record


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, below in value.items():
            if name not in CLOCKS and name not in PROSE:
                yield from _leaves(below, f"{path}{'.' if path else ''}{name}")
    elif isinstance(value, list):
        yield f"{path}.length", len(value)
        for index, below in enumerate(value):
            yield from _leaves(below, f"{path}[{index}]")
    else:
        yield path, value


def _weights(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
