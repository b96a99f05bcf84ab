"""What an evaluation leaves behind: figures, and everything needed to know how they were made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, NonNegativeInt, WithJsonSchema

from clippy_cli.evaluation.tasks import Task
from clippy_cli.model.choices import Precision
from clippy_cli.notices import Notice, NoticeKind, Notices, printable

SCHEMA = "clippy-result/1"
WITH_REGIONS: Literal["segment+regions"] = "segment+regions"

ResultTask: TypeAlias = Annotated[
    Task | Literal["segment+regions"], WithJsonSchema({"enum": [*Task, WITH_REGIONS], "type": "string"})
]  # what a result is of: a task, or the task segment after each region took one class


def measured_task(result: ResultTask) -> Task:
    """The task that gave a result."""
    return Task.SEGMENT if result == WITH_REGIONS else Task(result)


def _printable(key: object) -> object:
    """Names of files that are not UTF-8 are escaped, since a record is JSON."""
    return printable(key) if isinstance(key, str) and not key.isascii() else key


class Record(BaseModel):
    """Frozen, and nothing that its fields do not name."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class NoticeRecord(Record):
    """What was given and not used as it stood, counted by reason."""

    kind: NoticeKind = Field(description="skipped: asked for. ignored: not meant. assumed: used in some reading.")
    unit: str = Field(description="What is counted.")
    reason: str
    count: int
    examples: tuple[str, ...] = Field((), description="The first names.")
    hint: str = ""

    def notice(self) -> Notice:
        """As :class:`~clippy_cli.notices.Notices` takes it."""
        return Notice(self.kind, self.unit, self.reason, self.count, self.examples, self.hint)


def notice_records(notices: Iterable[Notice]) -> tuple[NoticeRecord, ...]:
    """Notices as results hold them."""
    return tuple(NoticeRecord.model_validate(notice.record()) for notice in notices)


class DataRecord(Record):
    """The images that were measured on."""

    name: str = Field(description="What the command line calls the set.")
    title: str = Field(description="Release and split.")
    images: int = Field(description="Images that count.")
    available: int = Field(description="Images in the folder.")
    complete: int | None = Field(description="Images of the whole published split, where that is known.")
    subset: bool = Field(description="Whether images are missing from the whole split, or --limit left some out.")
    split: str = Field("", description="Which split of a published set, such as val.")
    annotation: str = Field("", description="Which annotation was read, where there is a choice.")
    failed: tuple[str, ...] = Field((), description="What could not be used, one message each; not counted.")
    notices: tuple[NoticeRecord, ...] = Field((), description="What was skipped, ignored or assumed of the set.")


class ModelRecord(Record):
    """The model that was measured."""

    name: str
    source: str = Field(description="What --model said.")
    fingerprint: str = Field(description="Hash of the model's answers to a fixed image and fixed texts.")
    precision: Precision = Field(Precision.FP32, description="What the image tower computed in.")
    compiled: bool = Field(False, description="Whether torch compiled the image tower.")


class ClassScore(Record):
    """One class: its figures in [0, 1], null where undefined, and how much of it was annotated."""

    name: str
    score: float | None = Field(description="IoU for segment and cluster, accuracy for classify.")
    accuracy: float | None = Field(None, description="Share of its annotated pixels that are right (segment, cluster).")
    count: int = Field(description="Annotated pixels (segment, cluster) or images (classify).")


class PublishedFigure(Record):
    """A figure from the literature beside ours."""

    model: str
    metric: str
    value: float = Field(description="In per cent, as printed.")
    source: str
    comparable: bool = Field(description="Whether every condition is known and equal to ours, on the whole split.")
    why_not: str = Field("", description="What differs or is not known, where it is not comparable.")
    conditions: dict[str, Any] = Field({}, description="What it was measured with; 'unknown' where that is not known.")
    conditions_from: str = Field("", description="Where the conditions were read.")


class TaskResult(Record):
    """One set, one model, one task."""

    data: DataRecord
    model: ModelRecord
    task: ResultTask
    headline: str = Field(description="The key in metrics that tables show first.")
    metrics: dict[str, float | None] = Field(
        description="In [0, 1], variation_of_information in bits; null where undefined, as for a set without images."
    )
    definitions: dict[str, str] = Field(description="What each metric is, in a sentence.")
    protocol: dict[str, Any] = Field(description="What was really used: resolution, window, templates, background, ...")
    classes: tuple[ClassScore, ...] = Field((), description="Per class, in the set's order.")
    absent: tuple[str, ...] = Field((), description="Classes without annotation in these images.")
    confusion: tuple[tuple[int, int, int], ...] = Field(
        (), description="Non-zero counts as (annotated class, predicted class, pixels or images)."
    )
    published: tuple[PublishedFigure, ...] = ()
    images_file: str | None = Field(None, description="JSON Lines with the figures of each image, beside this file.")
    seconds: float = Field(description="Wall time, without loading the model; of all parts, where it was continued.")
    images_per_second: float | None = None
    encoder_share: float | None = Field(None, description="Share of the wall time spent in the image encoder.")


class SuiteRow(Record):
    """One model on all sets of a suite, in [0, 1]."""

    model: str
    values: tuple[float | None, ...] = Field(description="One per set, in their order; null where there is none.")
    average: float | None = Field(description="The mean over all sets; null unless every one has a figure.")


class SuiteRecord(Record):
    """Sets that papers report together: the table of their headline figures."""

    name: str
    title: str
    source: str = Field(description="Who reports these sets together.")
    task: Task
    metric: str
    sets: dict[str, str] = Field(description="The sets and the heads of their columns.")
    missing: dict[str, str] = Field(description="Sets that were not measured, and where each was looked for.")
    published: dict[str, tuple[PublishedFigure, ...]] = Field(
        {}, description="Figures of the literature on sets that were not measured."
    )
    rows: tuple[SuiteRow, ...]


class Document(Record):
    """``result.json``."""

    schema_name: Literal["clippy-result/1"] = Field("clippy-result/1", alias="schema")
    created: str = Field(description="UTC, ISO 8601.")
    command: str = Field(description="The arguments, as they were given.")
    device: str
    versions: dict[str, str] = Field(description="clippy, Python and the libraries that make the figures.")
    seed: int
    results: tuple[TaskResult, ...]
    suite: SuiteRecord | None = Field(None, description="The table of --suite, where one was asked for.")
    notices: tuple[NoticeRecord, ...] = Field((), description="Those of all sets together.")


class ImageRecord(Record):
    """One line of ``images_file``: what an image adds to the set's figures."""

    index: int = Field(description="Position in the set.")
    key: Annotated[str, BeforeValidator(_printable)]
    counts: tuple[tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt], ...] = Field(
        (), description="Non-zero confusion counts as (annotated, predicted, pixels); classify: one count of one image."
    )
    scores: dict[str, FiniteFloat | None] = Field({}, description="Figures of this image alone, in [0, 1] or bits.")
    pixels: NonNegativeInt = Field(
        0, description="Pixels of all annotators together, by which pooled figures weight it."
    )
    error: str | None = Field(None, description="Why the image does not count.")
    notices: tuple[NoticeRecord, ...] = Field((), description="What was assumed when the image was read.")


def all_notices(of_set: Iterable[Notice], records: Iterable[ImageRecord]) -> Notices:
    """The notices of an open set and those of its images."""
    notices = Notices(of_set)
    for record in records:
        notices.update(noted.notice() for noted in record.notices)
    return notices
