"""What the ablation compares, the paper's figures for it, and what measured figures say on the paper's orderings."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

FIGURES = {
    "voc20.miou": "mIoU VOC20",
    "voc20.miou.centred": "mIoU VOC20, centred",
    "voc.miou": "mIoU VOC21",
    "voc.jaccard": "Jaccard VOC",
    "coco.jaccard": "Jaccard COCO",
    "bsds500.jaccard": "Jaccard BSDS500",
    "dev.image_to_text_r1": "R@1 image to text",
    "dev.text_to_image_r1": "R@1 text to image",
}


@dataclass(frozen=True)
class Configuration:
    """What a run is; the defaults are the reference."""

    pooling: str = "max"
    init: str = "supervised"
    drop_rate: float = 0.5
    trunk: str = "trained"

    def __str__(self) -> str:
        return f"pooling {self.pooling}, {self.init}, {self.drop_rate:.0%} dropped, trunk {self.trunk}"


SELF_DISTILLED = "supervised + self-supervised"
GROUPS: dict[str, tuple[str, dict[str, Configuration]]] = {
    "pooling": ("Pooling", {name: Configuration(pooling=name) for name in ("max", "avg", "cls", "lse")}),
    "init": (
        "Initialisation",
        {name: Configuration(init=name) for name in ("random", "supervised", SELF_DISTILLED)},
    ),
    "tokens": ("Token sub-sampling", {"on": Configuration(), "off": Configuration(drop_rate=0.0)}),
    "frozen": ("Trunk", {name: Configuration(trunk=name) for name in ("trained", "frozen")}),
}
# VOC mIoU and Jaccard on CC-12M, ViT-B; "self-supervised" is DINO alone there. None: not given.
PAPER: dict[tuple[str, str], tuple[float, float | None]] = {
    ("pooling", "max"): (50.8, 47.5),
    ("pooling", "avg"): (11.6, 38.1),
    ("pooling", "cls"): (4.0, 40.4),
    ("init", "random"): (32.9, 43.6),
    ("init", "supervised"): (22.5, 43.3),
    ("init", SELF_DISTILLED): (50.8, 47.5),
    ("tokens", "on"): (51.8, None),
    ("tokens", "off"): (50.9, None),
}
COUNTERPARTS = (("voc20.miou", "voc20.miou.centred", "voc.miou"), ("voc.jaccard",))  # ours of the paper's two figures
NO_ORDERING = 0.5  # points; the paper's 43.6 and 43.3 are no claim
ORDERINGS = (
    ("pooling", "max", "avg"),
    ("pooling", "max", "cls"),
    ("init", SELF_DISTILLED, "supervised"),
    ("init", SELF_DISTILLED, "random"),
    ("init", "random", "supervised"),
    ("tokens", "on", "off"),
)
COLUMNS = ["change", "seeds", *FIGURES.values(), "the paper: VOC mIoU / Jaccard"]

# Group and change -> the figures of each seed, as shares.
Measured = Mapping[tuple[str, str], Sequence[Mapping[str, float]]]


def table_rows(measured: Measured, groups: Sequence[str]) -> list[list[str]]:
    """A heading row for each group, then one for each change, in percent."""
    rows = []
    for group in groups:
        title, changes = GROUPS[group]
        rows.append([f"**{title}**", *[""] * (len(COLUMNS) - 1)])
        for name in changes:
            found = measured[group, name]
            cells = [spread([100 * figures[figure] for figures in found]) for figure in FIGURES]
            miou, jaccard = PAPER.get((group, name), (None, None))
            paper = "" if miou is None else f"{miou} / {jaccard or '-'}"
            rows.append([name, str(len(found)), *cells, paper])
    return rows


def statements(measured: Measured) -> list[str]:
    """What the numbers say on each of the paper's orderings, a Markdown list item each."""
    lines = [
        "Confirmed: the difference of means exceeds the sum of the two spreads. Contrary: it does so the other way.",
        "",
    ]

    def values(group: str, name: str, figure: str) -> list[float]:
        return [100 * figures[figure] for figures in measured.get((group, name), ())]

    def compare(group: str, better: str, worse: str, figure: str, claim: str) -> None:
        above, below = values(group, better, figure), values(group, worse, figure)
        if above and below:
            lines.append(
                f"- {GROUPS[group][0]}, {FIGURES[figure]}: {better} above {worse} ({claim}): "
                f"{spread(above)} and {spread(below)}, {verdict(above, below)}."
            )

    for group, better, worse in ORDERINGS:
        for high, low, figures in zip(PAPER[group, better], PAPER[group, worse], COUNTERPARTS, strict=True):
            if high is None or low is None or high - low < NO_ORDERING:
                continue
            for figure in figures:
                compare(group, better, worse, figure, f"the paper: {high} and {low}")
    for figure, title in FIGURES.items():
        on, off = values("tokens", "on", figure), values("tokens", "off", figure)
        if min(len(on), len(off)) > 1:
            cost = statistics.mean(off) - statistics.mean(on) + statistics.stdev(on) + statistics.stdev(off)
            lines.append(
                f"- Token sub-sampling costs at most {max(0.0, cost):.1f} points of {title}, spreads included."
            )
    for figure in FIGURES:
        compare("frozen", "trained", "frozen", figure, "no claim of the paper's")
    return lines


def verdict(above: Sequence[float], below: Sequence[float]) -> str:
    """Whether ``above`` lies above ``below`` by more than both spreads, seeds being few."""
    seeds = min(len(above), len(below))
    if seeds < 2:
        return "not decided: one seed has no spread"
    difference = statistics.mean(above) - statistics.mean(below)
    noise = statistics.stdev(above) + statistics.stdev(below)
    if abs(difference) <= noise:
        return f"not decided by {seeds} seeds"
    return "confirmed" if difference > 0 else "contrary"


def spread(values: Sequence[float]) -> str:
    """Mean and sample standard deviation, as far as there are any."""
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1f}"
