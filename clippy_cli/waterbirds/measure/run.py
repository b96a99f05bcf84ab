"""Models at resolutions -> all results of a set, with answers to draw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import get_args

from clippy_cli.data.text_cache import TextCache
from clippy_cli.evaluation.provenance import describe_device, library_versions, model_fingerprint
from clippy_cli.evaluation.result import DataRecord, ModelRecord, notice_records
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.notices import Notice, Notices
from clippy_cli.waterbirds.dataset import WaterbirdsSet
from clippy_cli.waterbirds.measure.answers import BirdAnswers, BirdWords, answer_birds
from clippy_cli.waterbirds.measure.result import BirdDocument, BirdResult, Readout
from clippy_cli.waterbirds.measure.summary import summarise_birds

READOUTS: tuple[Readout, ...] = get_args(Readout)

Bar = Callable[[str, int], AbstractContextManager[Callable[[], object]]]


@dataclass(frozen=True)
class BirdRun:
    """The document of a run, and the answers of its first model and resolution, for pictures."""

    document: BirdDocument
    shown: BirdAnswers
    shown_of: str


@dataclass(frozen=True)
class ModelRun:
    """Which models are measured, one in memory at a time, and how.

    Attributes:
        sources: what names each model; ``load`` loads one.
        batch_size: images of one size in a forward pass.
        workers: threads that decode images.
        command: the arguments, for results.
        bar: makes a progress bar of a description and a number of images.
        strict: whether what is assumed of an image is an error.
        cache: where embeddings of a source's texts are kept, if anywhere.
    """

    sources: Sequence[str]
    load: Callable[[str], VisionLanguageModel]
    batch_size: int = 16
    workers: int = 2
    command: str = ""
    bar: Bar = lambda name, total: nullcontext(lambda: None)
    strict: bool = False
    cache: Callable[[str], TextCache | None] = lambda source: None

    def accept(self, noted: Mapping[str, Sequence[Notice]]) -> Notices:
        """The notices of several images together; ClippyError where there are any and the run is strict."""
        notices = Notices(notice for of_image in noted.values() for notice in of_image)
        if self.strict:
            notices.refuse("The set")
        return notices


@dataclass(frozen=True)
class BirdQuestion:
    """What is asked about the images of a set.

    Attributes:
        words: of the two birds and the background.
        split: the name of the part of the set, for results.
        resolutions: short sides in pixels; None is a model's own.
        templates: a prompt set or template; None is a model's own.
        limit: the first images only; None for all.
    """

    words: BirdWords
    split: str
    resolutions: Sequence[int | None]
    templates: str | None = None
    limit: int | None = None


def run_birds(models: ModelRun, birds: WaterbirdsSet, question: BirdQuestion) -> BirdRun:
    """Measure every model at every resolution by both readouts."""
    limit = question.limit
    results: list[BirdResult] = []
    failed: dict[str, None] = {}
    used: dict[str, None] = {}
    noted: dict[str, Sequence[Notice]] = {}
    device = ""
    first: tuple[BirdAnswers, str] | None = None
    total = len(birds) if limit is None else min(limit, len(birds))
    for source in models.sources:
        model = models.load(source)
        device = describe_device(model.device)
        used[question.templates or model.defaults.templates] = None
        record = ModelRecord(name=model.name, source=source, fingerprint=model_fingerprint(model))
        for size in question.resolutions:
            resolution = size or model.defaults.resolution
            with models.bar(f"{model.name} at {resolution}", total) as advance:
                answers = answer_birds(
                    model,
                    birds,
                    question.words,
                    resolution=resolution,
                    templates=question.templates or model.defaults.templates,
                    limit=limit,
                    batch_size=models.batch_size,
                    workers=models.workers,
                    on_image=advance,
                    cache=models.cache(source),
                )
            failed |= dict.fromkeys(answers.failed)
            noted |= answers.notices
            models.accept(noted)
            first = first or (answers, f"{model.name} at {resolution} pixels")
            results += [
                summarise_birds(
                    answers,
                    record,
                    readout,
                    resolution,
                    birds=birds.birds,
                    places=birds.places,
                    train_counts=birds.train_counts,
                )
                for readout in READOUTS
            ]
    assert first is not None
    counted = max(result.images for result in results)
    document = BirdDocument(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=models.command,
        device=device,
        versions=library_versions(),
        seed=0,
        data=DataRecord(
            name=birds.info.name,
            title=birds.info.title,
            images=counted,
            available=len(birds),
            complete=birds.info.complete,
            subset=counted < (birds.info.complete or len(birds)),
            failed=tuple(failed),
        ),
        split=question.split,
        train_counts=birds.train_counts,
        protocol={
            "words": [" | ".join(label.synonyms) for label in question.words.labels],
            "templates": list(used),
            "resize": "short side, bicubic, antialiased; aspect kept",
            "vote": "patches of the background do not vote; ties and empty votes go to the best single patch",
        },
        results=tuple(results),
        notices=notice_records(models.accept(noted)),
    )
    return BirdRun(document, *first)
