import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clippy_cli.model.base import Preprocess
from clippy_cli.model.sampling import draw_keep_indices, gather_patches, gather_tokens, num_kept


@given(st.integers(1, 300), st.floats(0, 0.999), st.integers(0, 2**31))
def test_a_draw_keeps_exactly_its_share_without_repeats(num_patches, drop_rate, seed):
    keep = draw_keep_indices(3, num_patches, drop_rate, generator=torch.Generator().manual_seed(seed))
    assert keep.shape == (3, num_kept(num_patches, drop_rate))
    assert abs(keep.shape[1] - num_patches * (1 - drop_rate)) <= max(0.5, 1 - num_patches * (1 - drop_rate))
    for row in keep.tolist():
        assert row == sorted(set(row)) and row[0] >= 0 and row[-1] < num_patches


def test_draws_are_reproducible_uniform_and_one_for_each_image():
    def draw(seed):
        return draw_keep_indices(4000, 10, 0.8, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(draw(3), draw(3)) and not torch.equal(draw(3), draw(4))
    counts = torch.bincount(draw(3).flatten(), minlength=10)
    assert (counts - 800).abs().max() < 5 * (4000 * 0.2 * 0.8) ** 0.5  # five standard deviations
    assert len(draw(3).unique(dim=0)) > 40  # of 45 pairs: rows are drawn separately


def test_gather_keeps_prefix_tokens_and_order():
    tokens = torch.arange(2 * 6 * 3.0).view(2, 6, 3)
    kept = gather_tokens(tokens, torch.tensor([[0, 3], [1, 2]]), num_prefix=2)
    assert torch.equal(kept[0], tokens[0, [0, 1, 2, 5]]) and torch.equal(kept[1], tokens[1, [0, 1, 3, 4]])


@pytest.mark.parametrize("channels_last", [False, True])
def test_gathered_pixels_are_the_patches_of_a_plain_loop_and_normalise_alike(channels_last):
    images = torch.randint(0, 256, (2, 3, 8, 12), dtype=torch.uint8)
    if channels_last:  # as decoded images come
        images = images.to(memory_format=torch.channels_last)
    keep = torch.tensor([[0, 3, 5], [1, 2, 4]])
    patches = gather_patches(images, keep, 4)
    assert patches.dtype == torch.uint8 and patches.shape == (2, 3, 3, 4, 4)
    preprocess = Preprocess((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 4, 8)
    for b in range(2):
        for k, place in enumerate(keep[b].tolist()):
            y, x = place // 3 * 4, place % 3 * 4
            assert torch.equal(patches[b, k], images[b, :, y : y + 4, x : x + 4])
    whole = gather_patches(preprocess.normalize(images), keep, 4)
    assert torch.equal(preprocess.normalize(patches), whole)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_rates_outside_the_unit_interval_are_refused(rate):
    with pytest.raises(ValueError, match="drop_rate"):
        num_kept(10, rate)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_indices_are_drawn_on_the_device():
    generator = torch.Generator(device="cuda").manual_seed(1)
    keep = draw_keep_indices(4, 196, 0.8, generator=generator, device="cuda")
    assert keep.is_cuda and keep.shape == (4, 39)
