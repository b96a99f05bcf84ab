import pytest
import torch
import torch.nn.functional as F

import clippy_cli.model.affinity as affinity
from clippy_cli.model.affinity import affinity_mean


@pytest.mark.parametrize("cells", [affinity.CELLS, 2 * 9 * 4])
def test_a_patch_becomes_the_weighted_mean_of_unit_patches(monkeypatch: pytest.MonkeyPatch, cells: int):
    monkeypatch.setattr(affinity, "CELLS", cells)  # the second: four rows at a time
    torch.manual_seed(0)
    patches, keys = torch.randn(2, 9, 5).double(), torch.randn(2, 9, 3).double()
    result = affinity_mean(patches, keys, 4.0)
    for b in range(2):
        centred = F.normalize(keys[b] - keys[b].mean(dim=0), dim=-1)
        for n in range(9):
            weights = torch.softmax(torch.stack([4.0 * centred[n] @ other for other in centred]), dim=0)
            expected = sum(
                weight * F.normalize(patch, dim=0) for weight, patch in zip(weights, patches[b], strict=True)
            )
            torch.testing.assert_close(result[b, n], expected)


def test_equal_keys_give_every_patch_the_mean():
    patches = F.normalize(torch.randn(1, 6, 4), dim=-1)
    result = affinity_mean(patches, torch.ones(1, 6, 3), 10.0)
    torch.testing.assert_close(result, patches.mean(dim=1, keepdim=True).expand_as(result))
