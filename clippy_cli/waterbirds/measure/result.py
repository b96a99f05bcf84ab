"""What a run of Waterbirds leaves behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from clippy_cli.evaluation.result import DataRecord, ModelRecord, NoticeRecord, Record

SCHEMA = "clippy-waterbirds/1"
Readout = Literal["pooled", "patch"]


class GroupScore(Record):
    """One of the four groups."""

    bird: str
    place: str
    accuracy: float | None = Field(description="In [0, 1]; null without images.")
    count: int


class Gap(Record):
    """How much better a bird is known on its own background: matched minus mismatched accuracy."""

    bird: str
    value: float | None
    low: float | None = Field(description="Of the 95 % bootstrap interval, images resampled within groups.")
    high: float | None


class BirdResult(Record):
    """One model, one readout, one resolution."""

    model: ModelRecord
    readout: Readout
    resolution: int = Field(description="Short side in pixels.")
    images: int
    groups: tuple[GroupScore, GroupScore, GroupScore, GroupScore]
    worst_group: str | None = Field(description="Bird and place of the lowest accuracy.")
    worst: float | None
    worst_low: float | None = Field(description="Of the 95 % bootstrap interval of the lowest group accuracy.")
    worst_high: float | None
    mean_over_groups: float | None
    weighted_mean: float | None = Field(description="Weighted by the group counts of the training split.")
    average: float | None = Field(description="Plain share of right images.")
    gaps: tuple[Gap, Gap]
    background_share: float | None = Field(None, description="patch: mean share of patches taken for background.")
    undecided: int | None = Field(None, description="patch: images whose vote was a tie or empty.")


def model_labels(results: Sequence[BirdResult]) -> dict[ModelRecord, str]:
    """What tables call each model: its name, with its source where several have one name."""
    models = list(dict.fromkeys(result.model for result in results))
    names = Counter(model.name for model in models)
    return {model: model.name if names[model.name] == 1 else f"{model.name} ({model.source})" for model in models}


class BirdDocument(Record):
    """``waterbirds.json``."""

    schema_name: Literal["clippy-waterbirds/1"] = Field("clippy-waterbirds/1", alias="schema")
    created: str = Field(description="UTC, ISO 8601.")
    command: str
    device: str
    versions: dict[str, str]
    seed: int
    data: DataRecord
    split: str
    train_counts: tuple[int, int, int, int]
    protocol: dict[str, Any]
    results: tuple[BirdResult, ...]
    notices: tuple[NoticeRecord, ...] = Field((), description="What was assumed when images were read.")
