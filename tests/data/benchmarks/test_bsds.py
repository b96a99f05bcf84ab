"""BSDS500 on a tiny tree of its layout, and on the real one where it is at hand."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from clippy_cli.data.benchmarks.base import RegionSet
from clippy_cli.data.benchmarks.bsds import open_bsds
from clippy_cli.data.benchmarks.catalogue import load_spec
from clippy_cli.errors import ClippyError
from tests.fixtures.annotated_trees import write_bsds

HALVES = np.array([[1, 1, 2], [1, 1, 2]], np.uint16)
CORNER = np.array([[7, 7, 7], [7, 7, 300]], np.uint16)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_bsds(tmp_path, "test", {"1001": [HALVES, CORNER], "1002": [HALVES]})


def opened(tree: Path) -> RegionSet:
    return open_bsds("bsds500", load_spec("bsds500"), tree)


def test_every_annotator_is_read_with_regions_from_0(tree: Path) -> None:
    bsds = pickle.loads(pickle.dumps(opened(tree)))
    assert (len(bsds), bsds.key(0), bsds.kind, bsds.info.complete) == (2, "1001", "boundaries", 200)
    first = bsds.read(0)
    assert first.image.shape == (2, 3, 3)
    assert [regions.dtype for regions in first.annotations] == [np.int32, np.int32]
    np.testing.assert_array_equal(first.annotations[0], HALVES - 1)
    np.testing.assert_array_equal(first.annotations[1], CORNER > 7)
    assert len(bsds.read(1).annotations) == 1


def test_the_title_says_which_split(tmp_path: Path) -> None:
    val = load_spec(str(load_spec("bsds500").fallback))
    bsds = open_bsds("bsds500", val, write_bsds(tmp_path, "val", {"1": [HALVES]}))
    assert "test" in load_spec("bsds500").title
    assert "val" in bsds.info.title
    assert bsds.info.complete == 200  # so that val never counts as the whole published split


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not MATLAB" * 50,
        {"other": 1},
        {"groundTruth": 3.5},
        {"groundTruth": np.zeros((1, 2))},
        {"groundTruth": np.empty((1, 0), object)},
        {"groundTruth": np.array([[{"Segmentation": np.zeros((2, 3, 3), np.uint8)}]], object)},
        {"groundTruth": np.array([[{"Segmentation": np.full((2, 3), 0.5)}]], object)},
        {"groundTruth": np.array([[{"Boundaries": np.zeros((2, 3), np.uint8)}]], object)},
    ],
)
def test_a_bad_file_fails_its_own_image_only(tree: Path, content: bytes | dict[str, object]) -> None:
    path = tree / "groundTruth" / "test" / "1001.mat"
    path.write_bytes(content) if isinstance(content, bytes) else savemat(path, content)
    bsds = opened(tree)
    with pytest.raises(ClippyError, match=r"1001\.mat: not a BSDS500 annotation"):
        bsds.read(0)
    assert bsds.read(1).key == "1002"


def test_a_cut_file_is_refused_wherever_it_is_cut(tree: Path) -> None:
    path = tree / "groundTruth" / "test" / "1001.mat"
    data = path.read_bytes()
    for size in range(0, len(data) - 1, 7):
        path.write_bytes(data[:size])
        with pytest.raises(ClippyError, match="not a BSDS500 annotation"):
            opened(tree).read(0)


def test_missing_files_and_sizes(tree: Path) -> None:
    (tree / "images" / "test" / "1001.jpg").unlink()
    savemat(
        tree / "groundTruth" / "test" / "1002.mat", {"groundTruth": np.array([[{"Segmentation": HALVES.T}]], object)}
    )
    bsds = opened(tree)
    with pytest.raises(ClippyError, match=r"1001\.jpg: no such file"):
        bsds.read(0)
    with pytest.raises(ClippyError, match="2x3 and 3x2 pixels"):
        bsds.read(1)
    for key in ("1001", "1002"):
        (tree / "groundTruth" / "test" / f"{key}.mat").unlink()
    with pytest.raises(ClippyError, match="no file fits groundTruth"):
        opened(tree)


def test_the_real_set(real_data: Path) -> None:
    bsds = open_bsds("bsds500", load_spec("bsds500-val"), real_data / "BSDS500")
    assert len(bsds) == 100
    for index in (0, 99):
        item = bsds.read(index)
        assert len(item.annotations) >= 4
        for regions in item.annotations:
            assert regions.shape == item.image.shape[:2]
            assert np.unique(regions).tolist() == list(range(regions.max() + 1))
