"""What lies in folders of photos: images that are read, those that are not, and what operating systems leave there."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path, PurePath

from clippy_cli.extras import install_command
from clippy_cli.notices import Notices

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
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        return False
    return start.startswith(_SIGNATURES) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")
