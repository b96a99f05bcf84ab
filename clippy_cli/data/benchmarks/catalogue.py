"""Which sets there are, where each lies below a data folder, and how to get what is missing."""

from __future__ import annotations

import difflib
import logging
import re
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import yaml

from clippy_cli.checked_yaml import load_checked
from clippy_cli.data.benchmarks.base import ExifRule, ImageSet, Kind
from clippy_cli.data.benchmarks.bsds import open_bsds
from clippy_cli.data.benchmarks.class_folders import open_class_folders
from clippy_cli.data.benchmarks.coco import open_panoptic
from clippy_cli.data.benchmarks.context_mat import open_context
from clippy_cli.data.benchmarks.masks import open_masks
from clippy_cli.data.benchmarks.patterns import find_keys
from clippy_cli.data.benchmarks.scenes import SceneBenchmark
from clippy_cli.data.benchmarks.spec import Reader, SetSpec
from clippy_cli.errors import ClippyError
from clippy_cli.locks import hold_folder
from clippy_cli.regular_files import is_file, is_folder

SETS = Path(str(resources.files("clippy_cli.data.benchmarks") / "sets"))
SCENES = "scenes"
DOWNLOADED_VOC = ("voc", "voc20", "voc-train")  # torchvision fetches no other set that is measured here
_READERS: dict[Reader, tuple[Kind, Callable[[str, SetSpec, Path], ImageSet]]] = {
    "masks": ("segmentation", open_masks),
    "context-mat": ("segmentation", open_context),
    "coco-panoptic": ("segmentation", open_panoptic),
    "bsds": ("boundaries", open_bsds),
    "class-folders": ("classification", open_class_folders),
}
_VOCABULARY_SIZES = {None: 0, "imagenet": 1000}
_log = logging.getLogger(__name__)
_IMAGENET_FOLDER = re.compile(r"n\d{8}|\d{1,3}")


@dataclass(frozen=True)
class SetStatus:
    """A set as ``clippy sets`` shows it.

    Attributes:
        classes: how many; 0 where annotation has no names.
        images: how many were found; None where the set is missing or cannot be opened.
        folder: where it was found; None where it is missing or generated.
        looked_for: the folders that were tried.
        downloadable: whether :func:`download` has it.
        problem: why it cannot be opened, where it was found but cannot.
    """

    name: str
    title: str
    kind: Kind
    classes: int
    images: int | None
    folder: Path | None
    looked_for: tuple[Path, ...]
    downloadable: bool
    problem: str = ""


def benchmark_names() -> tuple[str, ...]:
    """Every name that the command line knows: segmentation first, then boundaries, then classification."""
    specs = _data_files()
    named = specs.keys() - {spec.fallback for spec in specs.values()}
    kinds = list(dict.fromkeys(kind for kind, _ in _READERS.values()))
    order = {name: kinds.index(_READERS[specs[name].reader][0]) for name in named} | {SCENES: 0}
    return tuple(sorted(order, key=lambda name: (order[name], name)))


def load_spec(name: str) -> SetSpec:
    """The data file of a set; ClippyError on a name that has none."""
    if name not in _data_files():
        raise unknown_error(name)
    return _data_files()[name]


def layouts(name: str) -> tuple[SetSpec, ...]:
    """The set's data file and those of its fallbacks, in the order in which they are tried."""
    specs = [load_spec(name)]
    while (fallback := specs[-1].fallback) is not None:
        specs.append(load_spec(fallback))
    return tuple(specs)


def places(spec: SetSpec, root: Path) -> tuple[Path, ...]:
    """The folders where a set may lie: ``spec.roots`` below ``root``, also where ``root`` is on the way there.

    For VOCdevkit/VOC2012 these are root/VOCdevkit/VOC2012, root/VOC2012 where ``root`` is called VOCdevkit,
    and ``root`` where it is called VOC2012 and lies in VOCdevkit.
    """
    here = root.absolute().parts
    tried: list[Path] = []
    for text in spec.roots:
        way = Path(text).parts
        passed = (depth for depth in range(len(way) + 1) if depth == 0 or here[-depth:] == way[:depth])
        tried += [root.joinpath(*way[depth:]) for depth in passed]
    return tuple(dict.fromkeys(tried))


