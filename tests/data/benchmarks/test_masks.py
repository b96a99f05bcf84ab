"""Sets of photos with mask images, each in its official layout, and masks that are not what they should be."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clippy_cli.data.benchmarks import open_benchmark
from clippy_cli.data.benchmarks.base import IGNORE
from clippy_cli.data.benchmarks.listings import parse_listing
from clippy_cli.data.benchmarks.masks import open_masks, read_values
from clippy_cli.data.benchmarks.patterns import fill, find_keys
from clippy_cli.data.benchmarks.spec import SetSpec
from clippy_cli.data.labels import Label, Vocabulary
from clippy_cli.errors import ClippyError
from tests.fixtures.benchmark_trees import LAYOUTS, voc_palette, write_photo, write_set
from tests.fixtures.data import encoded, noise

# Set: number of classes; every value of its masks; the class, or None for ignored, of some values.
VALUES: dict[str, tuple[int, list[int], dict[int, str | None]]] = {
    "voc": (21, [*range(21), 255], {0: "background", 1: "aeroplane", 15: "person", 20: "tv monitor", 255: None}),
    "voc20": (20, [*range(21), 255], {0: None, 1: "aeroplane", 15: "person", 20: "tv monitor", 255: None}),
    "context60": (60, [*range(60), 255], {0: "background", 1: "aeroplane", 2: "bag", 55: "tvmonitor", 59: "wood"}),
    "context59": (59, [*range(60), 255], {0: None, 1: "aeroplane", 2: "bag", 55: "tvmonitor", 59: "wood"}),
    "ade20k": (150, [*range(151)], {0: None, 1: "wall", 4: "floor", 13: "person", 90: "television"}),
    "cityscapes": (
        19, [*range(34), 255], {6: None, 7: "road", 9: None, 11: "building", 18: None, 24: "person", 33: "bicycle"},
    ),
    "cityscapes27": (
        27, [*range(34), 255], {6: None, 7: "road", 9: "parking", 18: "polegroup", 24: "person", 33: "bicycle"},
    ),
    "camvid": (11, [*range(12)], {0: "sky", 3: "road", 8: "car", 10: "bicyclist", 11: None}),
}  # fmt: skip
NATURAL = {"dining table": "table", "pottedplant": "potted plant", "polegroup": "pole group", "signsymbol": "sign"}


@pytest.mark.parametrize("name", VALUES)
def test_official_layouts(tmp_path: Path, name: str) -> None:
    count, values, anchors = VALUES[name]
    mask = np.array([values, values[::-1]], np.uint8)
    keys = ["b/b_1", "a/a_2"] if name.startswith("city") else ["2_b", "1_a"]
    folder = write_set(tmp_path, name, {keys[0]: mask, keys[1]: mask[::-1].copy()})
    benchmark = open_benchmark(name, tmp_path)
    assert [benchmark.key(index) for index in range(len(benchmark))] == (keys if LAYOUTS[name][3] else sorted(keys))
    assert (benchmark.info.name, benchmark.kind, benchmark.info.folder) == (name, "segmentation", folder)
    item = benchmark.read([benchmark.key(0), benchmark.key(1)].index(keys[0]))
    assert item.key == keys[0]
    assert (item.mask.dtype, item.mask.shape, item.image.shape) == (np.uint8, mask.shape, (*mask.shape, 3))
    indices = item.mask[0].tolist()
    assert item.mask[1].tolist() == indices[::-1]
    assert [index for index in indices if index != IGNORE] == list(range(count))  # every class, in the masks' order
    names = [entry.name for entry in benchmark.classes]
    assert {value: None if (i := indices[values.index(value)]) == IGNORE else names[i] for value in anchors} == anchors
    assert benchmark.background == ({"voc": 0, "context60": 0}.get(name))


@pytest.mark.parametrize("name", VALUES)
def test_prompts_are_natural_and_different_words(name: str, tmp_path: Path) -> None:
    write_set(tmp_path, name, {"a": np.full((2, 2), VALUES[name][1][1], np.uint8)})
    benchmark = open_benchmark(name, tmp_path)
    prompts = {entry.name: entry.prompts for entry in benchmark.classes}
    assert all(prompts.get(odd, (natural,)) == (natural,) for odd, natural in NATURAL.items())
    labels = tuple(Label(entry.name, entry.prompts) for entry in benchmark.classes)
    vocabulary = Vocabulary(labels, tuple(Label(word, (word,)) for word in benchmark.context))
    assert len(vocabulary.texts) == len(benchmark.classes) + (39 if name == "voc" else 0)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return write_set(tmp_path, "voc", {"0": MASK, "1": MASK.T.copy()})


MASK = np.array([[0, 1, 20], [255, 0, 15]], np.uint8)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (encoded(noise(2, 3)), "this one is RGB"),
        (encoded(Image.fromarray(MASK + 25)), r"mask value 24, 25, 26, 40, 45 is neither"),
        (encoded(Image.fromarray(MASK[:1])), r"differ in size \(3x1 and 3x2 pixels\)"),
        (encoded(Image.fromarray(MASK))[:50], "cannot be read as a mask"),
        (encoded(Image.fromarray(MASK), "JPEG"), "must be a PNG, TIFF, BMP file"),
        (encoded(Image.fromarray(MASK), "TIFF", compression="jpeg"), "compressed with loss"),
        (b"", "this one is not"),
    ],
)
def test_masks_that_are_no_class_indices_are_refused(voc: Path, content: bytes, problem: str) -> None:
    (voc / "SegmentationClass" / "0.png").write_bytes(content)
    benchmark = open_benchmark("voc", voc)
    with pytest.raises(ClippyError, match=rf"0\.png.*{problem}"):
        benchmark.read(0)
    assert benchmark.read(1).key == "1"


def test_a_sorted_palette_is_refused_and_greyscale_needs_none(voc: Path) -> None:
    image = Image.fromarray(MASK)
    path = voc / "SegmentationClass" / "0.png"
    path.write_bytes(encoded(image))
    np.testing.assert_array_equal(open_benchmark("voc", voc).read(0).mask, MASK)
    image.putpalette(voc_palette()[::-1])
    path.write_bytes(encoded(image))
    with pytest.raises(ClippyError, match="palette is not VOC's"):
        open_benchmark("voc", voc).read(0)


def test_missing_files_fail_alone_until_none_is_left(voc: Path) -> None:
    (voc / "SegmentationClass" / "1.png").unlink()
    (voc / "JPEGImages" / "unlisted.jpg").write_bytes(encoded(noise(), "JPEG"))
    benchmark = open_benchmark("voc", voc)
    assert len(benchmark) == 2
    assert benchmark.read(0).key == "0"
    with pytest.raises(ClippyError, match=r"1\.png: no such file, so this photo has no mask"):
        benchmark.read(1)
    (voc / "JPEGImages" / "0.jpg").unlink()
    with pytest.raises(ClippyError, match="none of 2 photos is there with its mask"):
        open_benchmark("voc", voc)
    (voc / "ImageSets/Segmentation/val.txt").write_text("0\n../../secret\n")
    with pytest.raises(ClippyError, match=r"val\.txt:2: '../../secret' does not name"):
        open_benchmark("voc", voc)


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_indices_of_few_bits_are_not_stretched(tmp_path: Path, mode: str, bits: int) -> None:
    values = np.arange(1 << bits, dtype=np.uint8)[None].repeat(2, axis=0)
    path = tmp_path / "m.png"
    if mode == "P":
        image = Image.fromarray(values)
        image.putpalette([7, 7, 7] * 256)
        image.save(path, bits=bits)
    else:
        path.write_bytes(grey_png(values, bits))
    np.testing.assert_array_equal(read_values(path), values)


def grey_png(values: np.ndarray, bits: int) -> bytes:
    """A greyscale PNG of 1, 2 or 4 bits a pixel, which Pillow reads but does not write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape
    high_first = np.unpackbits(values[..., None], axis=2)[..., -bits:].reshape(height, -1)  # (H,W,8) -> (H,W*bits)
    rows = b"".join(b"\0" + row.tobytes() for row in np.packbits(high_first, axis=1))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bits_and_values_by_class(tmp_path: Path) -> None:
    spec = SetSpec(
        title="t", images="{}.jpg", masks=("gone/{}.tif", "{}.png"), classes=["low", "high"],
        values={"low": [1, 2], "high": 40_000}, ignore=[0, 65_535],
    )  # fmt: skip
    mask = np.array([[0, 1, 2], [40_000, 65_535, 1]], np.uint16)
    write_photo(tmp_path / "a.jpg", 2, 3)
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(mask)))
    benchmark = open_masks("t", spec, tmp_path)
    assert benchmark.read(0).mask.tolist() == [[IGNORE, 0, 0], [1, IGNORE, 0]]
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(mask + 1)))
    with pytest.raises(ClippyError, match="mask value 3, 40001 is neither"):
        benchmark.read(0)


