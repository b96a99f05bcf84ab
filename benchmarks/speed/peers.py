"""What users of other libraries wait for, beside ours, in the same rounds."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from speed.agreement import equal_pixels, of_masks
from speed.codes import Asked, Code, Run, in_turn
from speed.ground import Ground
from speed.rows import Row

COLD_ROUNDS, WARM_ROUNDS, PHOTOS = 3, 3, 6
COMMANDS = Path(__file__).with_name("peer_commands.py")
# Each peer and our command and Python call for the same thing.
COLD = {
    "pipeline": ("transformers' pipeline zero-shot-image-classification", "classify"),
    "clipseg": ("transformers' CLIPSeg", "segment --refine none --save mask"),
    "groupvit": ("transformers' GroupViT", "segment --refine none --save mask"),
    "onnx": ("onnxruntime on clippy's exported image tower", "segment --refine none --save mask"),
}
CALLS = {"pipeline": "classify", "clipseg": "segment", "groupvit": "segment"}


def measure_peers(ground: Ground) -> list[Row]:
    """Theirs and ours: cold commands, calls in a running process, and what comes after the encoder."""
    folder = ground.folder / "peers"
    folder.mkdir()
    with Asked(ground.today) as asked:
        asked("make_peers", folder=folder, tiny=ground.tiny)
        asked("label_vectors", labels=ground.labels, out=folder / "labels.npy")
        asked("label_vectors", labels=ground.hundred, out=folder / "hundred.npy")
    ground.today.clippy(["export", "onnx", "clippy-ti", str(folder / "onnx")])
    ground.note(
        "- peers: random weights of the default model's size (image tower 192 wide, 12 layers, patch 16, 224 "
        "pixels; text tower 384 wide, 6 layers; GroupViT with its own stages and group tokens), "
        f"{len(ground.labels)} labels. Cold: a fresh process from start to end, to a palette PNG or a printed label,"
        " ours with the texts that a run before may have kept; onnxruntime has the labels' vectors stored and loads"
        " no torch. A call: photo by photo in a process that has loaded the model and has answered once, texts "
        "given anew each time (ours may be kept). After the encoder: from the same patch embeddings to the mask, "
        "against what SCLIP's public code does there; agreement is of ours and theirs."
    )
    return [*_cold(ground, folder), *_calls(ground, folder), *_after_encoder(ground, folder)]


def _cold(ground: Ground, folder: Path) -> list[Row]:
    photo, labels = str(ground.photos[0]), ",".join(ground.labels)
    ours = list(dict.fromkeys(command for _, command in COLD.values()))
    outs: dict[str, Path] = {}
    sides: dict[Any, Any] = {}
    for kind in COLD:
        sides["theirs", kind] = partial(_theirs, ground.today, kind, folder, photo, labels, outs)
    for command in ours:
        for code in ground.codes:
            sides[code.name, command] = partial(_ours, code, command, photo, labels, outs)
    for run in sides.values():  # the first of all, which fills caches and is not counted
        run()
    runs: dict[Any, list[Run]] = in_turn(ground.rounds(COLD_ROUNDS), sides)
    seconds = {name: [run.seconds for run in done] for name, done in runs.items()}
    agreed = of_masks(outs["today"], outs["onnx"])
    return [
        Row(
            f"clippy {command}, cold, s",
            seconds["today", command],
            seconds.get(("before", command), ()),
            name,
            seconds["theirs", kind],
            agreed if kind == "onnx" else "",
        )
        for kind, (name, command) in COLD.items()
    ]


def _theirs(code: Code, kind: str, folder: Path, photo: str, labels: str, outs: dict[str, Path]) -> Run:
    outs[kind] = out = code.new("theirs")
    out.mkdir()
    return code.python([str(COMMANDS), kind, str(folder), photo, labels, str(out / f"{Path(photo).stem}_mask.png")])


def _ours(code: Code, command: str, photo: str, labels: str, outs: dict[str, Path]) -> Run:
    words, *rest = command.split()
    if words == "classify":
        return code.clippy([words, photo, "--labels", labels])
    outs[code.name] = out = code.new("ours")
    return code.clippy([words, photo, "--labels", labels, *rest, "--out", str(out)])


def _calls(ground: Ground, folder: Path) -> list[Row]:
    photos = ground.photos[:PHOTOS]
    rows = []
    with ExitStack() as stack:
        asked = {code.name: stack.enter_context(Asked(code)) for code in ground.codes}
        theirs = stack.enter_context(Asked(ground.today))
        for kind, call in CALLS.items():
            sides = {name: partial(one, call, photos=photos, labels=ground.labels) for name, one in asked.items()}
            sides["theirs"] = partial(theirs, "peer", kind=kind, folder=folder, photos=photos, labels=ground.labels)
            for side in sides.values():
                side()
            values = in_turn(ground.rounds(WARM_ROUNDS), sides)
            before = values.get("before", ())
            name = f"clip.{call}{', refine none' if call == 'segment' else ''}, a call, ms"
            rows.append(Row(name, values["today"], before, COLD[kind][0], values["theirs"]))
    return rows


def _after_encoder(ground: Ground, folder: Path) -> list[Row]:
    photos, rows = ground.photos[:PHOTOS], []
    with ExitStack() as stack:
        asked = {code.name: stack.enter_context(Asked(code)) for code in ground.codes}
        for labels, file in ((ground.labels, "labels.npy"), (ground.hundred, "hundred.npy")):
            given = {"photos": photos, "labels": labels, "vectors": folder / file}
            outs = {name: folder / f"{name}.npz" for name in (*asked, "theirs")}
            sides = {
                name: partial(one, "after_encoder", **given, out=outs[name], theirs=False)
                for name, one in asked.items()
            }
            sides["theirs"] = partial(asked["today"], "after_encoder", **given, out=outs["theirs"], theirs=True)
            for side in sides.values():
                side()
            values = in_turn(ground.rounds(WARM_ROUNDS), sides)
            ours, theirs = (np.load(outs[name]) for name in ("today", "theirs"))
            agreed = equal_pixels([(ours[name], theirs[name]) for name in ours.files])
            name = f"after the encoder, {len(labels)} labels, refine none, ms a photo"
            rows.append(Row(name, values["today"], values.get("before", ()), "SCLIP's way", values["theirs"], agreed))
    return rows