def locate(spec: SetSpec, root: Path) -> Path | None:
    """The first of :func:`places` that has a photo and the set's other files; None where there is none."""
    return next((folder for folder in places(spec, root) if _is_there(spec, folder)), None)


def find_set(name: str, root: Path) -> tuple[SetSpec, Path]:
    """The layout of a set that is found below ``root``, and its folder; ClippyError where none is."""
    for spec in layouts(name):
        folder = locate(spec, root)
        if folder is not None:
            return spec, folder
    raise missing_error(name, load_spec(name), root)


def open_set(name: str, spec: SetSpec, folder: Path, exif: ExifRule | None = None) -> ImageSet:
    """The set that ``spec`` describes, in ``folder``, by the reader that ``spec`` names; ``exif`` replaces its own."""
    _, reader = _READERS[spec.reader]
    if exif is not None:
        spec = spec.model_copy(update={"exif": exif})
    opened = reader(name, spec, folder)
    _log.info("set %s: %d images below %s", name, len(opened), folder)
    return opened


def open_scenes() -> SceneBenchmark:
    """The generated set, which needs no data folder."""
    return SceneBenchmark(count=200, resolution=64)


def open_own_set(path: Path, exif: ExifRule | None = None) -> ImageSet:
    """Your own set, from a YAML file with the fields of :class:`SetSpec`; its paths begin at the file's folder.

    The file's stem is the set's name. A greenhouse, with masks of 0 leaf, 1 tomato, 2 everything else::

        title: Our greenhouse, test plants
        images: photos/{}.jpg
        masks: labels/{}.png
        classes:
          leaf: [leaf, foliage]
          tomato:
          background:
        background: background
        context: [soil, wall, sky]
        ignore: 255

    ClippyError lists everything that is wrong in the file, or says what was looked for.
    """
    spec = load_checked(path, SetSpec, what="data set")
    if spec.fallback is not None:
        raise ClippyError(f"{path}: fallback is for sets that ship with clippy", "Give several folders under roots.")
    folder = locate(spec, path.parent)
    if folder is None:
        files = [text for text in (*spec.images, *spec.masks, spec.listing) if text]
        raise ClippyError(
            f"{path}: its files are not there; looked for {', '.join(files) or 'class folders'} "
            f"in {_listed(places(spec, path.parent))}",
            "Paths in the file begin at the file's own folder; {} stands for an image's name.",
        )
    return open_set(path.stem, spec, folder, exif)


def describe_all(root: Path | None) -> list[SetStatus]:
    """The state of every set below ``root``; without ``root`` all but generated ones are missing."""
    return [_scenes_status() if name == SCENES else _status(name, root) for name in benchmark_names()]


def missing_error(name: str, spec: SetSpec, root: Path) -> ClippyError:
    """The error for a set that is not below ``root``: what was expected, looked for and found there."""
    tried = dict.fromkeys(place for layout in layouts(name) for place in places(layout, root))
    there = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    tree = "".join(f"\n  {line}" for line in spec.tree.splitlines())
    fetch = f" Or run clippy sets {name} --download --data-root {root}." if name in DOWNLOADED_VOC else ""
    return ClippyError(
        f"{name} ({spec.title}) is not below {root}. Expected there:{tree}\n"
        f"Looked in {_listed(tuple(tried))}; {root} holds {', '.join(there[:8]) or 'nothing'}"
        f"{', ...' if len(there) > 8 else ''}",
        f"Get it at {spec.home}.{fetch}",
    )


