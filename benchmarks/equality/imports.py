"""What ``clippy segment`` imports on both sides, and how long it takes from its start to its end."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Sequence

from equality.sides import PATIENCE, Side, last_words

WATCHED = (
    "torch._dynamo", "torchvision.models", "open_clip", "timm.models", "transformers", "sklearn", "scipy", "matplotlib",
    "pandas", "cv2", "gradio",
)  # fmt: skip
ROUNDS = 3


def import_table(before: Side, after: Side) -> tuple[list[str], list[str]]:
    """Lines of a Markdown table, and why it is worth nothing where a command failed."""
    failures: list[str] = []
    sides = (before, after)
    loaded = [_imports(side, failures) for side in sides]
    names = [set(times) for times in loaded]
    rows = [
        ["modules", *(f"{len(times):,}" for times in loaded)],
        ["seconds in imports (with -X importtime)", *(f"{sum(times.values()) / 1e6:.2f}" for times in loaded)],
        *([f"modules of {name}", *(str(_below(name, found)) for found in names)] for name in WATCHED),
    ]
    floor, *walls = _walls(sides)
    rows.append(["wall time of the command, seconds", *(f"{wall:.2f}" for wall in walls)])
    rows.append(["of it, beyond a bare `import torch`", *(f"{wall - floor:.2f}" for wall in walls)])
    table = ["| `clippy segment` of the sample photo | before | after |", "|---|---|---|"]
    return [*table, *(f"| {' | '.join(row)} |" for row in rows)], failures


def _imports(side: Side, failures: list[str]) -> dict[str, int]:
    """Each module that was imported, and its own microseconds."""
    log = side.work / "imports.log"
    process = side.start(["-X", "importtime", "-m", "clippy_cli", *_segment()], log, side.work / "imports.out")
    if process.wait(PATIENCE):
        failures.append(f"{side.name}: {last_words(log)}")
    lines = re.findall(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", log.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: int(own) for own, name in lines}


def _walls(sides: Sequence[Side]) -> list[float]:
    """Medians in seconds of a bare ``import torch`` and of each side's command, taken in turns."""
    commands = [(sides[0], ["-c", "import torch"]), *((side, ["-m", "clippy_cli", *_segment()]) for side in sides)]
    times: list[list[float]] = [[] for _ in commands]
    for _ in range(ROUNDS):
        for (side, arguments), taken in zip(commands, times, strict=True):
            begun = time.perf_counter()
            side.start(arguments, side.work / "wall.log", side.work / "wall.out").wait(PATIENCE)
            taken.append(time.perf_counter() - begun)
    return [statistics.median(taken) for taken in times]


def _segment() -> list[str]:
    return ["segment", "../photos/raccoon.jpg", "--labels", "raccoon,grass", "--out", "imports"]


def _below(package: str, names: set[str]) -> int:
    return sum(name == package or name.startswith(f"{package}.") for name in names)
