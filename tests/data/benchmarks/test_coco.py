"""COCO: panoptic annotation on a tiny tree, the values of the data files, and the real set where it is at hand."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from clippy_cli.data.benchmarks.catalogue import find_set, load_spec, open_set
from clippy_cli.data.benchmarks.coco import open_panoptic
from clippy_cli.errors import ClippyError
from tests.fixtures.annotated_trees import id_colours, write_panoptic, write_pixel_maps
from tests.fixtures.data import encoded, noise

BIG = 200 + 256 * 100 + 65536 * 7
IDS = np.array([[0, 5, 5], [BIG, BIG, 300]])
SEGMENTS = {5: 1, BIG: 184, 300: 90}  # person, tree-merged, toothbrush


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_panoptic(tmp_path, {"000001": IDS, "000002": IDS.T}, {"000001": SEGMENTS, "000002": SEGMENTS})


def annotation_png(tree: Path, key: str = "000001") -> Path:
    return tree / "annotations" / "panoptic_val2017" / f"{key}.png"


def change_json(tree: Path, document: object) -> None:
    (tree / "annotations" / "panoptic_val2017.json").write_text(json.dumps(document))


def test_every_pixel_takes_its_segments_category_and_void_does_not_count(tree: Path) -> None:
    coco = pickle.loads(pickle.dumps(open_panoptic("coco", load_spec("coco"), tree)))
    assert (coco.info.name, coco.kind, coco.info.complete, coco.background) == ("coco", "segmentation", 5000, None)
    assert [coco.key(index) for index in range(len(coco))] == ["000001", "000002"]
    names = [one.name for one in coco.classes]
    assert (len(names), names[0], names[79], names[80], names[132]) == (
        133,
        "person",
        "toothbrush",
        "banner",
        "rug-merged",
    )
    mask = coco.read(0).mask
    assert mask.dtype == np.uint8
    tree_class = names.index("tree-merged")
    np.testing.assert_array_equal(mask, [[255, 0, 0], [tree_class, tree_class, 79]])
    np.testing.assert_array_equal(coco.read(1).mask, mask.T)
    np.testing.assert_array_equal(coco.read(0).image.shape, (2, 3, 3))


def test_stuff_and_void_are_background_among_objects(tree: Path) -> None:
    objects = open_panoptic("coco-object", load_spec("coco-object-panoptic"), tree)
    np.testing.assert_array_equal(objects.read(0).mask, [[0, 1, 1], [0, 0, 80]])
    assert (objects.background, len(objects.classes)) == (0, 81)
    assert "tree" in objects.context


def test_photos_may_lie_in_a_folder_images(tmp_path: Path) -> None:
    root = write_panoptic(tmp_path, {"1": IDS}, {"1": SEGMENTS}, photos="images/val2017")
    assert open_panoptic("coco", load_spec("coco"), root).read(0).key == "1"


def test_a_segment_id_that_is_not_listed_fails_its_own_image_only(tree: Path) -> None:
    annotation_png(tree).write_bytes(encoded(id_colours(np.where(IDS == 300, 301, IDS))))
    coco = open_panoptic("coco", load_spec("coco"), tree)
    with pytest.raises(ClippyError, match=r"000001\.png: 1 of 6 pixels .* such as 301"):
        coco.read(0)
    assert coco.read(1).key == "000002"


def test_ids_between_and_above_the_listed_ones_are_unknown(tree: Path) -> None:
    for strange in (1, 6, (1 << 24) - 1):
        annotation_png(tree).write_bytes(encoded(id_colours(np.full((2, 3), strange))))
        with pytest.raises(ClippyError, match=f"6 of 6 pixels .* such as {strange}"):
            open_panoptic("coco", load_spec("coco"), tree).read(0)


@pytest.mark.parametrize("what", ["photo", "annotation"])
def test_a_missing_file_fails_its_own_image_and_all_missing_the_set(tree: Path, what: str) -> None:
    files = [
        tree / "val2017" / f"{key}.jpg" if what == "photo" else annotation_png(tree, key)
        for key in ("000001", "000002")
    ]
    files[0].unlink()
    coco = open_panoptic("coco", load_spec("coco"), tree)
    assert len(coco) == 2
    with pytest.raises(ClippyError, match=r"000001.* no such file"):
        coco.read(0)
    assert coco.read(1).key == "000002"
    files[1].unlink()
    with pytest.raises(ClippyError, match=f"none of 2 {what} files"):
        open_panoptic("coco", load_spec("coco"), tree)


def test_truncated_and_wrong_sized_annotation(tree: Path) -> None:
    coco = open_panoptic("coco", load_spec("coco"), tree)
    annotation_png(tree).write_bytes(encoded(noise(80, 60))[:-600])
    with pytest.raises(ClippyError, match="truncated"):
        coco.read(0)
    annotation_png(tree).write_bytes(encoded(id_colours(IDS.T)))
    with pytest.raises(ClippyError, match="2x3 and 3x2 pixels"):
        coco.read(0)


ANNOTATION = {"file_name": "000001.png", "segments_info": [{"id": 5, "category_id": 1}]}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "not COCO panoptic annotation"),
        ({"images": []}, "annotations: Field required"),
        ({"annotations": []}, "annotations"),
        ({"annotations": [{"bbox": [0, 0, 1, 1]}]}, r"annotations\.0\.file_name"),
        ({"annotations": [{**ANNOTATION, "segments_info": [{"id": 1 << 24, "category_id": 1}]}]}, "less than 16777216"),
        ({"annotations": [{**ANNOTATION, "segments_info": [{"id": 5, "category_id": 300}]}]}, "category 300"),
        (
            {"annotations": [{**ANNOTATION, "segments_info": [{"id": 5, "category_id": 1}] * 2}]},
            "two segments of one id",
        ),
        ({"annotations": [ANNOTATION, ANNOTATION]}, "annotated twice"),
    ],
)
def test_json_of_another_shape_is_refused(tree: Path, document: object, said: str) -> None:
    change_json(tree, document)
    with pytest.raises(ClippyError, match=said) as caught:
        open_panoptic("coco", load_spec("coco"), tree)
    assert "panoptic_val2017.json" in caught.value.message


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff\xfe"])
def test_a_file_that_is_no_json_is_refused(tree: Path, content: bytes) -> None:
    (tree / "annotations" / "panoptic_val2017.json").write_bytes(content)
    with pytest.raises(ClippyError, match="not COCO panoptic annotation"):
        open_panoptic("coco", load_spec("coco"), tree)


def test_names_in_the_json_cannot_lead_out_of_the_folder(tree: Path) -> None:
    change_json(tree, {"annotations": [{**ANNOTATION, "file_name": "../../../000001.png"}]})
    assert open_panoptic("coco", load_spec("coco"), tree).key(0) == "000001"


def test_no_word_is_asked_for_two_classes() -> None:
    for name in ("coco", "coco-object", "coco-object-panoptic", "coco-stuff", "coco-stuff27", "coco-stuff27-all"):
        spec = load_spec(name)
        words = Counter(word.casefold() for prompts in spec.classes.values() for word in prompts) + Counter(
            spec.context
        )
        assert max(words.values()) == 1, name


def test_object_and_stuff_values_are_those_of_the_pixel_maps() -> None:
    stuff, objects = load_spec("coco-stuff"), load_spec("coco-object")
    dropped = {11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90}  # street sign, hat, ..., hair brush
    values = [many[0] for many in stuff.values_of().values()]
    assert values == [value for value in range(182) if value not in dropped]
    panoptic = load_spec("coco").values_of()
    assert all(panoptic[name] == (value + 1,) for name, (value,) in stuff.values_of().items() if name in panoptic)
    assert objects.values_of() == {"background": (255, *range(91, 182))} | dict(list(stuff.values_of().items())[:80])


@pytest.mark.parametrize(
    ("root", "photos", "masks"),
    [
        ("coco", "val2017", "stuffthingmaps_trainval2017/val2017"),
        ("coco2017", "val2017", "stuffthingmaps/val2017"),
        ("coco_stuff164k", "images/val2017", "annotations/val2017"),
        ("cocostuff/dataset", "images/val2017", "annotations/val2017"),
    ],
)
def test_pixel_maps_are_found_and_read(tmp_path: Path, root: str, photos: str, masks: str) -> None:
    values = np.array([[0, 89, 255], [91, 181, 12]], np.uint8)  # person, toothbrush, none, banner, wood, stop sign
    folder = write_pixel_maps(tmp_path / root, {"1": values, "2": values}, photos, masks)
    expected = {
        "coco-stuff": [[0, 79, 255], [80, 170, 11]],
        "coco-object": [[1, 80, 0], [0, 0, 12]],
        "coco-stuff27": [[9, 4, 255], [17, 24, 8]],
    }
    for name, mask in expected.items():
        found = open_set(name, *find_set(name, tmp_path))
        assert (len(found), found.info.name, found.info.folder) == (2, name, folder)
        np.testing.assert_array_equal(found.read(0).mask, mask)
    listing = folder / "curated" / "val2017" / "Coco164kFull_Stuff_Coarse_7.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("2\n")
    found = open_set("coco-stuff27", *find_set("coco-stuff27", tmp_path))
    assert (len(found), found.key(0), found.info.complete) == (1, "2", 2175)


def test_each_of_the_171_classes_is_in_one_of_the_27() -> None:
    fine = {many[0]: stuff for stuff, many in load_spec("coco-stuff").values_of().items()}
    for name in ("coco-stuff27", "coco-stuff27-all"):
        coarse = load_spec(name)
        values = [value for many in coarse.values_of().values() for value in many]
        assert sorted(values) == sorted(fine)
        prompts = load_spec("coco-stuff").classes
        assert coarse.classes == {
            one: tuple(prompts[fine[value]][0] for value in many) for one, many in coarse.values_of().items()
        }
        # the first and last of things and of stuff in STEGO's and PiCIE's order
        order = list(coarse.classes)
        assert [order[index] for index in (0, 9, 11, 12, 22, 26)] == [
            "electronic",
            "person",
            "vehicle",
            "ceiling",
            "plant",
            "water",
        ]


def test_the_real_set(real_data: Path) -> None:
    coco = open_panoptic("coco", load_spec("coco"), real_data / "coco")
    listed = json.loads((real_data / "coco" / "annotations" / "panoptic_val2017.json").read_text())
    official = [(one["name"], (one["id"],)) for one in listed["categories"]]
    assert list(load_spec("coco").values_of().items()) == official
    assert len(coco) == len(listed["annotations"])
    for index in (0, 50):
        item = coco.read(index)
        areas = Counter[int]()
        for segment in listed["annotations"][index]["segments_info"]:
            areas[[number for _, (number,) in official].index(segment["category_id"])] += segment["area"]
        counts = np.bincount(item.mask.ravel(), minlength=256)[:133]
        assert {index: count for index, count in enumerate(counts.tolist()) if count} == dict(areas)
