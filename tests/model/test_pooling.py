import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clippy_cli.model import pooling
from clippy_cli.model.choices import Pooling
from clippy_cli.model.pooling import affinity_mean, lse_scores, pool_tokens


@pytest.mark.parametrize("pool_prefix", [False, True])
def test_pooling_matches_plain_loops(pool_prefix):
    tokens = torch.randn(3, 2 + 5, 4, dtype=torch.float64)
    first = 0 if pool_prefix else 2
    for b in range(3):
        for d in range(4):
            column = [float(tokens[b, n, d]) for n in range(first, 7)]
            assert pool_tokens(tokens, "max", 2, pool_prefix=pool_prefix)[b, d] == max(column)
            assert pool_tokens(tokens, "avg", 2, pool_prefix=pool_prefix)[b, d] == pytest.approx(
                sum(column) / len(column)
            )
    assert torch.equal(pool_tokens(tokens, "cls", 2), tokens[:, 0])
    assert torch.equal(pool_tokens(tokens, "cls+avg", 2), torch.cat([tokens[:, 0], tokens[:, 2:].mean(dim=1)], dim=1))


def test_lse_lies_between_mean_and_max_and_tends_to_both():
    patches = torch.nn.functional.normalize(torch.randn(2, 6, 8, dtype=torch.float64), dim=-1)
    texts = torch.nn.functional.normalize(torch.randn(3, 8, dtype=torch.float64), dim=-1)
    cosines = np.einsum("bnd,kd->bkn", patches, texts)
    plain = np.log(np.exp(7.0 * cosines).mean(axis=-1)) / 7.0
    np.testing.assert_allclose(lse_scores(patches, texts, 7.0), plain, rtol=1e-12)
    np.testing.assert_allclose(lse_scores(patches, texts, 1e-6), cosines.mean(axis=-1), atol=1e-6)
    np.testing.assert_allclose(lse_scores(patches, texts, 1e5), cosines.max(axis=-1), atol=1e-4)


def test_lse_stand_in_vector_is_the_first_order_form():
    """At a vanishing scale the log-mean-exp is linear in the text: a dot product with the mean unit patch."""
    tokens = torch.randn(2, 1 + 6, 8, dtype=torch.float64)
    texts = torch.nn.functional.normalize(torch.randn(3, 8, dtype=torch.float64), dim=-1)
    patches = torch.nn.functional.normalize(tokens[:, 1:], dim=-1)
    torch.testing.assert_close(
        pool_tokens(tokens, "lse", 1) @ texts.T, lse_scores(patches, texts, 1e-7), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("name", Pooling)
def test_every_pooling_has_its_function(name: Pooling) -> None:
    assert pool_tokens(torch.ones(2, 1 + 3, 4), name, 1).shape == (2, 4 * name.parts)


@pytest.mark.parametrize("held", [pooling.AFFINITIES, 2 * 9 * 4])
def test_a_patch_becomes_the_weighted_mean_of_unit_patches(monkeypatch: pytest.MonkeyPatch, held: int):
    monkeypatch.setattr(pooling, "AFFINITIES", held)  # the second: four rows at a time
    torch.manual_seed(0)
    patches, keys = torch.randn(2, 9, 5).double(), torch.randn(2, 9, 3).double()
    result = affinity_mean(patches, keys, 4.0)
    for b in range(2):
        centered = F.normalize(keys[b] - keys[b].mean(dim=0), dim=-1)
        for n in range(9):
            weights = torch.softmax(torch.stack([4.0 * centered[n] @ other for other in centered]), dim=0)
            expected = sum(
                weight * F.normalize(patch, dim=0) for weight, patch in zip(weights, patches[b], strict=True)
            )
            torch.testing.assert_close(result[b, n], expected)


def test_equal_keys_give_every_patch_the_mean():
    patches = F.normalize(torch.randn(1, 6, 4), dim=-1)
    result = affinity_mean(patches, torch.ones(1, 6, 3), 10.0)
    torch.testing.assert_close(result, patches.mean(dim=1, keepdim=True).expand_as(result))
