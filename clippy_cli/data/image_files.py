"""What lies in folders of photos: images that are read, those that are not, and what operating systems leave there."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path, PurePath

from clippy_cli.errors import ClippyError
from clippy_cli.extras import install_command
from clippy_cli.notices import Notices
from clippy_cli.regular_files import open_regular

HEIC_SUFFIXES = (".heic", ".heif")
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif"}
) | frozenset(HEIC_SUFFIXES if find_spec("pillow_heif") else ())
LOOKED_FOR = f"Looked for {', '.join(sorted(IMAGE_SUFFIXES))}."
SYSTEM_FOLDERS = frozenset(
    {
        "__macosx", "@eadir", "lost+found", ".ipynb_checkpoints", "__pycache__", "$recycle.bin", "recycler",
        "system volume information", "#recycle", "#snapshot", ".appledouble", ".spotlight-v100", ".fseventsd",
        "found.000", "thumbs", ".thumbnails", ".git",
    }
)  # fmt: skip
_RAW = (
    ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".orf", ".rw2", ".raf", ".pef", ".srw",
    ".x3f", ".3fr", ".iiq",
)  # fmt: skip
_VIDEO = (
    ".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".3gp", ".mts", ".m2ts", ".flv",
)  # fmt: skip
_OTHER_IMAGES = (
    ".jxl", ".jp2", ".j2k", ".jpx", ".jpf", ".psd", ".psb", ".svg", ".svgz", ".eps", ".ai", ".exr", ".hdr", ".tga",
    ".dds", ".ico", ".icns", ".pcx", ".xcf", ".jpe", ".pnm", ".pbm", ".qoi", ".dcm", ".nii", ".jxr", ".wdp", ".fits",
    ".apng", ".sgi", ".rgb", ".ras", ".avifs", ".hif", ".mpo", ".insp", ".emf", ".wmf",
)  # fmt: skip
_log = logging.getLogger(__name__)
_SAVE = "Save them as JPEG or PNG."
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
_NO_IMAGES = frozenset(
    {
        ".txt", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".md", ".html", ".htm", ".css", ".js",
        ".py", ".ipynb", ".log", ".ini", ".db", ".aae", ".xmp", ".thm", ".url", ".lnk", ".npy", ".npz", ".mat", ".pdf",
        ".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".sh", ".bat", ".exe", ".doc", ".docx", ".rtf", ".toml", ".cfg",
        ".parquet", ".pkl", ".pt", ".pth", ".safetensors", ".geojson", ".mp3", ".wav", ".m4a", ".md5", ".sha256",
    }
)  # fmt: skip


def is_system_folder(name: str) -> bool:
    """Whether a folder's name is one that an operating system, a NAS or a tool gives, never a class or an album."""
    return name.lower() in SYSTEM_FOLDERS or name.lower().startswith(".trash")


def is_hidden(name: str) -> bool:
    """Whether a name starts with a dot, as ``._photo.jpg`` does, in which macOS keeps a photo's attributes."""
    return name.startswith(".")


def is_image_name(name: str) -> bool:
    """Whether a file of this name is read as an image: by its suffix, if it is not hidden."""
    return not is_hidden(name) and suffix_of(name) in IMAGE_SUFFIXES


def suffix_of(name: str) -> str:
    """The last suffix in lower case, with its dot."""
    return PurePath(name).suffix.lower()


