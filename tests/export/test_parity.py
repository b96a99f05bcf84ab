"""The comparison that decides whether an export may stand."""

import math

import pytest
import torch

from clippy_cli.errors import ClippyError
from clippy_cli.export.parity import Difference, difference, require_parity


@pytest.mark.parametrize("largest", [2e-4, math.nan, math.inf])
def test_what_is_far_off_or_no_number_is_named(largest):
    good = Difference("pooled", (1, 3, 32, 32), 1e-7)
    require_parity([good], 1e-4)
    with pytest.raises(ClippyError, match="patches, input 2x3x32x48") as caught:
        require_parity([good, Difference("patches", (2, 3, 32, 48), largest)], 1e-4)
    assert "pooled" not in caught.value.message


def test_a_wrong_shape_is_no_small_difference():
    with pytest.raises(ClippyError, match=r"\(2, 1\)"):
        difference("pooled", torch.ones(2, 3), torch.ones(2, 1), torch.ones(2, 4))
