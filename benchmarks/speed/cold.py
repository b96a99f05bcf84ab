"""A fresh process from start to end, as one photo at a terminal is waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from speed.codes import Code, Run, in_turn
from speed.ground import Ground
from speed.rows import Row

ROUNDS = 5
FLOOR = "python -c 'import torch'"
_MEGA = 1e6


def measure_cold(ground: Ground) -> list[Row]:
    """Seconds, seconds to the first byte on the terminal, and peak memory, each beside ``import torch``."""
    photo, labels = str(ground.photos[0]), ",".join(ground.labels)
    commands = {
        "clippy segment": ["segment", photo, "--labels", labels],
        "clippy group": ["group", photo],
        "clippy classify": ["classify", photo, "--labels", labels],
    }
    sides: dict[tuple[str, str], Callable[[], Run]] = {
        ("", FLOOR): partial(ground.today.python, ["-c", "import torch"], terminal=True)
    }
    for code in ground.codes:
        sides[code.name, "python -c 'import clippy_cli'"] = partial(code.python, ["-c", "import clippy_cli"])
    for name, arguments in commands.items():
        for code in ground.codes:
            command = partial(_command, code, arguments)
            command()  # the first of all, which fills the cache and is not counted
            if name != "clippy group":
                sides[code.name, f"{name}, first time"] = partial(command, empty_cache=True)
                sides[code.name, f"{name}, these labels again"] = command
            else:
                sides[code.name, name] = command
    runs = in_turn(ground.rounds(ROUNDS), sides)
    floor = runs["", FLOOR]
    rows = [Row(f"{FLOOR}, s", _seconds(floor))]
    things = list(dict.fromkeys(name for side, name in sides if side))
    for unit, values in (("s", _seconds), ("s to first byte", _first), ("MB peak", _peak)):
        for thing in things:
            ours = {code.name: values(runs[code.name, thing]) for code in ground.codes}
            if ours["today"]:
                others = [] if values is _first or "import" in thing else values(floor)
                rows.append(
                    Row(f"{thing}, {unit}", ours["today"], ours.get("before", ()), FLOOR if others else "", others)
                )
    ground.note(
        "- cold: each command in a fresh process at a terminal of 40x120 characters, default model, one photo of "
        f"{'VOC' if ground.data_root else 'the package'}, {len(ground.labels)} labels, wall time from start to end; "
        "'first time' with an empty folder for whatever is kept between runs, 'again' with what an equal command left "
        "there. Peak memory is the largest resident set (ru_maxrss), MB are 10^6 bytes."
    )
    return rows


def _command(code: Code, arguments: Sequence[str], *, empty_cache: bool = False) -> Run:
    out = [] if arguments[0] == "classify" else ["--out", str(code.new("out"))]
    return code.clippy([*arguments, *out], terminal=True, cache=code.new("empty") if empty_cache else None)


def _seconds(runs: Sequence[Run]) -> list[float]:
    return [run.seconds for run in runs]


def _first(runs: Sequence[Run]) -> list[float]:
    return [run.first for run in runs if run.first is not None]


def _peak(runs: Sequence[Run]) -> list[float]:
    return [run.peak / _MEGA for run in runs]
