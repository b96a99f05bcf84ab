"""Many photos by one command, large photos, and an evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from speed.agreement import of_best_labels, of_documents, of_masks
from speed.codes import Asked, Code, Run, in_turn
from speed.ground import Ground, enlarged
from speed.rows import Row

MANY_ROUNDS, LARGE_ROUNDS, EVALUATION_ROUNDS = 2, 2, 2
LARGE, HUGE = (6000, 4000), (12000, 9000)
ENCODER = "bare encoder"


@dataclass(frozen=True)
class Batch:
    """A command on many photos and on one: what it wrote, and milliseconds a photo net of start-up."""

    out: Path
    milliseconds: float


def measure_many(ground: Ground) -> list[Row]:
    """Milliseconds a photo of each command, net of start-up, beside the encoder alone."""
    labels = ["--labels", ",".join(ground.labels)]
    agreements: dict[str, Callable[[Path, Path], str]] = {
        "segment": of_masks,
        "segment --refine none": of_masks,
        "segment --refine none --save json": of_documents,
        "group": of_masks,
        "classify": of_best_labels,
    }
    sides: dict[tuple[str, str], Callable[[], Batch | float]] = {}
    with ExitStack() as stack:
        for code in ground.codes:
            asked = stack.enter_context(Asked(code))
            asked("encoder", photos=ground.photos)  # loads, decodes, and warms up
            sides[code.name, ENCODER] = partial(asked, "encoder", photos=ground.photos)
        for name in agreements:
            words, *rest = name.split()
            arguments = [*rest, *([] if words == "group" else labels)]
            for code in ground.codes:
                _timed(code, words, ground.photos[:1], arguments)  # fills what is kept between runs, and is not counted
                sides[code.name, name] = partial(_batch, code, words, ground.photos, arguments)
        values = in_turn(ground.rounds(MANY_ROUNDS), sides)
    encoder = {
        code.name: [value for value in values[code.name, ENCODER] if isinstance(value, float)] for code in ground.codes
    }
    rows = [Row(f"{ENCODER}, ms a photo", encoder["today"], encoder.get("before", ()))]
    for name, agreement in agreements.items():
        runs = {code.name: [run for run in values[code.name, name] if isinstance(run, Batch)] for code in ground.codes}
        times = {side: [run.milliseconds for run in batches] for side, batches in runs.items()}
        agreed = agreement(runs["before"][0].out, runs["today"][0].out) if ground.before else ""
        rows.append(
            Row(
                f"clippy {name}, ms a photo",
                times["today"],
                times.get("before", ()),
                f"{ENCODER} of today",
                encoder["today"],
                agreed,
            )
        )
    ground.note(
        f"- many: {len(ground.photos)} photos, {len(ground.labels)} labels; (time of the command on all of them, "
        "minus its time on the first one) / (photos - 1), fresh processes, so that start-up and loading drop out "
        "and writing the results stays in, for both codes alike; classify with --csv. Texts may be kept from a run "
        "before. The encoder is model.embed_patches on ready normalized tensors: batches of 8 photos in their "
        "order, those of one size together. Agreement is of before and today: equal pixels of masks, equal first "
        "labels."
    )
    return rows


def _batch(code: Code, command: str, photos: list[Path], arguments: list[str]) -> Batch:
    whole, out = _timed(code, command, photos, arguments)
    one, _ = _timed(code, command, photos[:1], arguments)
    return Batch(out, 1000 * (whole.seconds - one.seconds) / (len(photos) - 1))


def _timed(code: Code, command: str, photos: list[Path], arguments: list[str]) -> tuple[Run, Path]:
    out = code.new("out")
    place = ["--csv" if command == "classify" else "--out", str(out)]
    return code.clippy([command, *map(str, photos), *arguments, *place]), out


def measure_large(ground: Ground) -> list[Row]:
    """Seconds and peak memory of one command on one photo of 24 and of 108 megapixels."""
    rows = []
    sizes = {LARGE: ground.rounds(LARGE_ROUNDS), HUGE: ground.rounds(1)}
    if ground.tiny:
        sizes = {(800, 600): 1, (1600, 1200): 1}
    for number, (size, rounds) in enumerate(sizes.items()):
        photo = enlarged(ground.photos[0], *size, ground.folder)
        arguments = ["segment", str(photo), "--labels", ",".join(ground.hundred)]
        codes = ground.codes if ground.full or ground.tiny or number == 0 else (ground.today,)
        outs: dict[str, Path] = {}
        sides = {code.name: partial(_large, code, arguments, outs) for code in codes}
        runs = in_turn(rounds, sides)
        agreed = of_masks(outs["before"], outs["today"]) if "before" in outs else ""
        name = f"clippy segment, {size[0]}x{size[1]} pixels, {len(ground.hundred)} labels"
        seconds = {side: [run.seconds for run in done] for side, done in runs.items()}
        peaks = {side: [run.peak / 1e6 for run in done] for side, done in runs.items()}
        rows.append(Row(f"{name}, s", seconds["today"], seconds.get("before", ()), agreement=agreed))
        rows.append(Row(f"{name}, MB peak", peaks["today"], peaks.get("before", ())))
    ground.note(
        "- large: the whole command in a fresh process, defaults, nothing kept from before, its results in files; "
        "the photo is a JPEG enlarged from the first one, the labels are ImageNet's names, evenly spaced. 108 "
        "megapixels before only with --full."
    )
    return rows


def _large(code: Code, arguments: list[str], outs: dict[str, Path]) -> Run:
    outs[code.name] = out = code.new("out")
    return code.clippy([*arguments, "--out", str(out)], cache=code.new("empty"))


def measure_evaluation(ground: Ground) -> list[Row]:
    """Milliseconds a photo of ``clippy evaluate``, net of start-up, and the figures of both codes."""
    sets = ["scenes"] if ground.data_root is None else ["voc20", "voc"]
    count = len(ground.photos)
    outs: dict[str, Path] = {}
    for code in ground.codes:
        _evaluated(ground, code, sets, 1)  # fills what is kept between runs, and is not counted
    sides = ground.of_each(lambda code: _evaluation(ground, code, sets, count, outs))
    values = in_turn(ground.rounds(EVALUATION_ROUNDS), sides)
    figures = {side: _figures(out) for side, out in outs.items()}
    agreed = "; ".join(
        f"{name} {'' if before is None else f'{before[name]:.2f} / '}{figure:.2f}"
        for before in [figures.get("before")]
        for name, figure in figures["today"].items()
    )
    ground.note(
        f"- evaluate: {count} photos of each set, (time of the command, minus its time with --limit 1) / photos "
        "more, both after a run that may have kept the texts; agreement: mIoU or Jaccard in %, before / today."
    )
    return [
        Row(f"clippy evaluate {' '.join(sets)}, ms a photo", values["today"], values.get("before", ()), "", (), agreed)
    ]


def _evaluation(ground: Ground, code: Code, sets: list[str], count: int, outs: dict[str, Path]) -> float:
    one, _ = _evaluated(ground, code, sets, 1)
    whole, outs[code.name] = _evaluated(ground, code, sets, count)
    return 1000 * (whole.seconds - one.seconds) / (len(sets) * (count - 1))


def _evaluated(ground: Ground, code: Code, sets: list[str], limit: int) -> tuple[Run, Path]:
    root = [] if ground.data_root is None else ["--data-root", str(ground.data_root.resolve())]
    out = code.new("evaluation")
    return code.clippy(["evaluate", *sets, *root, "--limit", str(limit), "--out", str(out)]), out


def _figures(out: Path) -> dict[str, float]:
    """Headline metric of each result in %, by set and task."""
    document = json.loads((out / "result.json").read_text(encoding="utf-8"))
    return {
        f"{result['data']['name']} {result['task']}": 100 * (result["metrics"][result["headline"]] or 0)
        for result in document["results"]
    }
