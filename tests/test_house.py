"""The house as a whole: what may import what, and how large a module may be."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "clippy_cli"

# Lowest first: a room may import what stands before it, and itself. Rooms of one line do not know each other, but for
# the first line, whose modules are one room.
ORDER = (
    ("errors", "extras", "regular_files", "files", "own_files", "locks", "notices", "console", "processes", "stages"),
    ("checked_yaml",),
    ("model",),
    ("recipe",),
    ("data",),
    ("inference",),
    ("evaluation", "training"),
    ("reporting",),
    ("waterbirds",),
    ("export",),
    ("clip",),
    ("api",),
    ("bulk",),
    ("demo",),
    ("commands",),
    ("app",),
)
LEVELS = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
DOORS = ("__init__", "__main__")  # what the outside world calls; they may open any room

MOST_LINES, FEWEST_LINES = 350, 35
# Rooms where a file is one thing that can be added without touching another, however short.
PLUG_INS = ("evaluation/tasks/", "training/terms/", "model/sources/", "model/compat/", "model/dense/")


class Import(NamedTuple):
    line: int
    module: str  # absolute, such as clippy_cli.data.images


def imports_in(source: str, package: tuple[str, ...]) -> Iterator[Import]:
    """What a module of ``package`` imports of clippy_cli at any depth: in functions and for type checkers too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join((*above, *([node.module] if node.module else [])))
            # of the package itself each name counts: `from clippy_cli import console` is a room
            names = [f"{origin}.{alias.name}" for alias in node.names] if origin == "clippy_cli" else [origin]
        elif isinstance(node, ast.Call):
            names = imports_called(node)
        else:
            continue
        yield from (Import(node.lineno, name) for name in names if name.split(".")[0] == "clippy_cli")


def imports_called(call: ast.Call) -> list[str]:
    """The module that ``import_module("...")``, with or without its module in front, names; none for other calls."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name != "import_module" or not call.args or not isinstance(call.args[0], ast.Constant):
        return []
    return [str(call.args[0].value)]


def may_import(room: str, module: str) -> bool:
    """Whether the order allows it; names of the package's own ``__init__`` are the API's, but for ``__version__``."""
    if room in DOORS or module == "clippy_cli.__version__":
        return True
    target = [*module.split("."), "api"][1]
    if target not in LEVELS:
        target = "api"
    return target == room or LEVELS[target] < LEVELS[room] or (LEVELS[target] == LEVELS[room] == 0)


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def offences(path: Path, source: str, package: tuple[str, ...], room: str) -> list[str]:
    return [
        f"{path}:{found.line}: {room} must not import {found.module}"
        for found in imports_in(source, package)
        if not may_import(room, found.module)
    ]


def test_every_room_has_its_place_in_the_order():
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in modules()}
    assert rooms - set(DOORS) <= set(LEVELS)


def test_imports_only_point_down():
    wrong = []
    for path in modules():
        inside = path.relative_to(REPOSITORY)
        room = inside.parts[1].removesuffix(".py")
        wrong += offences(inside, path.read_text(encoding="utf-8"), inside.parent.parts, room)
    assert not wrong, "imports that point up:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("data", "import clippy_cli.training.loop"),
        ("data", "from clippy_cli.training import loop"),
        ("data", "def f():\n    from clippy_cli.training.loop import train"),
        ("data", "if TYPE_CHECKING:\n    from clippy_cli import api"),
        ("data", "from clippy_cli import load"),
        ("data", "import clippy_cli"),
        ("data", "from .. import evaluation"),
        ("data", "from ..evaluation.metrics import bootstrap"),
        ("data", "def f():\n    importlib.import_module('clippy_cli.demo.page')"),
        ("training", "from clippy_cli.evaluation.run import run"),
        ("errors", "from clippy_cli.checked_yaml import load"),
    ],
)
def test_an_import_that_points_up_is_found(room, source):
    (found,) = offences(Path("x.py"), source, ("clippy_cli", room), room)
    assert found.startswith(f"x.py:{len(source.splitlines())}: {room} must not import clippy_cli")


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("data", "from clippy_cli import __version__, console"),
        ("data", "from .images import read_image\nfrom clippy_cli.data import images"),
        ("console", "from clippy_cli.errors import ClippyError"),
        ("evaluation", "from ..inference.views import views"),
        ("__init__", "from clippy_cli.api import load"),
        ("commands", "from clippy_cli import load\nimport clippy_cli.demo.page"),
    ],
)
def test_an_import_that_points_down_is_allowed(room, source):
    assert not offences(Path("x.py"), source, ("clippy_cli", room), room)


def test_contributing_gives_this_order():
    listed = [line.split()[0].rstrip("/").removesuffix(".py") for line in house_of("CONTRIBUTING.md")]
    assert [LEVELS[room] for room in listed] == sorted(LEVELS[room] for room in LEVELS)
    assert set(listed) == set(LEVELS)


def house_of(document: str) -> list[str]:
    """The lines of the indented list of rooms, without those that continue one."""
    lines = (REPOSITORY / document).read_text(encoding="utf-8").splitlines()
    start = lines.index("    clippy_cli/") + 1
    return [line for line in lines[start : lines.index("", start)] if line.startswith("      ") and line[6] != " "]


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_is_one_room_with_one_door(path):
    name = path.relative_to(PACKAGE).as_posix()
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{name} has {lines} lines: two rooms with one door"
    if path.stem not in DOORS and not name.startswith(PLUG_INS):
        assert lines >= FEWEST_LINES, f"{name} has {lines} lines: join it with its neighbor"
