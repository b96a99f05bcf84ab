"""One clustering for a whole set, of patch embeddings, for ``hungarian-miou``. N patches, D joint, K clusters."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from clippy_cli.errors import ClippyError

_BATCH = 4096


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
