"""The command that a message names for an extra works for the way in which clippy was installed."""

import importlib.metadata
import json
import re
import tomllib
from pathlib import Path

import pytest

from clippy_cli.extras import DISTRIBUTION, install_command

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


@pytest.fixture
def installed_from(monkeypatch):
    """Pretend that pip noted this origin; None for a package index."""

    def pretend(origin):
        class Installed:
            def read_text(self, name):
                assert name == "direct_url.json"
                return None if origin is None else json.dumps(origin)

        def distribution(name):
            assert name == DISTRIBUTION
            return Installed()

        monkeypatch.setattr(importlib.metadata, "distribution", distribution)

    return pretend


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "my clippy"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    return folder


def test_the_name_is_that_of_the_project():
    assert PROJECT["name"] == DISTRIBUTION
    assert f"{DISTRIBUTION}[" in PROJECT["optional-dependencies"]["test"][0]


def test_from_a_package_index_the_distribution_is_named(installed_from):
    installed_from(None)
    assert install_command("demo") == 'pip install "clippy-seg[demo]"'
    assert install_command("tensorboard", "wandb") == 'pip install "clippy-seg[tensorboard,wandb]"'


def test_an_editable_install_is_named_by_its_directory(installed_from, checkout, tmp_path, monkeypatch):
    installed_from({"url": checkout.as_uri(), "dir_info": {"editable": True}})
    assert install_command("demo") == f'pip install -e "{checkout}[demo]"'
    monkeypatch.chdir(checkout)
    assert install_command("demo") == 'pip install -e ".[demo]"'


def test_a_local_directory_is_named_while_it_is_there(installed_from, checkout, monkeypatch):
    installed_from({"url": checkout.as_uri(), "dir_info": {}})
    assert install_command("onnx") == f'pip install "{checkout}[onnx]"'
    monkeypatch.chdir(checkout)
    assert install_command("onnx") == 'pip install ".[onnx]"'
    (checkout / "pyproject.toml").unlink()
    assert install_command("onnx") == 'pip install "clippy-seg[onnx]"'


def test_an_archive_and_a_repository_are_named_by_their_url(installed_from):
    installed_from({"url": "https://example.org/clippy_seg-1-py3-none-any.whl", "archive_info": {}})
    assert install_command("crf") == 'pip install "clippy-seg[crf] @ https://example.org/clippy_seg-1-py3-none-any.whl"'
    installed_from({"url": "https://example.org/c.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}})
    assert install_command("crf") == 'pip install "clippy-seg[crf] @ git+https://example.org/c.git@abc"'


def test_a_checkout_that_is_not_installed_is_named(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    monkeypatch.chdir(REPOSITORY)
    assert install_command("demo") == 'pip install -e ".[demo]"'


def test_what_a_shell_would_read_is_quoted(installed_from, tmp_path):
    folder = tmp_path / "$HOME"
    folder.mkdir()
    (folder / "pyproject.toml").touch()
    installed_from({"url": folder.as_uri(), "dir_info": {}})
    assert install_command("demo") == f"pip install '{folder}[demo]'"


def test_every_extra_that_is_named_anywhere_exists():
    files = [
        path
        for folder in ("clippy_cli", "docs", "recipes")
        for path in (REPOSITORY / folder).rglob("*")
        if path.suffix in (".py", ".md", ".yaml", ".html")
    ]
    assert len(files) > 200
    named = {
        extra
        for path in [*files, REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
        for found in re.findall(
            r"clippy-seg\\{0,2}\[([^\]\\]+)\]|install_command\(\"(\w+)\"", path.read_text(encoding="utf-8")
        )
        for extra in ",".join(filter(None, found)).split(",")
    }
    known = set(PROJECT["optional-dependencies"])
    assert named <= known
    assert named >= known - {"test"}, "an extra that nothing mentions"
