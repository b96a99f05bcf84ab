"""Models at resolutions -> all results of a set, with answers to draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import get_args

from clippy_cli.evaluation.provenance import describe_device, library_versions, model_fingerprint
from clippy_cli.evaluation.result import DataRecord, ModelRecord
from clippy_cli.model.base import VisionLanguageModel
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


def run_birds(
    sources: Sequence[str],
    load: Callable[[str], VisionLanguageModel],
    birds: WaterbirdsSet,
    words: BirdWords,
    *,
    split: str,
    resolutions: Sequence[int | None],
    templates: str | None,
    limit: int | None,
    batch_size: int,
    workers: int,
    command: str,
    bar: Bar,
) -> BirdRun:
    """Measure every model at every resolution by both readouts, one model in memory at a time.

    ``bar`` makes a progress bar of a description and a number of images. ``templates`` or a resolution of None are the
    models' own.
    """
    results: list[BirdResult] = []
    failed: dict[str, None] = {}
    used: dict[str, None] = {}
    device = ""
    first: tuple[BirdAnswers, str] | None = None
    total = len(birds) if limit is None else min(limit, len(birds))
    for source in sources:
        model = load(source)
        device = describe_device(model.device)
        used[templates or model.defaults.templates] = None
        record = ModelRecord(name=model.name, source=source, fingerprint=model_fingerprint(model))
        for size in resolutions:
            resolution = size or model.defaults.resolution
            with bar(f"{model.name} at {resolution}", total) as advance:
                answers = answer_birds(
                    model,
                    birds,
                    words,
                    resolution=resolution,
                    templates=templates or model.defaults.templates,
                    limit=limit,
                    batch_size=batch_size,
                    workers=workers,
                    on_image=advance,
                )
            failed |= dict.fromkeys(answers.failed)
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
        command=command,
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
        split=split,
        train_counts=birds.train_counts,
        protocol={
            "words": [" | ".join(label.synonyms) for label in words.labels],
            "templates": list(used),
            "resize": "short side, bicubic, antialiased; aspect kept",
            "vote": "patches of the background do not vote; ties and empty votes go to the best single patch",
        },
        results=tuple(results),
    )
    return BirdRun(document, *first)
