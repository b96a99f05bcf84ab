"""The shards that paths, brace ranges, globs and URLs name, in the order given."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from braceexpand import braceexpand

from clippy_cli.data.image_files import is_hidden, is_image_name, is_system_folder, suffix_of
from clippy_cli.data.pack_claim import MAX_SHARDS, PACK_FILE, PackFile
from clippy_cli.errors import ClippyError
from clippy_cli.locks import refuse_in_use
from clippy_cli.notices import Notices
from clippy_cli.recipe.data import is_url
from clippy_cli.regular_files import is_file, read_bytes

COMPRESSED = re.compile(r"\.(?:tar\.\w{1,5}|tgz|tbz2?|txz|tzst)$", re.IGNORECASE)
_NO_SHARD = ("No shard is named", "Give tar files, such as 'train-{0000..0099}.tar'.")


def local_shards(patterns: Sequence[str]) -> list[Path]:
    """Existing files; ClippyError where a path, a range or a glob leads to none, two lead to one, or for URLs."""
    shards: list[Path] = []
    for pattern in patterns:
        if is_url(pattern):
            raise ClippyError(
                f"{pattern}: shards are read from local files only", "Download them and give their paths."
            )
        named = [Path(pattern)] if is_file(Path(pattern)) else list(_globbed(pattern))
        missing = [path for path in named if not is_file(path)]
        if missing:
            first = ", ".join(str(path) for path in missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise ClippyError(
                f"{len(missing)} of {len(named)} shards of {pattern!r} do not exist: {first}",
                "Check the path and the range.",
            )
        if not named:
            raise ClippyError(f"No file matches the shard pattern {pattern!r}", "Check the folder and the pattern.")
        shards += named
    if not shards:
        raise ClippyError(*_NO_SHARD)
    for folder in dict.fromkeys(path.parent for path in shards):
        refuse_in_use(folder)
    files: dict[tuple[int, int], Path] = {}
    for path in shards:
        stat = path.stat()
        other = files.setdefault((stat.st_dev, stat.st_ino), path)
        if other is not path:
            also = "" if other == path else f", also as {other}"
            raise ClippyError(
                f"The shard {path} is named twice{also}: {', '.join(patterns)}",
                "Name each shard once; to draw samples more often, set repeat in a mixture.",
            )
    return shards


def remote_shards(patterns: Sequence[str]) -> list[str]:
    """URLs with their brace ranges expanded; ClippyError for ``pipe:``, chained URLs, local paths and repetitions."""
    urls: list[str] = []
    for pattern in patterns:
        if pattern.startswith("pipe:"):
            raise ClippyError(
                f"{pattern}: a recipe's shards cannot be commands",
                "Give the URL itself, such as s3://bucket/{00000..00099}.tar.",
            )
        if not re.match(r"\w[\w+.\-]*://", pattern):
            raise ClippyError(
                f"{pattern}: is not a URL such as https://host/00000.tar", "Name local files by themselves."
            )
        urls += expand_braces(pattern)
    if not urls:
        raise ClippyError(*_NO_SHARD)
    if len(set(urls)) < len(urls):
        repeated = next(url for url, count in Counter(urls).items() if count > 1)
        raise ClippyError(f"The shard {repeated} is named twice", "Name each shard once.")
    return urls


def expand_braces(pattern: str) -> list[str]:
    """``{000..099}`` and ``{a,b}`` as in a shell; ClippyError for a malformed or too large range."""
    ranges = re.findall(r"(-?\d{1,18})\.\.(-?\d{1,18})", pattern)
    too_many = ClippyError(f"{pattern} stands for more than {MAX_SHARDS:,} shards", "Check the range.")
    if any(abs(int(last) - int(first)) >= MAX_SHARDS for first, last in ranges):
        raise too_many  # braceexpand would build the whole range first
    try:
        names = list(itertools.islice(braceexpand(pattern, escape=False), MAX_SHARDS + 1))
    except ValueError as error:
        raise ClippyError(f"{pattern}: {error}", "A range is written as in train-{0000..0099}.tar.") from error
    if len(names) > MAX_SHARDS:
        raise too_many
    return names


def shards_in(folder: Path, notices: Notices) -> list[Path]:
    """The ``.tar`` files of a folder by name, none where it holds none; ``notices`` count what may be meant too."""
    shards, images = [], list[str]()
    for path in sorted(folder.iterdir()):
        name = path.name
        if path.is_dir():
            if not is_hidden(name) and not is_system_folder(name) and any(path.rglob("*.tar")):
                hint = f"Name them, too: '{folder}/**/*.tar'."
                notices.skipped("folder", "its shards are not read, only those of the folder named", name, hint=hint)
        elif is_hidden(name):
            if suffix_of(name) == ".tar":
                notices.ignored("file", "hidden, its name starts with a dot", name)
        elif suffix_of(name) == ".tar":
            shards.append(path)
        elif COMPRESSED.search(name):
            hint = "Decompress them: shards must be plain tar."
            notices.skipped("shard", "compressed, so that samples cannot be read in any order", name, hint=hint)
        elif is_image_name(name):
            images.append(name)
    if shards:
        _refuse_unfinished(folder, os.path.join(glob.escape(os.fspath(folder)), "*"))  # noqa: PTH118 (a pattern)
    if images and shards:
        notices.ignored("image", "lies beside the shards of its folder", *images)
    return shards


def _refuse_unfinished(folder: Path, pattern: str) -> None:
    """ClippyError where ``folder`` holds a pack that lacks shards which ``pattern`` would match."""
    if not (folder / PACK_FILE).is_file():
        return
    try:
        packing = PackFile.model_validate_json(read_bytes(folder / PACK_FILE)).packing
    except (OSError, ValueError):  # pydantic's errors are such; somebody else's file
        return
    shards = [packing.files(folder, number)[0] for number in range(packing.shards)]
    missing = [path for path in shards if not path.is_file() and fnmatch.fnmatch(os.fspath(path), pattern)]
    if missing:
        raise ClippyError(
            f"{folder}: {len(missing):,} of {len(shards):,} shards of this pack are missing, such as {missing[0].name}",
            "Repeat its clippy data pack, which goes on where it stopped; or name the shards that are wanted.",
        )


def _globbed(pattern: str) -> Iterator[Path]:
    names = expand_braces(pattern)
    for name in names:
        if not glob.has_magic(name):
            yield Path(name)
            continue
        found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 (takes absolute patterns)
        if not found and len(names) > 1:
            raise ClippyError(f"No file matches {name}, which {pattern!r} stands for", "Check the braces.")
        paths = [Path(path) for path in found]
        for folder in dict.fromkeys(path.parent for path in paths):
            _refuse_unfinished(folder, os.path.normpath(name))
        yield from paths
