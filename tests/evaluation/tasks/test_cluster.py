import pytest
import torch
import torch.nn.functional as F

from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.metrics.grouping import hungarian_confusion
from clippy_cli.evaluation.metrics.segmentation import confusion_matrix, mean_iou
from clippy_cli.evaluation.tasks.cluster import cluster_logits, fit_centres


def cones(kinds, each, width=16, seed=0):
    """Unit vectors close to ``kinds`` orthogonal directions, and their kinds, shuffled."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.arange(kinds).repeat(each)[torch.randperm(kinds * each, generator=generator)]
    noise = torch.randn(len(kind), width, generator=generator) * 0.05
    return F.normalize(torch.eye(width)[kind] + noise, dim=1), kind


def test_finds_the_kinds_of_patches_of_a_whole_set():
    patches, kind = cones(5, 120)
    centres = fit_centres(patches, 5, seed=0)
    assert centres.shape == (5, 16) and centres.dtype == torch.float32
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(5))
    logits = cluster_logits(patches.reshape(20, 30, 16), centres)
    assert logits.shape == (5, 20, 30)
    torch.testing.assert_close(logits[3, 7, 2], patches[7 * 30 + 2] @ centres[3])
    counts = confusion_matrix(logits.argmax(dim=0), kind.reshape(20, 30), 5, 255).T
    assert mean_iou(*hungarian_confusion(counts)) == 1.0


def test_the_same_seed_gives_the_same_centres():
    patches = F.normalize(torch.randn(600, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    assert torch.equal(fit_centres(patches, 7, seed=3), fit_centres(patches, 7, seed=3))
    assert not torch.equal(fit_centres(patches, 7, seed=3), fit_centres(patches, 7, seed=4))


def test_fewer_kinds_than_clusters_is_no_error_but_fewer_patches_is():
    patches = torch.eye(8)[[0] * 5 + [1] * 5]
    logits = cluster_logits(patches.reshape(2, 5, 8), fit_centres(patches, 4, seed=0))
    assert logits.isfinite().all() and len(logits.argmax(dim=0).unique()) == 2
    with pytest.raises(ClippyError, match=r"11 clusters .* gave 10"):
        fit_centres(patches, 11, seed=0)
    with pytest.raises(ClippyError, match="not finite"):
        fit_centres(patches / 0.0, 2, seed=0)
