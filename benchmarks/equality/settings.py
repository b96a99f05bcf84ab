"""What is run on both sides: photos, a grid of settings for masks and figures, and which differences are announced."""

from __future__ import annotations

import fnmatch
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# Settings that may differ, by name, and why. All others must be bit-equal.
RENAMED = "jaccard_best is called average_best_overlap, and is the same figure"
EXACT = "protocol sclip is SCLIP's code: words, exact sizes, bilinear resizing, windows averaged at pixels, positions"
COARSE = "the guided filter fits its coefficients on a coarse grid: about 0.1 % of the pixels change"
SCORES = "mean scores are summed in another order, and may differ in their sixth digit"
ANNOUNCED: dict[str, str] = {
    "figures: *--refine guided, *": COARSE,
    "segment: --refine guided": COARSE,
    "segment: background words, all files": COARSE,
    "segment: background words, --threshold 0.3": COARSE,
    "segment: one label, --threshold 0.2": COARSE,
    "segment: --scales *": COARSE,
    "segment: windows, scales*": COARSE,
    "segment: --regions*": COARSE,
    "segment: --batch-size 1, odd photos": COARSE,
    "segment: *--refine none": SCORES,
    "segment: *--refine pamr": SCORES,
    "segment: 18 labels, *": SCORES,
    "segment: --resolution 336, windows": SCORES,
    "figures: --protocol sclip, *": EXACT,
    "figures: defaults": RENAMED,
    "figures: --task segment,group,cluster": RENAMED,
    "figures: kmeans, plain patches": RENAMED,
}

LABELS = "person|man|woman,car|bus|truck,dog|cat,tree,road|street,raccoon"
BACKGROUND = "sky|clouds,building|house,grass"
MANY = (
    "aeroplane,bicycle,bird,boat,bottle,chair,cow,table,horse,motorbike,plant,sheep,sofa,train,monitor,pole,fence,sign"
)
MASK_SETS = ["voc20", "voc", "camvid", "coco"]
SAMPLE = "clippy_cli/assets/samples/raccoon.jpg"


@dataclass(frozen=True)
class Setting:
    """One command: ``clippy ARGUMENTS --out FOLDER --json`` in a side's work folder."""

    name: str
    arguments: tuple[str, ...]

    @property
    def folder(self) -> str:
        return "".join(character if character.isalnum() else "-" for character in self.name)

    @property
    def announced(self) -> str:
        return announced(self.name)


def announced(name: str) -> str:
    """Why the setting may differ; empty where it must not."""
    return next((reason for pattern, reason in ANNOUNCED.items() if fnmatch.fnmatchcase(name, pattern)), "")


