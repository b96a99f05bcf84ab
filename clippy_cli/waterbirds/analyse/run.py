"""Models, objects and backgrounds -> how far backgrounds move embeddings, and what explains their variance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from clippy_cli.evaluation.provenance import describe_device, library_versions, model_fingerprint
from clippy_cli.evaluation.result import ModelRecord
from clippy_cli.model.base import VisionLanguageModel
from clippy_cli.waterbirds.analyse.embeddings import (
    ANALYSED_READOUTS,
    AnalysedReadout,
    CrossedEmbeddings,
    draw_crossing,
    embed_crossing,
)
from clippy_cli.waterbirds.analyse.figures import PictureMethod, drift, picture, variance_explained, variance_shares
from clippy_cli.waterbirds.analyse.result import AnalysisDocument, AnalysisResult
from clippy_cli.waterbirds.build.backgrounds import Backgrounds
from clippy_cli.waterbirds.build.foregrounds import Foregrounds
from clippy_cli.waterbirds.measure.run import Bar


@dataclass(frozen=True)
class Cloud:
    """Composites as one readout of a model sees them.

    Attributes:
        points: (N,2).
        classes, places: (N,) of each point.
    """

    result: AnalysisResult
    points: NDArray[np.float64]
    classes: NDArray[np.int64]
    places: NDArray[np.int64]


@dataclass(frozen=True)
class AnalysisRun:
    """The document of a run, and a cloud for each of its results, in their order."""

    document: AnalysisDocument
    clouds: tuple[Cloud, ...]


def run_analysis(
    sources: Sequence[str],
    load: Callable[[str], VisionLanguageModel],
    foregrounds: Foregrounds,
    backgrounds: Backgrounds,
    *,
    objects: int = 40,
    scenes: int = 8,
    resolution: int = 224,
    method: PictureMethod = PictureMethod.PCA,
    seed: int = 0,
    batch_size: int = 16,
    workers: int = 2,
    command: str,
    bar: Bar,
) -> AnalysisRun:
    """Paste the same objects on the same backgrounds for every model, and measure both readouts of each.

    ``objects`` and ``scenes`` are drawn by ``seed``, half from each class and place. One model is in memory at a time;
    ``bar`` makes a progress bar of a description and a number of images. ClippyError as of
    :func:`~clippy_cli.waterbirds.analyse.embeddings.embed_crossing`.
    """
    crossing = draw_crossing(foregrounds, backgrounds, objects=objects, scenes=scenes, resolution=resolution, seed=seed)
    clouds: list[Cloud] = []
    failed = dict.fromkeys(crossing.failed)
    device = ""
    for source in sources:
        model = load(source)
        device = describe_device(model.device)
        record = ModelRecord(name=model.name, source=source, fingerprint=model_fingerprint(model))
        with bar(model.name, len(crossing)) as advance:
            crossed = embed_crossing(
                model, crossing, resolution=resolution, batch_size=batch_size, workers=workers, on_image=advance
            )
        failed |= dict.fromkeys(crossed.failed)
        clouds += [_cloud(record, readout, crossed, method, seed) for readout in ANALYSED_READOUTS]
    document = AnalysisDocument(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        device=device,
        versions=library_versions(),
        seed=seed,
        classes=foregrounds.classes,
        places=backgrounds.places,
        settings={
            "objects": f"{len(crossing.objects)} of {len(foregrounds)} in {foregrounds.folder}",
            "backgrounds": f"{len(crossing.backgrounds)} of {sum(map(len, backgrounds.files))} in {backgrounds.folder}",
            "resolution": resolution,
            "resize": "short side, bicubic, antialiased; aspect kept",
            "bird patches": "mean of the patches that the object covers to half or more, at least one",
            "picture": method.written,
        },
        results=tuple(cloud.result for cloud in clouds),
        failed=tuple(failed),
    )
    return AnalysisRun(document, tuple(clouds))


def _cloud(
    model: ModelRecord, readout: AnalysedReadout, crossed: CrossedEmbeddings, method: PictureMethod, seed: int
) -> Cloud:
    embeddings = crossed.by_readout[readout]
    objects, backgrounds, width = embeddings.shape
    flat = embeddings.reshape(-1, width)  # (B,P,D) -> (B*P,D), the P of an object together
    classes, places = np.repeat(crossed.classes, backgrounds), np.tile(crossed.places, objects)
    moved, shares = drift(embeddings, seed=seed), variance_shares(flat, classes, places)
    result = AnalysisResult(
        model=model,
        readout=readout,
        objects=objects,
        backgrounds=backgrounds,
        drift=moved.mean,
        drift_low=moved.interval.low,
        drift_high=moved.interval.high,
        class_share=_defined(shares.bird),
        place_share=_defined(shares.place),
        object_share=_defined(variance_explained(flat, np.repeat(np.arange(objects), backgrounds))),
        object_chance=(objects - 1) / (objects * backgrounds - 1),
    )
    return Cloud(result, picture(flat, method, seed), classes, places)


def _defined(share: float) -> float | None:
    return None if math.isnan(share) else share
