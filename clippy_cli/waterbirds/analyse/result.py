"""What an analysis of objects on backgrounds leaves behind."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from clippy_cli.evaluation.result import ModelRecord, NoticeRecord, Record
from clippy_cli.waterbirds.analyse.embeddings import AnalysedReadout


class AnalysisResult(Record):
    """One model and readout: what moves its embeddings, the object or the background."""

    model: ModelRecord
    readout: AnalysedReadout
    objects: int = Field(description="Objects that count, each pasted on every background.")
    backgrounds: int = Field(description="Drift compares at equal numbers only.")
    drift: float = Field(description="Mean cosine distance of an object's embeddings to their average, in [0, 1].")
    drift_low: float = Field(description="Of the 95 % bootstrap interval, objects resampled.")
    drift_high: float
    class_share: float | None = Field(description="Of the variance, the class's alone, in [0, 1]; null without any.")
    place_share: float | None = Field(description="The place's alone.")
    object_share: float | None = Field(description="Explained by which object it is, its class included.")
    object_chance: float = Field(description="Share that as many labels drawn at random would explain on average.")


class AnalysisDocument(Record):
    """``analysis.json``."""

    schema_name: Literal["clippy-waterbirds-analysis/1"] = Field("clippy-waterbirds-analysis/1", alias="schema")
    created: str = Field(description="UTC, ISO 8601.")
    command: str
    device: str
    versions: dict[str, str]
    seed: int
    classes: tuple[str, str]
    places: tuple[str, str]
    settings: dict[str, Any]
    results: tuple[AnalysisResult, ...]
    failed: tuple[str, ...] = Field(description="Objects and backgrounds that could not be used, one message each.")
    notices: tuple[NoticeRecord, ...] = Field((), description="What was skipped, ignored or assumed of them.")
