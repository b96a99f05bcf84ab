"""Ports and addresses; the page itself in a browser that notes every request."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from clippy_cli.demo.server import address, is_local, listen
from clippy_cli.errors import ClippyError
from tests.fixtures.browser import CHROMIUM, chromium


def test_a_taken_port_gives_the_next_free_one():
    with listen("127.0.0.1", 0) as first:
        taken = first.getsockname()[1]
        with listen("127.0.0.1", taken) as second:
            assert second.getsockname()[1] > taken
            assert address(second) == f"http://127.0.0.1:{second.getsockname()[1]}/"
            socket.create_connection(second.getsockname(), timeout=5).close()
        assert is_local(first)


def test_all_addresses_are_not_this_machine_alone():
    with listen("0.0.0.0", 0) as listening:
        assert not is_local(listening)
        assert address(listening).startswith("http://127.0.0.1:")


@pytest.mark.parametrize("host", ["no such host", "203.0.113.7"])
def test_a_host_that_is_not_here_is_an_error(host):
    with pytest.raises(ClippyError, match=r"host|listen"):
        listen(host, 0)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_click_segments_and_no_other_host_is_asked(tmp_path):
    """Set CLIPPY_SCREENSHOTS to a folder to look at the page."""
    pytest.importorskip("gradio")
    pictures = Path(os.environ.get("CLIPPY_SCREENSHOTS", tmp_path))
    own = tmp_path / "own photo.png"
    Image.new("RGB", (90, 60), "navy").save(own)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    server = subprocess.Popen(
        [sys.executable, "-m", "clippy_cli", "demo", "--port", "0", "--device", "cpu"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    try:
        url = next(word for word in server.stdout.readline().split() if word.startswith("http://"))
        with chromium(tmp_path / "profile") as browser:
            browser.open(url)
            browser.click("#segment")
            browser.wait_for("document.querySelector('#table').innerText.includes('No label is given')")
            browser.click("#example button")
            browser.wait_for("!!document.querySelector('#picture img') && !!document.querySelector('#mask')")
            assert "raccoon" in browser.evaluate("document.querySelector('#table').innerText")
            browser.screenshot(pictures / "desktop.png")
            browser.write("#labels textarea, #labels input", "animal, <b>leaf</b>")
            browser.click("#segment")
            browser.wait_for("document.querySelector('#table').innerText.includes('<b>leaf</b>')")
            browser.open(url)
            browser.wait_for("!!document.querySelector('#photo input[type=file]')")
            browser.upload("#photo input[type=file]", own)
            browser.wait_for("!!document.querySelector('#photo img')")
            browser.write("#labels textarea, #labels input", "sky, sea")
            browser.click("#segment")
            browser.wait_for("document.querySelector('#picture img')?.src.includes('own_photo')")
            browser.open(url, width=400, height=800, dark=True)
            browser.click("#example button")
            browser.wait_for("!!document.querySelector('#picture img')")
            assert browser.evaluate("document.documentElement.scrollWidth") == 400
            browser.screenshot(pictures / "phone.png")
        asked = {urlsplit(request).netloc for request in browser.requests if request.startswith("http")}
        assert asked == {urlsplit(url).netloc}
        assert browser.complaints == []  # such as a request that the content security policy stopped
    finally:
        server.send_signal(signal.SIGINT)
        server.stdout.close()
        assert server.wait(20) == 0
    assert not list(tmp_path.glob("clippy-demo-*"))
