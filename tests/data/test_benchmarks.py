"""Benchmarks by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clippy_cli.data.benchmarks import BENCHMARKS, open_benchmark
from clippy_cli.errors import ClippyError
from tests.fixtures.data import write_voc


def test_every_name_opens(tmp_path: Path) -> None:
    write_voc(tmp_path, [np.zeros((2, 3), np.uint8)], [0] * 768)
    classes = {name: len(open_benchmark(name, tmp_path).classes) for name in BENCHMARKS}
    assert classes == {"voc": 21, "voc20": 20, "scenes": 16}


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ClippyError, match="did you mean 'voc20'") as caught:
        open_benchmark("VOC-20", None)
    assert "scenes" in str(caught.value.hint)


def test_data_root_is_the_option_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLIPPY_DATA", raising=False)
    with pytest.raises(ClippyError, match="No data folder"):
        open_benchmark("voc", None)
    monkeypatch.setenv("CLIPPY_DATA", str(tmp_path))
    with pytest.raises(ClippyError, match="No PASCAL VOC 2012 below"):
        open_benchmark("voc", None)
    with pytest.raises(ClippyError, match="no such folder"):
        open_benchmark("voc", tmp_path / "none")
