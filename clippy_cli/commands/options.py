"""Arguments and options that several commands share, and how their texts are read."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Annotated, TypeVar, get_args, get_type_hints

import typer

from clippy_cli.errors import ClippyError
from clippy_cli.inference.choices import NO_REFINEMENT, Refinement
from clippy_cli.model import DEFAULT_MODEL
from clippy_cli.model.choices import AUTO, PositionResampling
from clippy_cli.model.choices import Precision as PrecisionChoice
from clippy_cli.model.dense import DenseMode
from clippy_cli.regular_files import is_folder

Images = Annotated[
    list[str],
    typer.Argument(
        metavar="IMG...", help="Image files, folders (their own images) and quoted globs ('photos/**/*.jpg')."
    ),
]
ImagesOrShards = Annotated[
    list[str],
    typer.Argument(
        metavar="IMG...",
        help="Image files, folders (their own images) and quoted globs ('photos/**/*.jpg'); or tar shards: "
        "'shards/{00000..00099}.tar', a folder of them, URLs.",
    ),
]
Labels = Annotated[
    str,
    typer.Option(metavar="A,B|C", help="What to look for: commas between labels, | between synonyms of one label."),
]
Model = Annotated[
    str,
    typer.Option(
        metavar="NAME|DIR|SOURCE",
        help="A shipped model's name, a model directory, a run folder, or open_clip:, hf:, timm: and other models; "
        "clippy models lists them.",
    ),
]
Dense = Annotated[
    str | None,
    typer.Option(
        metavar="MODE",
        help=f"Attention of the last block where patches are wanted: {', '.join(DenseMode)}. "
        "For models that were not trained for patches. Default: plain.",
    ),
]
Proxy = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="Model whose patches steer --dense proxyclip, such as timm:vit_base_patch16_224.dino.",
    ),
]
Positions = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(PositionResampling),
        help="How the position table is resampled to other grids. Default: as the model's own code does.",
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME|DIR|SOURCE",
        help=f"A shipped model, a model directory, a run folder, or one of clippy models; several are shown side by "
        f"side. Default: {DEFAULT_MODEL}.",
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the data sets in their official layouts. Default: $CLIPPY_DATA."),
]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Refuse input that would be skipped, or used under an assumption, before the work."),
]
Workers = Annotated[int, typer.Option(min=1, max=256, metavar="N", help="Threads that decode images.")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where to run; cuda:1 names one of several.")]
BatchSize = Annotated[
    int, typer.Option(min=1, max=1024, metavar="N", help="Most images of one size in a forward pass.")
]
Resolution = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="PIXELS", help="Short side that images are resized to; aspect is kept. Default: the model's."
    ),
]
Window = Annotated[
    int | None,
    typer.Option(
        min=0, metavar="PIXELS", help="Side of sliding windows; 0: the whole image. Default: the whole image."
    ),
]
Stride = Annotated[
    int | None,
    typer.Option(min=1, metavar="PIXELS", help="Step between windows; where they overlap they are averaged."),
]
Scales = Annotated[
    str | None,
    typer.Option(metavar="1,1.5,2", help="Factors of the resolution; similarities are averaged over them."),
]
Flip = Annotated[
    bool | None, typer.Option("--flip/--no-flip", help="Average with the mirrored image.", show_default=False)
]
Refine = Annotated[
    str | None,
    typer.Option(
        metavar="|".join((*Refinement, NO_REFINEMENT)),
        help="Draw masks along the photo's edges; crf needs clippy-seg\\[crf].",
    ),
]
RegionFolder = Annotated[
    Path | None,
    typer.Option(
        "--regions",
        metavar="DIR",
        help="Masks from elsewhere, one PNG of region numbers or JSON of COCO RLE a photo, named as it: each region "
        "takes the label of most of its pixels. Reported apart, as +regions.",
    ),
]
Templates = Annotated[
    str | None,
    typer.Option(
        metavar="SET|TEXT",
        help="Prompts around each label: none, photo, simple, openai, or your own such as 'a sketch of a/an {}'. "
        "Default: the model's.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder for the files that are written; made if missing. Default: clippy_out, or clippy_out-2 and so on "
        "where earlier results of the same photos are kept.",
    ),
]
Birds = Annotated[
    Path,
    typer.Option(
        metavar="DIR",
        help="CUB-200-2011 with its segmentations; or any folder with images/, masks/ and classes.csv (key,class).",
    ),
]
Backgrounds = Annotated[
    Path, typer.Option(metavar="DIR", help="Places365, by category; or any folder with two folders of backgrounds.")
]
TableRoot = Annotated[
    Path | None,
    typer.Option("--root", metavar="DIR", help="Where a table's relative image paths start. Default: its own folder."),
]
ImageColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Header of a table's image paths. Default: found.")
]
CaptionColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Header of a table's captions. Default: found.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout and nothing else there.")]
Precision = Annotated[
    str,
    typer.Option(
        metavar="|".join((AUTO, *PrecisionChoice)),
        help="What the image tower computes in; bf16 is faster on recent GPUs, and slower on most CPUs. auto is fp32.",
    ),
]
Compiled = Annotated[
    bool,
    typer.Option("--compile", help="Compile the image tower first (torch.compile): for long runs, it takes a minute."),
]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Embed texts anew, and keep nothing for later runs in $CLIPPY_CACHE.")
]
Profiled = Annotated[
    bool, typer.Option("--profile", help="Say where the time went: seconds and ms a photo, stage by stage.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace earlier results, and files that clippy did not write.")
]
C = TypeVar("C", bound=Callable[..., object])


def in_panels(**panels: Sequence[str]) -> Callable[[C], C]:
    """Group a command's options under headings of its help: ``Model=("model", "device")`` names its parameters."""

    def group(command: C) -> C:
        hints = get_type_hints(command, include_extras=True)
        for heading, names in panels.items():
            for name in names:
                kind, option = get_args(hints[name])
                option = copy(option)
                option.rich_help_panel = heading
                hints[name] = Annotated[kind, option]
        command.__annotations__ = hints
        return command

    return group


def check_folder(path: Path, flag: str) -> None:
    """ClippyError where what a flag names is not a directory."""
    if not is_folder(path):
        raise ClippyError(f"{path}: no such folder", f"Check {flag}.")


def kinds_help(known: Sequence[str]) -> str:
    """The help of ``--save``."""
    return f"What to write: any of {', '.join(known)}, with commas; or none."


def parse_kinds(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Read ``--save overlay,mask``; ``none`` alone is no kind. ClippyError names what is unknown."""
    kinds = tuple(part.strip() for part in text.split(","))
    if kinds == ("none",):
        return ()
    for kind in kinds:
        if kind not in known:
            close = difflib.get_close_matches(kind, known, n=1)
            meant = f"; did you mean {close[0]!r}?" if close else ""
            raise ClippyError(f"--save cannot write {kind!r}{meant}", f"Choose among {', '.join(known)}; or none.")
    return tuple(dict.fromkeys(kinds))
