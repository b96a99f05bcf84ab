"""What lies in folders of photos: images that are read, those that are not, and what operating systems leave there."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterator, Sequence
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
_OTHER_CONTENT = (
    (b"version https://git-lfs", "a Git LFS pointer; the image itself was not fetched", "Run git lfs pull."),
    (b"<!doctype html", "a web page", "The server sent it in place of the image; download it again."),
    (b"<html", "a web page", "The server sent it in place of the image; download it again."),
    (b"<?xml", "an XML document, such as an error message or an SVG drawing", "Download it again, or save it as PNG."),
    (b"<svg", "an SVG drawing", "Save it as PNG."),
    (b"%pdf-", "a PDF document", "Save its pages as PNG."),
    (b"\xff\x0a", "JPEG XL, which is not read", _SAVE),
    (b"\0\0\0\x0cjxl ", "JPEG XL, which is not read", _SAVE),
    (b"\0\0\0\x0cjp  ", "JPEG 2000, which is not read", _SAVE),
    (b"{\"", "JSON text", "The server may have sent an error message; download it again."),
)  # fmt: skip
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
    if not all(inputs):
        raise ClippyError("An image's path is empty", "Check the shell variable that it comes from, or leave it out.")
    for text in dict.fromkeys(inputs):
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
    if suffix in IMAGE_SUFFIXES and not is_hidden(path.name):
        notices.skipped("file", "a link to a file that is not there", shown, hint="Copy the files, not the links.")
    elif is_hidden(path.name):
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


def refuse_other_content(data: bytes, where: str) -> None:
    """ClippyError for a file that holds something else under an image's name, by its first bytes."""
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signature, kind, hint in _OTHER_CONTENT:
        if start.startswith(signature):
            raise ClippyError(f"{where}: not an image but {kind}", hint)


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
        fitting = sorted(map(Path, expand_pattern(path)))
        fixed = next(place for place, part in enumerate(path.parts) if glob.has_magic(part))
        return [match for match in fitting if _is_meant(match, match.parts[fixed:-1], notices)]
    except OSError as error:
        raise ClippyError(f"{text}: cannot be searched ({error})", "Check the path and its permissions.") from error


def expand_pattern(pattern: Path) -> set[str]:
    """Paths that fit a pattern with ``*``, ``?``, ``[...]`` and ``**``, as ``glob.glob`` finds them.

    But ``**`` enters no folder again that it is in already, as links to a folder above make ``glob.glob`` do.
    """
    parts = pattern.parts
    if "**" not in parts:
        return set(glob.glob(str(pattern)))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    first = parts.index("**")
    top, rest = str(Path(*parts[:first])), parts[first + 1 :] or ("*",)
    found: set[str] = set()
    for start in glob.glob(top) if glob.has_magic(top) else [top]:  # noqa: PTH207
        for folder in _folders_below(start, frozenset()):
            found |= expand_pattern(Path(glob.escape(folder), *rest))
    return found


def _folders_below(folder: str, above: frozenset[str]) -> Iterator[str]:
    """A folder and those below it but hidden ones, links included, none inside itself."""
    real = os.path.realpath(folder)
    if real in above or not os.path.isdir(folder):  # noqa: PTH112
        return
    yield folder
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name))
    except OSError:
        return
    for name in names:
        yield from _folders_below(os.path.join(folder, name), above | {real})  # noqa: PTH118


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
    if not path.is_file() and not (path.is_symlink() and is_image_name(path.name)):
        return False
    if any(map(is_system_folder, folders)):
        if is_image_name(path.name):
            notices.ignored("file", "in a folder of the system", str(path))
        return False
    if is_image_name(path.name) and path.is_file():
        return True
    note_unread(path, str(path), notices)
    return False
