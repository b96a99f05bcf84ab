"""Models, objects and backgrounds -> how far backgrounds move embeddings, and what explains their variance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from clippy_cli.evaluation.provenance import describe_device, library_versions, model_fingerprint
from clippy_cli.evaluation.result import ModelRecord, notice_records
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
from clippy_cli.waterbirds.measure.run import ModelRun


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


@dataclass(frozen=True)
class AnalysisSettings:
    """What is crossed and how it is drawn.

    Attributes:
        objects, scenes: how many objects and backgrounds are drawn by ``seed``, half from each class and place.
        resolution: short side in pixels.
        method: how embeddings become a picture.
    """

    objects: int = 40
    scenes: int = 8
    resolution: int = 224
    method: PictureMethod = PictureMethod.PCA
    seed: int = 0


def run_analysis(
    models: ModelRun, foregrounds: Foregrounds, backgrounds: Backgrounds, settings: AnalysisSettings
) -> AnalysisRun:
    """Paste the same objects on the same backgrounds for every model, and measure both readouts of each.

    ClippyError as of :func:`~clippy_cli.waterbirds.analyse.embeddings.embed_crossing`.
    """
    resolution, method, seed = settings.resolution, settings.method, settings.seed
    crossing = draw_crossing(
        foregrounds,
        backgrounds,
        objects=settings.objects,
        scenes=settings.scenes,
        resolution=resolution,
        seed=seed,
    )
    clouds: list[Cloud] = []
    failed = dict.fromkeys(crossing.failed)
    noted = {photo.name: photo.notices for photo in crossing.backgrounds}
    device = ""
    for source in models.sources:
        model = models.load(source)
        device = describe_device(model.device)
        record = ModelRecord(name=model.name, source=source, fingerprint=model_fingerprint(model))
        with models.bar(model.name, len(crossing)) as advance:
            crossed = embed_crossing(
                model,
                crossing,
                resolution=resolution,
                batch_size=models.batch_size,
                workers=models.workers,
                on_image=advance,
            )
        failed |= dict.fromkeys(crossed.failed)
        noted |= crossed.notices
        models.accept(noted)
        clouds += [_cloud(record, readout, crossed, method, seed) for readout in ANALYSED_READOUTS]
    document = AnalysisDocument(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=models.command,
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
        notices=notice_records([*foregrounds.notices, *backgrounds.notices, *models.accept(noted)]),
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