def prepare_photos(folder: Path, sample: Path, data_root: Path, count: int) -> None:
    """Fill ``photos``, ``odd`` (other color modes, turned by EXIF, narrow) and ``regions`` of both and of VOC."""
    photos, odd, regions = (folder / name for name in ("photos", "odd", "regions"))
    for path in (photos, odd, regions):
        path.mkdir(parents=True)
    voc, camvid = data_root / "VOCdevkit" / "VOC2012" / "JPEGImages", data_root / "CamVid" / "val"
    for path in [sample, *sorted(voc.glob("*.jpg"))[:count], *sorted(camvid.glob("*.jpg"))[:count]]:
        (photos / path.name).write_bytes(path.read_bytes())
    with Image.open(sample) as image:
        small = image.convert("RGB").resize((320, 240))
    small.convert("L").save(odd / "gray.png")
    small.convert("RGBA").save(odd / "alpha.png")
    small.resize((37, 211)).save(odd / "narrow.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    small.save(odd / "turned.jpg", exif=turned)
    for path in [*photos.iterdir(), *odd.iterdir(), *sorted(voc.glob("*.jpg"))]:
        with Image.open(path) as image:
            width, height = ImageOps.exif_transpose(image).size
        Image.fromarray(_cells(height, width)).save(regions / f"{path.stem}.png")


def mask_settings() -> list[Setting]:
    """Settings of segment, group and classify."""
    refinements = ["none", "guided", "pamr", *(["crf"] if importlib.util.find_spec("pydensecrf") else [])]
    views = ["--window", "224", "--stride", "112", "--scales", "1,1.5", "--flip"]
    everything = ["--save", "overlay,mask,json,cutouts,scores"]
    background = ["--background", BACKGROUND]
    return [
        *(_segment(f"--refine {method}", "--refine", method) for method in refinements),
        _segment("background words, all files", *background, *everything),
        _segment("background words, --refine none", *background, "--refine", "none"),
        _segment("background words, --threshold 0.3", *background, "--threshold", "0.3"),
        _segment("--threshold 0.3 --refine pamr", "--threshold", "0.3", "--refine", "pamr"),
        _segment("one label, --threshold 0.2", "--threshold", "0.2", labels="tree|bush"),
        _segment("18 labels, --templates openai", "--templates", "openai", "--refine", "none", labels=MANY),
        _segment("--resolution 336, windows", "--resolution", "336", *views[:4], "--refine", "none"),
        _segment("--scales 1,1.5 --flip", *views[4:]),
        _segment("windows, scales, flip, threshold", *views, *background, "--threshold", "0.2"),
        _segment("--regions", "--regions", "../regions", *everything),
        _segment("--regions, background, threshold", "--regions", "../regions", *background, "--threshold", "0.3"),
        _segment("--batch-size 1, odd photos", "--batch-size", "1", *everything, photos="../odd"),
        _segment("--dense naclip", "--dense", "naclip", "--refine", "none"),
        Setting("group: pca", ("group", "../photos")),
        Setting("group: kmeans, 5", ("group", "../photos", "../odd", "--method", "kmeans", "--groups", "5")),
        Setting("group: spectral, 4", ("group", "../photos", "--method", "spectral", "--groups", "4")),
        Setting("classify", ("classify", "../photos", "../odd", "--labels", LABELS)),
        Setting("classify: 18 labels", ("classify", "../photos", "--labels", MANY, "--templates", "openai")),
    ]


def figure_settings(data_root: Path, limit: int) -> list[Setting]:
    """Settings of evaluate. The costly ones see fewer images."""
    few, fewer = max(2, limit // 2), max(2, limit // 4)
    captions = str(data_root.resolve() / "flickr8k" / "dev-00000.tar")

    def evaluate(name: str, sets: Sequence[str], count: int, *arguments: str) -> Setting:
        return Setting(f"figures: {name}", ("evaluate", *sets, "--limit", str(count), *arguments))

    def each(name: str, count: int, *arguments: str) -> list[Setting]:
        return [evaluate(f"{name}, {of}", [of], count, *masks, *arguments) for of in MASK_SETS]

    masks = ["--task", "segment"]
    guided, both = ["--refine", "guided"], ["--background", "words+0.1"]
    return [
        evaluate("defaults", [*MASK_SETS, "bsds500"], limit),
        evaluate("imagenet, retrieval", ["imagenet", captions], 4 * limit),
        *each("--background 0.4", limit, "--background", "0.4"),
        *each("--background words+0.1", limit, *both),
        *each("--refine guided", few, *guided),
        *each("--refine pamr", fewer, "--refine", "pamr"),
        *each("--background words+0.1 --refine guided", few, *both, *guided),
        *each("--protocol sclip", fewer, "--protocol", "sclip"),
        evaluate("--protocol tcl", ["voc", "coco"], fewer, *masks, "--protocol", "tcl"),
        evaluate("windows", MASK_SETS, few, *masks, "--resolution", "336", "--window", "224", "--stride", "112"),
        evaluate("--scales 1,1.5 --flip", MASK_SETS, few, *masks, "--scales", "1,1.5", "--flip"),
        evaluate("--task segment,group,cluster", MASK_SETS, few, "--task", "segment,group,cluster"),
        evaluate("kmeans, plain patches", ["voc20"], few, "--method", "kmeans", "--patches", "plain"),
        evaluate("--regions", ["voc20", "voc"], limit, *masks, "--regions", "../regions"),
        evaluate("centred patches", ["scenes", "camvid"], few, *masks, "--patches", "centred"),
    ]


def _segment(name: str, *arguments: str, labels: str = LABELS, photos: str = "../photos") -> Setting:
    save = () if "--save" in arguments else ("--save", "mask,json,scores")
    return Setting(f"segment: {name}", ("segment", photos, "--labels", labels, *save, *arguments))


def _cells(height: int, width: int, count: int = 40) -> np.ndarray:
    """Region numbers (H,W) uint8 from 0 to ``count``: the nearest of random points; 0 belongs to none."""
    points = np.random.default_rng(0).random((count + 1, 2)) * (height, width)
    rows, columns = np.ogrid[:height, :width]
    nearest, distance = np.zeros((height, width), np.uint8), np.full((height, width), np.inf)
    for number, (y, x) in enumerate(points):
        to = (rows - y) ** 2 + (columns - x) ** 2
        nearest[to < distance] = number
        distance = np.minimum(distance, to)
    return nearest


def names_without_setting(settings: Sequence[str]) -> Iterator[str]:
    """Announced names that match none of ``settings``: a slip of the pen, or a setting that is gone."""
    return (pattern for pattern in ANNOUNCED if not fnmatch.filter(settings, pattern))
