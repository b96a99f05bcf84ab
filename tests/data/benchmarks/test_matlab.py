import struct
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from clippy_cli.data.benchmarks import matlab
from clippy_cli.errors import ClippyError


def read(path, name="x"):
    return matlab.read_variable(path, name, what="a test file", hint="none")


def element(kind, data):
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(kind, sides, name, *parts, flags=0):
    head = element(6, struct.pack("<II", kind | flags, 0)) + element(5, struct.pack(f"<{len(sides)}i", *sides))
    return element(14, head + element(1, name) + b"".join(parts))


def write(path, inner, *, compressed=True):
    body = element(15, zlib.compress(inner)) if compressed else inner
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49) + body)
    return path


@pytest.mark.parametrize("compressed", [True, False])
def test_what_scipy_writes_comes_back_as_scipy_reads_it(tmp_path, compressed):
    cell = np.empty((1, 2), object)
    cell[0, 0] = {"Segmentation": np.arange(6, dtype=np.uint16).reshape(2, 3), "name": "a"}
    cell[0, 1] = {"Segmentation": np.zeros((0, 0)), "name": ""}
    savemat(tmp_path / "a.mat", {"other": np.eye(3), "x": cell}, do_compression=compressed)
    ours, theirs = read(tmp_path / "a.mat"), loadmat(tmp_path / "a.mat")["x"]
    assert ours.shape == theirs.shape == (1, 2)
    for one, two in zip(ours.ravel(), theirs.ravel(), strict=True):
        np.testing.assert_array_equal(one["Segmentation"][0, 0], two["Segmentation"][0, 0])
        np.testing.assert_array_equal(one["name"][0, 0], two["name"][0, 0])


def test_a_file_is_not_unpacked_beyond_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(matlab, "MAX_UNPACKED", 1 << 20)
    sides = (1 << 10, 1 << 11)
    write(tmp_path / "bomb.mat", matrix(9, sides, b"x", element(2, bytes(1 << 21))))
    assert (tmp_path / "bomb.mat").stat().st_size < 10_000
    with pytest.raises(ClippyError, match="unpacks to more than 1 MiB"):
        read(tmp_path / "bomb.mat")


@pytest.mark.parametrize(
    ("inner", "says"),
    [
        (matrix(1, (30_000, 30_000), b"x"), "30000x30000 elements in 0 parts"),
        (matrix(4, (1, 1 << 30), b"x", element(4, b"")), "elements in 0 parts or bytes"),
        (matrix(9, (1 << 15, 1 << 15), b"x", element(2, b"abcd")), "elements in 4 parts or bytes"),
        (matrix(9, (-1, 4), b"x", element(2, b"abcd")), "-1x4"),
        (matrix(5, (1 << 30, 1 << 30), b"x"), "class 5"),
        (matrix(17, (1, 1), b"x"), "class 17"),
        (matrix(9, (2, 2), b"y", element(2, b"abcd")), "no variable x; it holds 'y'"),
        (matrix(9, (2, 2), b"x", element(8, b"abcd")), "class 9 with parts of types 6, 5, 1, 8"),  # crashes SciPy
        (matrix(9, (2, 2), b"x", element(200, b"abcd")), "class 9 with parts of types 6, 5, 1, 200"),  # the same
        (matrix(9, (2, 2), b"x", element(2, b"abcd"), flags=1 << 11), "complex"),  # and without an imaginary part
        (matrix(2, (1, 1), b"x", element(2, b"abcd"), element(1, b"name")), "class 2 with parts of types"),
        (element(14, b"abc"), "cut short"),
    ],
)
def test_a_matrix_with_more_elements_than_bytes_is_refused(tmp_path, inner, says):
    with pytest.raises(ClippyError, match=says):
        read(write(tmp_path / "a.mat", inner))
    with pytest.raises(ClippyError, match=says):
        read(write(tmp_path / "b.mat", inner, compressed=False))


def test_cells_in_cells_without_end_are_refused(tmp_path):
    inner = matrix(9, (1, 1), b"", element(2, b"a"))
    for _ in range(40):
        inner = matrix(1, (1, 1), b"x", inner)
    with pytest.raises(ClippyError, match="nested too deeply"):
        read(write(tmp_path / "a.mat", inner))
