"""A fully connected CRF (Kraehenbuehl and Koltun, NeurIPS 2011, arXiv 1210.5644) by the package pydensecrf2."""

from __future__ import annotations

from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from clippy_cli.errors import ClippyError
from clippy_cli.extras import install_command

_MODULE = "pydensecrf.densecrf"
# The settings of DeepLab's public code, which later work on VOC and COCO took over.
_ITERATIONS = 10
_NEAR, _NEAR_WEIGHT = 1, 3
_FAR, _COLOUR, _FAR_WEIGHT = 67, 3, 4
_LEAST = 1e-8


def check_crf() -> None:
    """ClippyError where the package is missing."""
    try:
        import_module(_MODULE)
    except ImportError:
        raise ClippyError(
            "--refine crf needs the package pydensecrf2, which is not installed",
            f"{install_command('crf')}, or use --refine guided or pamr.",
        ) from None


def crf(probabilities: NDArray[np.float32], image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(K,H,W) probabilities, (H,W,3) uint8 photo of the same size -> (K,H,W) by ten mean-field iterations.

    Where the K do not add up to 1, since others were left out, what comes back adds up to the same sum at each pixel.
    """
    check_crf()
    count, height, width = probabilities.shape
    mass = probabilities.sum(axis=0)  # (H,W)
    shares = (probabilities / np.maximum(mass, _LEAST)).reshape(count, -1)  # (K,H,W) -> (K,H*W)
    field = import_module(_MODULE).DenseCRF2D(width, height, count)
    field.setUnaryEnergy(np.ascontiguousarray(-np.log(np.maximum(shares, _LEAST)), dtype=np.float32))
    field.addPairwiseGaussian(sxy=_NEAR, compat=_NEAR_WEIGHT)
    pixels = np.ascontiguousarray(image)
    field.addPairwiseBilateral(sxy=_FAR, srgb=_COLOUR, rgbim=pixels, compat=_FAR_WEIGHT)
    inferred: NDArray[np.float32] = np.array(field.inference(_ITERATIONS), dtype=np.float32)  # (K,H*W)
    weighted: NDArray[np.float32] = inferred.reshape(count, height, width) * mass
    return weighted