def find_images(inputs: Sequence[str], *, notices: Notices | None = None) -> list[Path]:
    """Expand files, folders (their own images only) and globs (``**`` descends) into a sorted list without doubles.

    What is named but gives nothing, such as a missing file or an empty folder, stays in the list, so that reading it
    reports it. What lies in folders or fits globs and is not read goes into ``notices``. ClippyError when no input is a
    file and no folder or glob holds an image.
    """
    notices = Notices() if notices is None else notices
    found: set[Path] = set()
    unmatched: set[Path] = set()
    for text in inputs:
        matches = _matches(text, notices)
        (found if matches else unmatched).update(matches or [Path(text)])
    if not found:
        unread = "".join(f"\n  {notice}" for notice in notices)
        raise ClippyError(
            f"No image found in: {', '.join(inputs) or 'nothing'}{unread}",
            f"Name image files, a folder or a quoted pattern such as 'photos/**/*.jpg'. {LOOKED_FOR}",
        )
    by_place = {os.path.abspath(path): path for path in sorted(found | unmatched, reverse=True)}  # noqa: PTH100
    _log.info("images: %d", len(by_place))
    return sorted(by_place.values())


def note_unread(path: Path, shown: str, notices: Notices) -> None:
    """Count a file that lies among images and is not read as one; what is plainly none, such as text, is passed over.

    A type that a camera or an editor writes is skipped, and so is an image under a name that does not say so; a hidden
    image, such as macOS's ``._photo.jpg``, and a file of an unknown type are ignored.
    """
    suffix = suffix_of(path.name)
    if is_hidden(path.name):
        if suffix in IMAGE_SUFFIXES:
            notices.ignored("file", "hidden, its name starts with a dot", shown)
    elif suffix in HEIC_SUFFIXES:
        notices.skipped("file", f"type {suffix} is not read", shown, hint=f"Run {install_command('heic')}.")
    elif suffix in _RAW:
        notices.skipped("file", f"type {suffix}, a camera's raw data, is not read", shown, hint=_SAVE)
    elif suffix in _VIDEO:
        notices.skipped("file", f"type {suffix}, a video, is not read", shown, hint="Extract frames with ffmpeg.")
    elif suffix in _OTHER_IMAGES:
        notices.skipped("file", f"type {suffix} is not read", shown, hint=_SAVE)
    elif suffix not in _NO_IMAGES:
        if _starts_as_image(path):
            notices.skipped(
                "file", "an image by its content, not by its name", shown, hint="Rename them, such as to .jpg or .png."
            )
        elif suffix:
            notices.ignored("file", f"type {suffix} is not read", shown)


def _starts_as_image(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            start = file.read(12)
    except OSError:
        return False
    return start.startswith(_SIGNATURES) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")


def _matches(text: str, notices: Notices) -> list[Path]:
    path = Path(text)
    try:
        if path.is_dir():
            return _images_in(path, notices)
        if path.exists() or not glob.has_magic(text):
            return [path]
        # Path.glob takes no absolute pattern
        fitting = [Path(match) for match in glob.glob(text, recursive=True)]  # noqa: PTH207
        fixed = next(place for place, part in enumerate(path.parts) if glob.has_magic(part))
        return [match for match in fitting if _is_meant(match, match.parts[fixed:-1], notices)]
    except OSError as error:
        raise ClippyError(f"{text}: cannot be searched ({error})", "Check the path and its permissions.") from error


def _images_in(folder: Path, notices: Notices) -> list[Path]:
    """The images of a folder, not of those in it, which are counted unless they are hidden or a system's."""
    found = []
    for child in sorted(folder.iterdir()):
        if child.is_dir():
            if not is_hidden(child.name) and not is_system_folder(child.name):
                hint = "Name it, or a quoted pattern such as 'photos/**/*.jpg'."
                notices.ignored("folder", "below one that was named, not searched", str(child), hint=hint)
        elif _is_meant(child, (), notices):
            found.append(child)
    return found


def _is_meant(path: Path, folders: Sequence[str], notices: Notices) -> bool:
    """Whether a file that was found, not named, is an image that is to be read; it is counted where not."""
    if not path.is_file():
        return False
    if any(map(is_system_folder, folders)):
        if is_image_name(path.name):
            notices.ignored("file", "in a folder of the system", str(path))
        return False
    if is_image_name(path.name):
        return True
    note_unread(path, str(path), notices)
    return False
