"""Private names of the model libraries stay in model/compat, and nothing there changes a library for others."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import open_clip
import pytest

import clippy_cli
from clippy_cli.model.compat import hub
from clippy_cli.model.compat.transformers import TextEncoder, cleaned

PACKAGE = Path(clippy_cli.__file__).parent
COMPAT = PACKAGE / "model" / "compat"
LIBRARIES = ("timm", "open_clip", "transformers", "huggingface_hub")
DOORS = {*LIBRARIES, "timm.data", "timm.layers", "timm.optim"}  # documented for everyone's use
NAMEDTUPLE = {"_replace", "_asdict"}


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if COMPAT not in path.parents:
            yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Each module that is imported, and each name that is imported from one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from ((node.module, alias.name) for alias in node.names)


def own_private_names() -> set[str]:
    """Private names that the package itself defines: functions, methods, attributes, module globals."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
    return found - {"_exit"}


def test_the_libraries_are_entered_by_their_documented_doors() -> None:
    strange = [
        f"{file}: {module} {name}"
        for file, tree in trees()
        for module, name in imported(tree)
        if module.split(".")[0] in LIBRARIES and module not in DOORS
    ]
    assert not strange


def test_no_underscore_module_or_name_of_others_is_imported() -> None:
    strange = [
        f"{file}: {module} {name}"
        for file, tree in trees()
        for module, name in imported(tree)
        if not module.startswith("clippy_cli") and any(private(part) for part in (*module.split("."), name))
    ]
    assert not strange


def test_no_private_attribute_of_others_is_read() -> None:
    own = own_private_names() | NAMEDTUPLE
    strange = [
        f"{file}:{node.lineno} {ast.unparse(node)}"
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and private(node.attr)
        and node.attr not in own
        and ast.unparse(node) != "os._exit"
    ]
    assert not strange


def test_the_model_itself_loads_no_model_library_before_it_is_built() -> None:
    """Only its towers do, so that what a tower needs is decided where it is built."""
    probe = (
        "import sys, clippy_cli.model.clippy, clippy_cli.model.patch_forms, clippy_cli.model.sources.loading; "
        f"print({{name for name in {(*LIBRARIES, 'torchvision')!r} if name in sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_hub_is_told_and_not_switched_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    for resolves in (True, False):
        monkeypatch.setattr(hub, "_resolves", lambda resolves=resolves: resolves)
        with hub.hub_session() as local_files_only:
            assert local_files_only is not resolves and huggingface_hub.constants.HF_HUB_OFFLINE is False
        with hub.hub_session(str(tmp_path)) as local_files_only:
            assert local_files_only


def test_a_t5_encoder_leaves_open_clips_table_as_it_is() -> None:
    fields = {"model_type": "t5", "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    assert TextEncoder({**fields, "vocab_size": 10, "pad_token_id": 0}).width == 16
    assert "t5" not in open_clip.hf_configs.arch_dict


@pytest.mark.parametrize(
    "text", ["a dog", " two\t words\n", "caf\u00c3\u00a9 &amp;amp; th\u00e9", "\ufb01sh \u201cx\u201d", "<b>", ""]
)
def test_texts_are_cleaned_as_open_clip_cleans_them(text: str) -> None:
    assert cleaned(text) == open_clip.tokenizer.get_clean_fn("whitespace")(text)
