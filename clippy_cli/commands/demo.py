"""``clippy demo``."""

from __future__ import annotations

from typing import Annotated

import typer

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.commands.image_run import load_clip
from clippy_cli.model import DEFAULT_MODEL


def demo(
    model: options.Model = DEFAULT_MODEL,
    device: options.Device = "auto",
    no_cache: options.NoCache = False,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Who may open the page: 127.0.0.1 is this computer alone.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, metavar="N", help="Where it listens; the next free one if taken. 0: any."),
    ] = 7860,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in the browser.")] = False,
) -> None:
    """Try a model on your photos, on a page in the browser.

    \b
    Segment, group and classify with the settings of the commands of these
    names. Needs gradio: pip install "clippy-seg\\[demo]". The page works offline
    and asks no other host for anything; uploads are deleted when it ends.

    \b
    Examples:
      clippy demo
      clippy demo --open --model runs/quickstart
      clippy demo --device cuda --port 8000
    """
    import tempfile
    import webbrowser
    from pathlib import Path

    from rich.text import Text

    from clippy_cli.demo.page import import_gradio

    with console.status("loading gradio"):
        import_gradio()

    from clippy_cli.demo.server import address, build_app, is_local, listen, serve
    from clippy_cli.demo.workbench import Workbench

    with listen(host, port) as listening, tempfile.TemporaryDirectory(prefix="clippy-demo-") as folder:
        if not is_local(listening):
            console.print_warning("Anyone who can reach this machine over the network can upload photos to it.")
        clip = load_clip(model, device, cache=not no_cache)
        with console.status("building the page"):
            app = build_app(Workbench(clip, Path(folder)), model)
        url = address(listening)
        console.out.print(
            Text.assemble(("clippy demo", "bold"), f" with {model} at {url}  (Ctrl-C ends it)"), soft_wrap=True
        )
        if open_browser:
            webbrowser.open(url)
        serve(app, listening)
