"""Folders that are whole or absent, and the comparison that decides which."""

import math

import pytest
import torch

from clippy_cli.errors import ClippyError
from clippy_cli.export.folder import new_folder
from clippy_cli.export.parity import Difference, difference, require_parity


def test_a_folder_appears_when_it_is_whole_and_not_before(tmp_path):
    out = tmp_path / "deep" / "out"
    with new_folder(out) as folder:
        (folder / "a").write_text("1")
        assert not out.exists()
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "a").read_text() == "1"


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(ClippyError, match="no parity"), new_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
        raise ClippyError("no parity")
    assert list(tmp_path.iterdir()) == []


def test_a_used_folder_is_refused_and_an_empty_one_taken(tmp_path):
    with new_folder(tmp_path) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(ClippyError, match="not empty"), new_folder(tmp_path):
        pass
    with pytest.raises(ClippyError, match="no folder"), new_folder(tmp_path / "a"):
        pass


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
