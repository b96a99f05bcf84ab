"""``FILE,KEY=NAME``: a small file of learned weights, and the models of other sources that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clippy_cli.errors import ClippyError
from clippy_cli.model.sources.registry import find_source
from clippy_cli.regular_files import is_file


@dataclass(frozen=True)
class Parts:
    """A file, and for each part its name as ``--model`` takes it, without the prefix; None is the default part."""

    file: Path
    named: Mapping[str, str | None]


def split_parts(prefix: str, name: str, sources: Mapping[str, str]) -> Parts:
    """``map.pth,trunk=NAME@FILE`` -> its parts. ``sources`` gives the prefix of each part's own source.

    ClippyError for a part of another name, one given twice, a file that is missing, and whatever the part's source says
    of its name.
    """
    first, *options = name.split(",")
    named: dict[str, str | None] = dict.fromkeys(sources)
    usage = f"Write {prefix}:FILE{''.join(f'[,{key}=NAME]' for key in sources)}; NAME is what follows " + ", ".join(
        f"{source}: for {key}" for key, source in sources.items()
    )
    for option in options:
        key, equals, value = option.partition("=")
        if key not in sources or not equals or not value or named[key] is not None:
            raise ClippyError(f"{prefix}:{name} cannot be read at {option!r}.", f"{usage}.")
        find_source(sources[key]).check(value, texts=False)
        named[key] = value
    file = Path(first).expanduser()
    if not is_file(file):
        raise ClippyError(f"{prefix}:{name} looks for the file {first}, which is not there.", f"{usage}.")
    return Parts(file, named)


def shown_name(parts: Parts) -> str:
    """What tables call a model of these parts: the file's name, and the parts that were chosen."""
    chosen = [f"{key}={Path(value).name}" for key, value in parts.named.items() if value is not None]
    return ",".join([parts.file.name, *chosen])
