"""PASCAL-Context in its authors' release, against the class numbers that converters of the literature list."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from clippy_cli.data.benchmarks import open_benchmark
from clippy_cli.data.benchmarks.base import IGNORE
from clippy_cli.data.benchmarks.catalogue import load_spec
from clippy_cli.errors import ClippyError
from tests.fixtures.benchmark_trees import write_context_mat

# Numbers among the 459 of the 59 classes, by the alphabet of their names.
NUMBERS = (
    *(2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158, 159),
    *(162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368),
    *(397, 415, 416, 420, 424, 427, 440, 445, 454, 458),
)


def names() -> dict[int, str]:
    known = dict(zip(NUMBERS, load_spec("context59").classes, strict=True))
    return {number: known.get(number, f"thing {number}") for number in range(1, 460)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    everything = np.arange(460, dtype=np.uint16).reshape(20, 23)
    return write_context_mat(tmp_path, names(), {"2008_000002": everything, "2008_000003": everything[:5]})


def test_classes_are_found_by_name(folder: Path) -> None:
    for name, first, other in (("context59", 0, IGNORE), ("context60", 1, 0)):
        benchmark = open_benchmark(name, folder.parent)
        expected = np.full(460, other)
        expected[list(NUMBERS)] = np.arange(59) + first
        np.testing.assert_array_equal(benchmark.read(0).mask.ravel(), expected)
        assert "459-class release" in benchmark.info.annotation
        assert list(load_spec(name).classes) == [entry.name for entry in benchmark.classes]


def test_what_is_no_label_map_is_refused(folder: Path) -> None:
    from scipy.io import savemat

    benchmark = open_benchmark("context59", folder)
    path = folder / "trainval/2008_000002.mat"
    for matrices, problem in (
        ({"LabelMap": np.full((20, 23), 460, np.uint16)}, "mask value 460 is neither"),
        ({"LabelMap": np.full((20, 23), 2.5)}, "holds float64, not class numbers"),
        ({"LabelMap": np.zeros((2, 2), np.uint16)}, "differ in size"),
        ({"other": np.zeros((2, 2))}, "no variable LabelMap; it holds 'other'"),
    ):
        savemat(path, matrices)
        with pytest.raises(ClippyError, match=problem):
            benchmark.read(0)
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(ClippyError, match="not a label map"):
        benchmark.read(0)
    path.unlink()
    with pytest.raises(ClippyError, match="no such file"):
        benchmark.read(0)
    assert benchmark.read(1).key == "2008_000003"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1: aeroplane\n2: diningtable\n", "has no class bag, bed, .* among its 2 classes"),
        ("aeroplane\n", "labels.txt:1: 'aeroplane' is no `number: name`"),
        ("70000: aeroplane\n", "is no `number: name`"),
    ],
)
def test_a_list_of_other_names_is_refused(folder: Path, text: str, problem: str) -> None:
    (folder / "labels.txt").write_text(text)
    with pytest.raises(ClippyError, match=problem):
        open_benchmark("context60", folder)
