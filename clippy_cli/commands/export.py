"""``clippy export onnx`` and ``clippy export open-clip``: models for other programs."""

from __future__ import annotations

import json as json_format
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal
from rich.table import Column, Table
from rich.text import Text

from clippy_cli import console
from clippy_cli.commands import options
from clippy_cli.errors import ClippyError

if TYPE_CHECKING:
    from clippy_cli.export.parity import ExportReport
    from clippy_cli.model.clippy import Clippy

Source = Annotated[
    str, typer.Argument(metavar="MODEL", help="A shipped model's name, a model directory or a run folder.")
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; new or empty, or see --overwrite.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Write into a folder that is not empty, over files of the same names.")
]


def onnx(
    model: Source,
    out: Out,
    opset: Annotated[int, typer.Option(min=18, max=99, metavar="N", help="ONNX operator set of both graphs.")] = 18,
    overwrite: Overwrite = False,
    json: options.Json = False,
) -> None:
    """Write both towers as ONNX graphs, and compare them with the model on ONNX Runtime.

    \b
    Writes into OUT:
      image.onnx    pixels (B,3,H,W), RGB in [0, 1], mean and std applied inside;
                    any batch, sides any multiples of the patch
                    -> patches (B,h,w,D) and pooled (B,D), of unit norm
      text.onnx     token_ids (K,L) -> embeddings (K,D), of unit norm
      tokenizer/    where the text tower has one of its own
      config.json   how to resize and tokenise; prompts, logit scale, versions

    \b
    Needs the extra: pip install "clippy-seg\\[onnx]"

    \b
    Examples:
      clippy export onnx clippy-ti clippy-ti-onnx
      clippy export onnx runs/quickstart exported/ --opset 20
    """
    from clippy_cli.export.onnx_folder import export_onnx

    source = _own_model(model)
    with console.status("exporting and comparing"):
        report = export_onnx(source, out, opset=opset, overwrite=overwrite)
    _show(report, "export onnx", model, json)


def open_clip(model: Source, out: Out, overwrite: Overwrite = False, json: options.Json = False) -> None:
    """Write a folder that open_clip loads, and compare what it embeds with the model.

    Takes class-token or mean pooling of the last block with a linear projection or none; where open_clip cannot
    express a model, the error says what.

    \b
    Examples:
      clippy export open-clip runs/clip-b16 clip-b16-open-clip
      python -c "import open_clip; open_clip.create_model('local-dir:clip-b16-open-clip')"
    """
    from clippy_cli.export.open_clip_folder import export_open_clip

    source = _own_model(model)
    with console.status("exporting and comparing"):
        report = export_open_clip(source, out, overwrite=overwrite)
    _show(report, "export open-clip", model, json)


def _own_model(source: str) -> Clippy:
    from clippy_cli.model.clippy import Clippy
    from clippy_cli.model.sources.loading import load_model, split_source
    from clippy_cli.model.sources.registry import OWN_CLASS

    with console.status(f"loading {source}"):
        model = load_model(source, device="cpu") if split_source(source)[0] in OWN_CLASS else None
    if not isinstance(model, Clippy):
        raise ClippyError(
            f"{source} is not one of clippy's own models, which alone can be exported.",
            "Give a shipped model's name, a model directory or a run folder.",
        )
    return model


def _show(report: ExportReport, command: str, model: str, json: bool) -> None:
    if json:
        console.print_json({"command": command, "model": model, **asdict(report), "folder": str(report.folder)})
        return
    table = Table("output", "input", Column("max abs difference", justify="right"), title="Parity with the model")
    for found in report.differences:
        table.add_row(found.output, "x".join(map(str, found.shape)), f"{found.largest:.1e}")
    console.out.print(table)
    console.out.print(f"All within {report.limit:.0e}, in float32 on the CPU.\n")
    files = Table.grid(padding=(0, 2))
    for name, size in report.files.items():
        files.add_row(Text(str(report.folder / name)), Text(decimal(size), justify="right"))
    console.out.print(files)
    for note in report.notes:
        console.print_hint(note)
    if command == "export open-clip":
        load = f"open_clip.create_model({json_format.dumps(f'local-dir:{report.folder}', ensure_ascii=False)})"
        console.out.print(Text(f"\nLoad it in Python:\n  {load}"), soft_wrap=True)
