"""``clippy demo`` from the command line."""

import sys

import pytest
import typer

from clippy_cli.app import app
from clippy_cli.extras import install_command


@pytest.fixture
def served(monkeypatch):
    """What would have been served, and in which folder."""
    calls = []
    monkeypatch.setattr("clippy_cli.demo.page.import_gradio", lambda: None)
    monkeypatch.setattr("clippy_cli.demo.server.build_app", lambda bench, model: bench)
    monkeypatch.setattr(
        "clippy_cli.demo.server.serve", lambda bench, _: calls.append((bench.folder, bench.folder.is_dir()))
    )
    return calls


def test_the_address_is_printed_and_the_folder_goes(clippy, served):
    outcome = clippy("demo", "--port", "0")
    assert outcome.code == 0
    assert "http://127.0.0.1:" in outcome.stdout
    assert outcome.stderr == ""
    folder, there = served[0]
    assert there and not folder.exists()


def test_other_hosts_than_this_one_are_warned_of(clippy, served):
    assert "warning: Anyone who can reach this machine" in clippy("demo", "--port", "0", "--host", "0.0.0.0").stderr


def test_open_opens_the_page(clippy, served, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    stdout = clippy("demo", "--port", "0", "--open").stdout
    assert len(opened) == 1 and opened[0] in stdout


def test_without_gradio_the_install_line_is_shown(clippy, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    outcome = clippy("demo")
    assert outcome.code == 1
    assert install_command("demo") in outcome.stderr


def test_the_flags_are_these():
    command = typer.main.get_group(app).commands["demo"]
    flags = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert flags == {"--model", "--device", "--host", "--port", "--open", "--no-open", "--no-cache"}
