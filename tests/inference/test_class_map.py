"""The class of each pixel, against PyTorch's interpolation of everything."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from clippy_cli.inference import class_map as module
from clippy_cli.inference.class_map import class_map


def upsampled(maps, height, width):
    return F.interpolate(maps[None].double(), size=(height, width), mode="bilinear", align_corners=False)[0]


def random_maps(texts, h, w, seed=0):
    return torch.randn(texts, h, w, generator=torch.Generator().manual_seed(seed))


sides = st.integers(1, 9)
lengths = st.integers(1, 60)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 7),
    sides,
    sides,
    lengths,
    lengths,
    st.integers(0, 99),
    st.sampled_from([1, 60, 10**6]),
    st.booleans(),
)
def test_every_pixel_has_the_class_of_a_highest_text(texts, h, w, height, width, seed, strip, wide):
    maps = random_maps(texts, h, w, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CPU_STRIP_PIXELS", strip)
        if wide:
            patch.setattr(module, "WIDEST_GRID", 0)  # as grids of many cells are treated
        predicted = class_map(maps, range(texts), height, width)
        reached = torch.cat([strip.value for strip in module.winners(maps, torch.arange(texts), height, width)])
    values = upsampled(maps, height, width)
    assert predicted.shape == (height, width) and predicted.dtype == torch.uint8
    chosen = values.gather(0, predicted[None].long())[0]
    assert float((values.amax(dim=0) - chosen).max()) < 1e-5
    torch.testing.assert_close(reached.double(), chosen, atol=1e-5, rtol=0)


def test_texts_share_classes_and_the_first_of_equal_texts_wins():
    maps = random_maps(4, 5, 6)
    doubled = torch.cat([maps, maps])
    merged = class_map(doubled, [3, 1, 3, 0, 9, 9, 9, 9], 40, 50)
    lookup = torch.tensor([3, 1, 3, 0], dtype=torch.uint8)
    torch.testing.assert_close(merged, lookup[class_map(maps, range(4), 40, 50).long()])


def test_what_accelerators_do_gives_the_same_and_never_waits_for_the_host():
    maps = random_maps(5, 6, 7)
    by_strips = torch.cat(
        [strip.code for strip in module._by_pixels(maps, torch.arange(5), 45, 61, 700)]
    )  # of two rows
    torch.testing.assert_close(by_strips, class_map(maps, range(5), 45, 61).long())
    assert class_map(torch.empty(5, 6, 7, device="meta"), range(5), 45, 61).shape == (45, 61)  # there are no values


def test_classes_beyond_255_are_not_cut_off():
    assert class_map(torch.ones(1, 2, 2), [300], 3, 3).unique().tolist() == [300]


def test_a_class_for_each_map_is_needed():
    with pytest.raises(ValueError, match="3 maps and 2 classes"):
        class_map(random_maps(3, 2, 2), [0, 1], 4, 4)


@pytest.mark.cuda
def test_the_gpu_agrees_with_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    maps = random_maps(21, 28, 37)
    on_gpu = class_map(maps.cuda(), range(21), 375, 500).cpu()
    assert float((on_gpu == class_map(maps, range(21), 375, 500)).float().mean()) > 0.9999
