"""Several looks at one image, averaged on one grid."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from clippy_cli.data.images import resize_image
from clippy_cli.errors import ClippyError
from clippy_cli.inference.features import dense_embeddings
from clippy_cli.inference.views import Views, fit_windows, parse_scales, view_embeddings
from tests.fixtures.colour_model import ColourModel


def photo(height=64, width=96):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


class LeftAware(ColourModel):
    """Adds to each patch how far to the right it lies, so that mirrored views can be told apart."""

    def embed_patches(self, images):
        patches = super().embed_patches(images)
        return patches + torch.arange(patches.shape[2])[:, None]


def test_one_plain_view_is_the_model_itself():
    images = [photo(), photo()]
    torch.testing.assert_close(view_embeddings(ColourModel(), images, Views()), dense_embeddings(ColourModel(), images))


def test_the_mean_of_views_gives_the_mean_of_cosines():
    image, texts = photo(), F.normalize(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    model = LeftAware()
    seen = view_embeddings(model, [image], Views((0.5, 1.0), flip=True, window=16, stride=8))[0]
    expected = torch.zeros(8, 12, 4)
    for size in ((32, 48), (64, 96)):
        small = resize_image(image, *size)
        for mirrored in (False, True):
            view = np.ascontiguousarray(small[:, ::-1]) if mirrored else small
            cosines = dense_embeddings(model, [view], window=16, stride=8)[0] @ texts.T  # (h,w,K)
            cosines = cosines.flip(1) if mirrored else cosines
            maps = F.interpolate(cosines.permute(2, 0, 1)[None], (8, 12), mode="bilinear")[0]
            expected += maps.permute(1, 2, 0) / 4
    torch.testing.assert_close(seen @ texts.T, expected, rtol=1e-5, atol=1e-5)


def test_mirrored_views_are_turned_back():
    seen = view_embeddings(ColourModel(), [photo()], Views(flip=True))
    torch.testing.assert_close(seen, dense_embeddings(ColourModel(), [photo()]))
    assert Views((0.5, 1.5)).short_side(448) == 672


@given(st.integers(1, 900), st.none() | st.integers(1, 900), st.sampled_from((8, 14, 16)))
def test_windows_are_whole_patches_and_leave_no_gap(window, stride, patch):
    if stride is not None and stride > window:
        with pytest.raises(ClippyError, match="leaves gaps"):
            fit_windows(window, stride, patch)
        return
    side, step = fit_windows(window, stride, patch)
    assert side % patch == step % patch == 0 and patch <= step <= side


def test_scales_are_read_or_refused():
    assert parse_scales("1, 1.5,2") == (1.0, 1.5, 2.0)
    for text in ("", "1,", "one", "1,1.0", "0", "nan", "-1", "9", ",".join(str(n) for n in range(1, 10))):
        with pytest.raises(ClippyError, match="--scales"):
            parse_scales(text)
