"""What a user reads while a model trains."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from clippy_cli import console
from clippy_cli.commands.train_display import TrainDisplay, duration, step_line
from clippy_cli.notices import Notices
from clippy_cli.training.events import BestChanged, CheckpointFailed, SetsEvaluated, Started, StepReport, Validated

REPORT = StepReport(
    step=120, total_steps=100_000, epoch=0.5, loss=2.3456, image_accuracy=0.412, text_accuracy=0.388, logit_scale=14.3,
    learning_rate=1e-3, grad_norm=1.0, images_per_second=12_345.6, tokens_per_second=967_890.0, teraflops=350.0,
    flop_utilisation=0.412, wait_share=0.023, memory_gb=71.26, seconds_left=3_725.0, broken=12,
)  # fmt: skip


def test_the_whole_line_and_what_is_left_of_it_where_it_is_narrow() -> None:
    assert step_line(REPORT, 200) == (
        "loss 2.346 · acc 41/39 % · 12,346 img/s · 967.9 ktok/s · MFU 41 % · wait 2 % · scale 14.3 · 71.3 GB · "
        "1:02:05 left · 12 broken"
    )
    for columns in range(20, 140):
        assert len(step_line(REPORT, columns)) <= columns
    assert step_line(REPORT, 40) == "loss 2.346 · 12,346 img/s · 1:02:05 left"
    assert step_line(REPORT, 1) == "loss 2.346"
    unknown = dataclasses.replace(
        REPORT, tokens_per_second=None, flop_utilisation=None, broken=0, images_per_second=3.14
    )
    assert step_line(unknown, 200) == (
        "loss 2.346 · acc 41/39 % · 3.1 img/s · wait 2 % · scale 14.3 · 71.3 GB · 1:02:05 left"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (100 * 3600, "4 d 4 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def seen(monkeypatch, *, terminal: bool) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=stream, force_terminal=terminal, width=150, highlight=False))
    return stream


@pytest.mark.parametrize("terminal", [False, True])
def test_events_become_lines(monkeypatch, terminal: bool) -> None:
    stream = seen(monkeypatch, terminal=terminal)
    notices = Notices()
    notices.skipped("row", "no caption", "line 3")
    with TrainDisplay() as display:
        display.show(Started("40 scenes", 40, 5, 10, 4, 1_500_000, "cuda:0", 8, tuple(notices)))
        display.show(REPORT)
        display.show(Validated(5, 1.25))
        with display.evaluating("voc20") as progress:
            progress.start(0, 20)
            for _ in range(20):
                progress.advance()
        display.show(SetsEvaluated(5, {"voc20.miou": 0.2813, "captioned.text_to_image_r1": 0.5}))
        display.show(BestChanged(5, "voc20.miou", 0.2813, Path("best")))
        display.show(BestChanged(5, "validation.loss", 1.25, Path("best")))
        display.show(CheckpointFailed(5, "No space left on device"))
    text = stream.getvalue()
    for line in (
        "40 scenes; 5 steps an epoch",
        "1 row skipped: no caption (line 3)",
        "resuming after step 4 of 10 steps on 8 processes, the first on cuda:0; 1.5 million parameters learn",
        "step 5: validation loss 1.2500",
        "step 5: voc20 mIoU 28.1 % · captioned text to image R@1 50.0 %",
        "step 5: best so far by voc20 mIoU 28.1 %",
        "step 5: best so far by validation loss 1.2500",
        "step 5: no checkpoint, training goes on: No space left on device",
    ):
        assert line in text, text
    assert "loss 2.346" in text and ("evaluating voc20" in text) == terminal


def test_a_plain_line_has_at_most_110_columns(monkeypatch) -> None:
    stream = seen(monkeypatch, terminal=False)
    with TrainDisplay() as display:
        display.show(dataclasses.replace(REPORT, step=99_999))
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("step 99999/100000 loss") and 90 < len(line) <= 110
