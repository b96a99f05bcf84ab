"""Optional packages, by the extras of the distribution, and the command that adds one to this installation."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "clippy-seg"  # its package is clippy_cli, its command clippy


def install_command(*extras: str) -> str:
    """The pip command that adds ``extras``, such as "demo", in the way in which clippy was installed.

    From a package index it names the distribution; from a directory that directory, as an editable install where this
    is one (and as ``.`` where it is the current directory); from an archive or a repository its URL.
    """
    wanted = f"[{','.join(extras)}]"
    origin = _origin()
    folder = _local_folder(origin)
    if folder is not None:
        option = "-e " if origin.get("dir_info", {}).get("editable") else ""
        place = "." if folder == Path.cwd() else str(folder)
        return f"pip install {option}{_quoted(place + wanted)}"
    url = "" if "dir_info" in origin else origin.get("url", "")  # a directory that is gone is no place to install from
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    return f"pip install {_quoted(DISTRIBUTION + wanted + (f' @ {url}' if url else ''))}"


def _origin() -> dict[str, Any]:
    """Where pip found clippy (PEP 610), empty for a package index; what is not installed at all is a checkout."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        noted = distribution(DISTRIBUTION).read_text("direct_url.json")
    except PackageNotFoundError:
        return {"url": Path(__file__).parents[1].as_uri(), "dir_info": {"editable": True}}
    origin: dict[str, Any] = json.loads(noted) if noted else {}
    return origin


def _local_folder(origin: dict[str, Any]) -> Path | None:
    """The directory that clippy was installed from, where it still holds a project."""
    if "dir_info" not in origin:
        return None
    folder = Path(unquote(urlsplit(origin["url"]).path))
    return folder if (folder / "pyproject.toml").is_file() else None


def _quoted(requirement: str) -> str:
    """In double quotes, which every shell takes, unless the text holds something that they do not protect."""
    return shlex.quote(requirement) if set(requirement) & set('"$`\\!') else f'"{requirement}"'
