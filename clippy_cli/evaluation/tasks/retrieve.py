"""Retrieval both ways on captioned images: every image against every caption. I images, T captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from clippy_cli.data.benchmarks.base import RetrievalSet
from clippy_cli.data.captions import CaptionedImage
from clippy_cli.data.prompts import text_embeddings
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.metrics.retrieval import pooled_recalls, recalls_by_image
from clippy_cli.evaluation.result import ImageRecord, ResultTask
from clippy_cli.evaluation.tasks import Task
from clippy_cli.evaluation.tasks.base import EvaluationTask, Setup, TaskFigures
from clippy_cli.processes import Processes

RECALLS = (1, 5, 10)
_IMAGE = "Share of images one of whose captions is among their {} best; ties count against the model."
_TEXT = "Share of captions whose image is among their {} best; ties count against the model."


class Retrieve(EvaluationTask[RetrievalSet, CaptionedImage]):
    """Recall at 1, 5 and 10.

    Ranks need all scores, so an interrupted measurement starts again. An image that cannot be read takes its captions
    along.
    """

    task = Task.RETRIEVE
    kinds = ("retrieval",)
    reads_texts = True
    needs = "scores"
    headline = "image_to_text_r1"
    followed = ("image_to_text_r1", "text_to_image_r1")
    resumable = False
    definitions: ClassVar[Mapping[str, str]] = {f"image_to_text_r{k}": _IMAGE.format(k) for k in RECALLS} | {
        f"text_to_image_r{k}": _TEXT.format(k) for k in RECALLS
    }

    def __init__(self, setup: Setup[RetrievalSet]) -> None:
        super().__init__(setup)
        self._captions: dict[int, tuple[str, ...]] = {}
        self._errors: dict[int, str] = {}
        for index in range(setup.total):
            try:
                self._captions[index] = setup.images.captions(index)
            except ClippyError as error:
                self._errors[index] = error.message
        captions = [text for own in self._captions.values() for text in own]
        self.texts = text_embeddings(setup.model, captions, cache=setup.cache, on_texts=setup.on_texts).float()  # (T,D)
        self._rows: dict[int, Tensor] = {}

    def measure(self, index: int, sample: CaptionedImage, output: Tensor) -> dict[ResultTask, ImageRecord]:
        """Keep the (T,) scores of one image for :meth:`complete`."""
        error = self._errors.get(index)
        if error is None:
            self._rows[index] = output
        return {Task.RETRIEVE: ImageRecord(index=index, key=self.setup.images.key(index), error=error)}

    def complete(self, records: list[ImageRecord], processes: Processes) -> list[ImageRecord]:
        """Ranks among the images that could be read, and their captions alone."""
        rows = {index: row for part in processes.gather(self._rows) for index, row in part.items()}
        scores = _recalls(rows, self._captions)
        return [record.model_copy(update={"scores": scores.get(record.index, {})}) for record in records]

    def summarize(self, records: Sequence[ImageRecord]) -> TaskFigures:
        return TaskFigures({**pooled_recalls([record.scores for record in records])} or {self.headline: None})

    def record(self, result: ResultTask) -> dict[str, Any]:
        return {"texts": "captions as they are"}


def _recalls(rows: Mapping[int, Tensor], captions: Mapping[int, tuple[str, ...]]) -> dict[int, dict[str, float]]:
    """(T,) scores by image -> the scores of each image's record, those of its captions being their means."""
    counted = sorted(rows)
    columns = torch.tensor([index for index, own in captions.items() for _ in own])  # (T,) image of each caption
    keep = torch.isin(columns, torch.tensor(counted, dtype=columns.dtype))
    owner = torch.searchsorted(torch.tensor(counted, dtype=columns.dtype), columns[keep])
    scores = torch.stack([rows[index] for index in counted])[:, keep] if counted else torch.zeros(0, 0)  # (I,T)
    return dict(zip(counted, recalls_by_image(scores, owner, RECALLS), strict=True))


TASK = Retrieve