PART = st.text("ab1_", min_size=1, max_size=3)
KEYS = st.sets(st.lists(PART, min_size=1, max_size=3).map("/".join), min_size=1, max_size=5)


@settings(max_examples=30, deadline=None)
@given(KEYS, st.sampled_from(["", "x/", "x/y-", "p-"]), st.sampled_from([".png", "_m.png", "/m.png"]))
def test_a_pattern_finds_the_keys_that_it_was_filled_with(keys: set[str], before: str, after: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "set"
        pattern = before + "{}" + after
        for key in keys:
            path = folder / fill(pattern, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            path.with_name("._" + path.name).touch()
            path.with_name(path.name + ".txt").touch()
        found = list(find_keys(folder, pattern))
    assert sorted(found) == sorted(keys)


@given(st.lists(st.text(st.sampled_from("ab/.\\ \t\0"), max_size=6), max_size=5).map("\n".join))
def test_a_listing_gives_names_inside_the_folder_or_an_error(text: str) -> None:
    try:
        keys = parse_listing(text, where="list")
    except ClippyError as error:
        assert error.message.startswith("list:")
        return
    assert list(keys) == [line.split()[0] for line in text.splitlines() if line.strip()]
    assert len(set(keys)) == len(keys)
    folder = Path("/data/set")
    assert all((folder / key).resolve().is_relative_to(folder) and (folder / key) != folder for key in keys)


@pytest.mark.parametrize(
    ("name", "first"), [("voc", "background"), ("voc20", None), ("camvid", "sky"), ("ade20k", "wall")]
)
def test_the_real_sets(real_data: Path, name: str, first: str | None) -> None:
    benchmark = open_benchmark(name, real_data)
    item = benchmark.read(0)
    assert item.mask.shape == item.image.shape[:2]
    present = {benchmark.classes[index].name for index in np.unique(item.mask) if index != IGNORE}
    assert present
    assert first is None or first in present
    assert benchmark.info.complete is not None
    assert len(benchmark) < benchmark.info.complete
    if name == "ade20k":  # the first sample: a street with its sky and trees; value 0 does not count
        assert present == {"wall", "building", "sky", "tree", "road", "grass", "plant"}
        raw = np.array(Image.open(benchmark.info.folder / f"annotations/ADE_val_{item.key}.png"))
        np.testing.assert_array_equal(item.mask == IGNORE, raw == 0)
        np.testing.assert_array_equal(item.mask[raw > 0], raw[raw > 0] - 1)
