import numpy as np
import pytest
import torch

from clippy_cli.model.pooling import lse_scores, pool_tokens


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
