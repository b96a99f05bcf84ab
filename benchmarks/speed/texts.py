"""Many texts: embedded by the model, and as labels of a command, with nothing kept and kept from before."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from speed.codes import Asked, Code, in_turn
from speed.ground import Ground
from speed.rows import Row

ROUNDS = 3
TOWER = "bare text tower"


def measure_texts(ground: Ground) -> list[Row]:
    """Seconds of 5,000 captions, and with --full of 1,000 names under 80 templates, beside the text tower alone."""
    texts = ground.captions(16 if ground.tiny else 5000)
    file, rounds = ground.folder / "captions.txt", ground.rounds(ROUNDS)
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    sides = {}
    vectors = {code.name: ground.folder / f"vectors-{code.name}.npy" for code in ground.codes}
    with ExitStack() as stack:
        for code in ground.codes:
            asked = stack.enter_context(Asked(code, code.new("empty")))
            asked("text_tower", captions=file)  # loads, sorts, and warms up
            sides[code.name] = partial(asked, "embed", captions=file, out=vectors[code.name])
            if code is ground.today:
                sides[TOWER] = partial(asked, "text_tower", captions=file)
        values = in_turn(rounds, sides)
    agreed = ""
    if ground.before is not None:
        before, today = (np.load(path) for path in vectors.values())
        agreed = f"differ by {np.abs(before - today).max():.0e} at most"
    tower, count = values[TOWER], f"{len(texts):,} captions"
    rows = [Row(f"{count}, embed_texts, s", values["today"], values.get("before", ()), TOWER, tower, agreed)]
    rows += _as_labels(ground, f"{count} as labels", file, "none", rounds, tower)
    if ground.full:
        names, file = ground.class_names[: 4 if ground.tiny else 1000], ground.folder / "names.txt"
        file.write_text("\n".join(names) + "\n", encoding="utf-8")
        rows += _as_labels(ground, f"{len(names):,} names under 80 templates", file, "openai", 1, [])
    ground.note(
        "- text: embed_texts and the text tower on token ids that are ready, sorted by length, 256 at a time, in one "
        "process a code base; as labels: until clip.prepare of a classification has their vectors, in a process that "
        "has loaded the model, first with an empty folder for what is kept between runs, then with the one that the "
        "first left. Agreement is of before and today: largest difference of a value of the unit vectors."
    )
    return rows


def _as_labels(ground: Ground, what: str, file: Path, templates: str, rounds: int, tower: list[float]) -> list[Row]:
    pairs = in_turn(rounds, ground.of_each(lambda code: _twice(code, file, templates)))
    rows = []
    for number, state in enumerate(("first time", "again")):
        seconds = {side: [pair[number] for pair in values] for side, values in pairs.items()}
        other = TOWER if tower else ""
        rows.append(Row(f"{what}, {state}, s", seconds["today"], seconds.get("before", ()), other, tower))
    return rows


def _twice(code: Code, file: Path, templates: str) -> tuple[float, float]:
    """Seconds in two processes, one after the other, with one folder for what is kept."""
    cache, seconds = code.new("kept"), []
    for _ in range(2):
        with Asked(code, cache) as asked:
            seconds.append(float(asked("prepare", labels=file, templates=templates)))
    return seconds[0], seconds[1]