def unknown_error(name: str) -> ClippyError:
    """The error for a name that no set has, with the closest one."""
    close = difflib.get_close_matches(name.lower(), benchmark_names(), n=1)
    meant = f"; did you mean {close[0]!r}?" if close else ""
    return ClippyError(
        f"No benchmark is called {name!r}{meant}",
        f"Choose among {', '.join(benchmark_names())}; or name a YAML file, a folder of class folders, or tar shards.",
    )


def download(name: str, root: Path) -> Path:
    """Fetch a set into its official place below ``root`` with torchvision, and return that place.

    It is unpacked beside it and moved when complete. ClippyError where torchvision has no downloader for the set, the
    place is taken, or the network or the disk fails.
    """
    spec = load_spec(name)
    if name not in DOWNLOADED_VOC:
        raise ClippyError(f"{name} ({spec.title}) has no downloader", f"Get it at {spec.home}.")
    place = root / "VOCdevkit" / "VOC2012"
    if _is_there(spec, place):
        return place
    if place.exists():
        raise ClippyError(f"{place}: is there, but without the files of {spec.title}", "Move it away, and try again.")
    from torchvision.datasets import VOCSegmentation

    unpacked = root / ".clippy-download"
    try:
        with hold_folder(unpacked, "clippy sets --download"):
            if _is_there(spec, place):  # another process had it
                return place
            VOCSegmentation(str(unpacked), year="2012", image_set="val", download=True)
            place.parent.mkdir(exist_ok=True)
            (unpacked / "VOCdevkit" / "VOC2012").replace(place)
    except (OSError, RuntimeError, HTTPException, tarfile.TarError, EOFError) as error:
        raise ClippyError(
            f"{spec.title} could not be fetched into {root}: {error}",
            f"Check the network and the disk (4 GB), and try again; or get it at {spec.home}.",
        ) from error
    shutil.rmtree(unpacked, ignore_errors=True)
    return place


@cache
def _data_files() -> Mapping[str, SetSpec]:
    """Every data file by its stem, fallbacks too."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return MappingProxyType(
        {
            path.stem: SetSpec.model_validate(yaml.load(path.read_text(encoding="utf-8"), loader)).as_catalogued()
            for path in sorted(SETS.glob("*.yaml"))
        }
    )


def _is_there(spec: SetSpec, folder: Path) -> bool:
    if not is_folder(folder) or (spec.listing is not None and not is_file(folder / spec.listing)):
        return False
    starts = [folder / pattern.partition("{}")[0].rpartition("/")[0] for pattern in spec.masks]
    if starts and not any(map(is_folder, starts)):
        return False
    if spec.images:
        return any(next(find_keys(folder, pattern), None) is not None for pattern in spec.images)
    folders = (path.name for path in folder.iterdir() if path.is_dir())
    return any(spec.vocabulary is None or _IMAGENET_FOLDER.fullmatch(name) for name in folders)


def _status(name: str, root: Path | None) -> SetStatus:
    spec, folder, images, problem = load_spec(name), None, None, ""
    looked: tuple[Path, ...] = ()
    if root is not None:
        looked = tuple(dict.fromkeys(place for layout in layouts(name) for place in places(layout, root)))
        found = ((layout, locate(layout, root)) for layout in layouts(name))
        spec, folder = next(((layout, place) for layout, place in found if place is not None), (spec, None))
    if folder is not None:
        try:
            images = len(open_set(name, spec, folder))
        except ClippyError as error:
            problem = error.message
    kind, classes = _READERS[spec.reader][0], len(spec.classes) or _VOCABULARY_SIZES[spec.vocabulary]
    return SetStatus(name, spec.title, kind, classes, images, folder, looked, name in DOWNLOADED_VOC, problem)


def _scenes_status() -> SetStatus:
    scenes = open_scenes()
    return SetStatus(SCENES, scenes.info.title, "segmentation", len(scenes.classes), len(scenes), None, (), False)


def _listed(paths: tuple[Path, ...]) -> str:
    return ", ".join(map(str, paths))
