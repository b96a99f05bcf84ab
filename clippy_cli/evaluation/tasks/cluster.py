"""One clustering of the patches of a whole set, matched with its classes. N patches, D joint, K clusters."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from clippy_cli.data.benchmarks.base import IGNORE, SegmentationSet, SegmentedImage
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.metrics.grouping import hungarian_confusion, without_extra_clusters
from clippy_cli.evaluation.metrics.segmentation import (
    confusion_matrix,
    dense_counts,
    mean_iou,
    pixel_accuracy,
    sparse_counts,
)
from clippy_cli.evaluation.result import ImageRecord, ResultTask
from clippy_cli.evaluation.tasks import Task
from clippy_cli.evaluation.tasks.base import EvaluationTask, Setup, TaskFigures, number, pooled_counts
from clippy_cli.evaluation.tasks.segment import pixel_classes
from clippy_cli.inference.class_map import class_map
from clippy_cli.inference.features import Failed, encode_images

_BATCH = 4096
_IMAGES = 500
_PATCHES = 200_000


class Cluster(EvaluationTask[SegmentationSet, SegmentedImage]):
    """mIoU of one clustering of the set; which class a cluster is, the counts of the whole set decide."""

    task = Task.CLUSTER
    kinds = ("segmentation",)
    by_default = False
    reads_texts = False
    needs = "patches"
    headline = "hungarian_miou"
    compared_by = "clusters"
    definitions: ClassVar[Mapping[str, str]] = {
        "hungarian_miou": "One clustering of the whole set, clusters matched one to one with classes on pixel counts "
        "(STEGO, PiCIE); mean IoU over classes.",
        "hungarian_pixel_accuracy": "Share of annotated pixels that are right under the same matching.",
        "hungarian_miou_extra_dropped": "The same where clusters numbered beyond the classes are dropped with their "
        "pixels before matching, as STEGO's public code does.",
        "hungarian_pixel_accuracy_extra_dropped": "Share of the pixels left by this that are right.",
    }

    def __init__(self, setup: Setup[SegmentationSet]) -> None:
        super().__init__(setup)
        self._clusters = setup.options.clusters or len(setup.images.classes)
        self._centres = fit_centres(_sampled_patches(setup), self._clusters, setup.options.seed)

    def measure(self, index: int, sample: SegmentedImage, output: Tensor) -> dict[ResultTask, ImageRecord]:
        """Counts (annotated class, cluster, pixels) of one image."""
        mask, count = sample.mask, len(self._centres)
        predicted = class_map(cluster_logits(output, self._centres), range(count), *mask.shape)
        target = torch.from_numpy(mask).to(output.device)
        counts = confusion_matrix(predicted, target, len(self.setup.images.classes), IGNORE, num_predicted=count)
        return {Task.CLUSTER: ImageRecord(index=index, key=sample.key, counts=sparse_counts(counts.cpu()))}

    def summarize(self, records: Sequence[ImageRecord]) -> TaskFigures:
        names = [entry.name for entry in self.setup.images.classes]
        counts = dense_counts(pooled_counts(records), len(names), self._clusters)
        confusion, missed = hungarian_confusion(counts.T)
        metrics = {
            "hungarian_miou": number(mean_iou(confusion, missed)),
            "hungarian_pixel_accuracy": number(pixel_accuracy(confusion, missed)),
        }
        if self._clusters > len(names):
            kept, _ = hungarian_confusion(without_extra_clusters(counts.T))
            metrics["hungarian_miou_extra_dropped"] = number(mean_iou(kept))
            metrics["hungarian_pixel_accuracy_extra_dropped"] = number(pixel_accuracy(kept))
        return TaskFigures(metrics, pixel_classes(confusion, missed, names), sparse_counts(confusion))

    def record(self, result: ResultTask) -> dict[str, Any]:
        method = f"mini-batch k-means on unit patch embeddings of up to {_IMAGES} images"
        record = {"clusters": self._clusters, "method": method}
        if self._clusters > len(self.setup.images.classes):
            record["extra clusters"] = "their pixels count as wrong; as dropped in the figures that say so"
        return record


def fit_centres(patches: Tensor, clusters: int, seed: int) -> Tensor:
    """(N,D) unit patch embeddings of many images -> (K,D) float32 unit centres, the same for the same seed.

    Mini-batch k-means on the unit sphere, its centres brought back to unit length to be compared by cosine, as the
    cluster probe of STEGO (Hamilton et al. 2022) compares them; that one learns its centres by gradient descent.
    Patches of fewer kinds than clusters leave centres alike, of which the first wins.

    Raises:
        ClippyError: fewer patches than clusters, or an embedding that is not finite.
    """
    if len(patches) < clusters:
        raise ClippyError(
            f"{clusters} clusters need at least as many patches; the images gave {len(patches)}",
            "Take more images (--limit), raise --resolution, or ask for fewer clusters.",
        )
    if not bool(patches.isfinite().all()):
        raise ClippyError("The model gave patch embeddings that are not finite", "Check the model's weights.")
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    fitting = MiniBatchKMeans(clusters, batch_size=_BATCH, n_init=3, random_state=seed)
    with warnings.catch_warnings(), threadpool_limits(limits=1):  # sums over threads differ from run to run
        warnings.simplefilter("ignore")  # fewer kinds of patches than clusters is fine here
        fitting.fit(patches.detach().cpu().float().numpy())
    return F.normalize(torch.from_numpy(fitting.cluster_centers_).float(), dim=1)


def cluster_logits(patches: Tensor, centres: Tensor) -> Tensor:
    """(h,w,D) unit patch embeddings, (K,D) unit centres -> (K,h,w) cosines on the patches' device."""
    return torch.einsum("hwd,kd->khw", patches, centres.to(patches))


def _sampled_patches(setup: Setup[SegmentationSet]) -> Tensor:
    """(N,D) unit patches of some of the set's images; the same in every process, since each takes the same ones."""
    model, images, settings, options = setup.model, setup.images, setup.settings, setup.options
    generator = torch.Generator().manual_seed(options.seed)
    chosen = torch.randperm(setup.total, generator=generator)[:_IMAGES].tolist()
    each = max(1, _PATCHES // max(1, len(chosen)))
    sampled = []
    for result in encode_images(
        chosen,
        images.read,
        setup.encode_patches,
        patch_size=model.preprocess.patch_size,
        resolution=settings.views.short_side(settings.resolution),
        batch_size=options.batch_size,
        workers=options.workers,
        resize=setup.resize,
    ):
        if not isinstance(result, Failed):
            patches = F.normalize(result.output.flatten(0, 1), dim=1).cpu()  # (N,D)
            sampled.append(patches[torch.randperm(len(patches), generator=generator)[:each]])
    if not sampled:
        where = "" if images.info.folder is None else f" below {images.info.folder}"
        raise ClippyError(f"No image of {images.info.name} can be read{where}", "Check its images and masks.")
    return torch.cat(sampled)


TASK = Cluster
