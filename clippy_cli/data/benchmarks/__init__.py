"""Annotated image sets to measure on, each kind with one face; see ``base.py``."""

from __future__ import annotations

from pathlib import Path

from clippy_cli.data.benchmarks.base import ExifRule, ImageSet, Reading, data_root
from clippy_cli.errors import ClippyError
from clippy_cli.regular_files import is_folder


def open_benchmark(name_or_path: str, root: Path | None, reading: Reading | None = None) -> ImageSet:
    """A set by its name in the catalogue, looked for in ``root`` or where CLIPPY_DATA points; or by path.

    A path is a YAML file (see :func:`~clippy_cli.data.benchmarks.catalogue.open_own_set`), a folder of class folders,
    or captioned tar shards. ClippyError on an unknown name or a set that is not there; and, where ``reading`` is
    strict, where anything beside it would be skipped or is used under an assumption.
    """
    reading = reading or Reading()
    opened = _open(name_or_path, root, reading.exif)
    if reading.strict:
        opened.notices.refuse(f"The set {opened.info.name}")
    return opened


def _open(name_or_path: str, root: Path | None, exif: ExifRule | None) -> ImageSet:
    from clippy_cli.data.benchmarks import catalogue

    if name_or_path == catalogue.SCENES:
        return catalogue.open_scenes()
    if name_or_path in catalogue.benchmark_names():
        spec, folder = catalogue.find_set(name_or_path, data_root(root))
        return catalogue.open_set(name_or_path, spec, folder, exif)
    path = Path(name_or_path).expanduser()
    if path.suffix in (".yaml", ".yml"):
        return catalogue.open_own_set(path, exif)
    if ".tar" in name_or_path or (is_folder(path) and any(path.glob("*.tar"))):
        from clippy_cli.data.benchmarks.captioned import open_captioned

        return open_captioned(name_or_path)
    if is_folder(path):
        from clippy_cli.data.benchmarks.class_folders import open_class_folders

        return open_class_folders(path.resolve().name, None, path)
    if len(path.parts) > 1:
        raise ClippyError(f"{path}: no such file or folder", "Name a YAML file, a folder of class folders, or shards.")
    raise catalogue.unknown_error(name_or_path)
