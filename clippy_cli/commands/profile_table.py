"""What ``--profile`` prints: where the time of a command went, stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.table import Table

from clippy_cli import console
from clippy_cli.stages import ENCODER, OTHER, Profile, profiled


@contextmanager
def profiling(wanted: bool) -> Iterator[Profile | None]:
    """Take a profile of the block where it is ``wanted``, else give None."""
    if not wanted:
        yield None
        return
    with profiled() as profile:
        yield profile


def profile_record(profile: Profile, photos: int) -> dict[str, Any]:
    """The profile up to now, ready for JSON; the wall clock ends here.

    ``wall_seconds``; ``photos``; ``encoder_share`` of the wall in [0, 1]; and for each stage its ``seconds``, all
    threads added up, ``ms_per_photo`` and ``share`` of the wall. Stages of several threads add up to more than the
    wall; ``other`` is what the main thread spent outside all stages, waiting for the other threads included.
    """
    profile.stop()
    wall = max(profile.wall, 1e-9)
    seconds = {spent.stage: spent.seconds for spent in profile.spent} | {OTHER: profile.other}
    return {
        "wall_seconds": round(wall, 4),
        "photos": photos,
        "encoder_share": round(seconds.get(ENCODER, 0.0) / wall, 4),
        "stages": [
            {
                "stage": name,
                "seconds": round(spent, 4),
                "ms_per_photo": round(1000 * spent / photos, 3) if photos else None,
                "share": round(spent / wall, 4),
            }
            for name, spent in seconds.items()
        ],
    }


def print_profile(record: dict[str, Any]) -> None:
    """Write a table of :func:`profile_record` to stderr."""
    table = Table("stage", box=None, pad_edge=False)
    for heading in ("seconds", "ms a photo", "of wall"):
        table.add_column(heading, justify="right")
    for stage in record["stages"]:
        each = stage["ms_per_photo"]
        table.add_row(
            stage["stage"],
            f"{stage['seconds']:.3f}",
            "" if each is None else f"{each:.1f}",
            f"{100 * stage['share']:.0f} %",
        )
    table.add_section()
    photos, wall = record["photos"], record["wall_seconds"]
    table.add_row("wall", f"{wall:.3f}", f"{1000 * wall / photos:.1f}" if photos else "", "100 %")
    console.err.print(table)
    console.err.print(
        f"The encoder took {100 * record['encoder_share']:.0f} % of the wall. Stages that run in several threads add "
        f"up to more; {OTHER} is what the main thread does besides, and its waiting.",
        style="dim",
        soft_wrap=True,
    )
