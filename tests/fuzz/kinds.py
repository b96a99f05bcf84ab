"""Every kind of input that clippy reads: how a whole one is written, and how it is read."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import open_clip
import torch
import yaml
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from safetensors.torch import save_file

from clippy_cli.data.benchmarks.catalogue import load_spec, open_own_set, open_set
from clippy_cli.data.images import read_image
from clippy_cli.data.index_cache import kept_index
from clippy_cli.data.pack_index import INDEX_COLUMNS, read_index
from clippy_cli.data.regions import read_regions
from clippy_cli.data.shards import ShardSource
from clippy_cli.data.tables import TableSource
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.compare import compare
from clippy_cli.evaluation.journal import Counted, Facts, Journal
from clippy_cli.evaluation.protocol import load_protocol
from clippy_cli.evaluation.tasks import Task
from clippy_cli.model.build import build_model
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.registry import load_architecture, parse_model_config
from clippy_cli.model.sources.authors import import_checkpoint
from clippy_cli.model.sources.loading import load_model
from clippy_cli.model.store import load_model_directory, save_model
from clippy_cli.processes import ALONE
from clippy_cli.recipe.loading import load_recipe
from clippy_cli.training import checkpoint as checkpoint_module
from clippy_cli.training.best import Best
from clippy_cli.training.checkpoint import (
    RunState,
    check_data,
    check_fits,
    load_checkpoint,
    load_optimizer,
    load_weights,
    restoring,
)
from clippy_cli.training.run import train
from clippy_cli.training.run_folder import RunFolder, draw_loss
from clippy_cli.training.train_step import TrainStep
from tests.fixtures import dinotxt_files, evaluation, foreign_models
from tests.fixtures.annotated_trees import write_bsds, write_panoptic
from tests.fixtures.benchmark_trees import write_context_mat
from tests.fixtures.data import encoded, noise, write_shard
from tests.fixtures.export_models import TRUNK, tiny_model
from tests.fuzz import folders
from tests.fuzz import mutators as m
from tests.fuzz.folders import read_samples
from tests.fuzz.harness import Kind
from tests.fuzz.masks import read_masks, write_masks

SIDE = 16
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


@functools.cache
def _vocabulary(context_length: int) -> SimpleTokenizer:
    return SimpleTokenizer(context_length=context_length)


def quick(read: Callable[..., None]) -> Callable[..., None]:
    """Make what is no part of the files once: open_clip's vocabulary takes longer to read than all of them."""

    def vocabulary(context_length: int | None = None, **_: object) -> SimpleTokenizer:
        return _vocabulary(context_length or 77)

    @functools.wraps(read)
    def reading(*arguments: Any) -> None:
        with (
            mock.patch.object(open_clip, "SimpleTokenizer", vocabulary),
            mock.patch.object(open_clip.factory, "SimpleTokenizer", vocabulary),
            mock.patch.object(checkpoint_module, "OPTIMIZER_PARTS", 2),
        ):
            read(*arguments)

    return reading


def ask(model) -> None:
    """What every command asks of a model."""
    side = 4 * model.preprocess.patch_size
    if side > 512:
        raise ClippyError("patches too large for this check")
    pixels = model.preprocess.normalize(torch.full((1, 3, side, side), 128, dtype=torch.uint8))
    model.embed_patches(pixels)
    if model.reads_texts:
        model.score_images(pixels, model.embed_texts(["a photo of a dog"]))


def write_model(folder: Path) -> None:
    (folder / "words").mkdir()
    save_model(tiny_model(text="bert", folder=folder / "words"), folder / "model")


def write_unsigned_model(folder: Path) -> None:
    """As of versions without checksums, so that what is damaged must be found in itself."""
    write_model(folder)
    (folder / "model" / "checksums.json").unlink()


@quick
def read_model(folder: Path) -> None:
    ask(load_model_directory(str(folder / "model"), device="cpu"))


ARCHITECTURE: dict[str, Any] = {
    "name": "tiny", "embed_dim": 16,
    "image": {"trunk": "vit_tiny_patch16_224", "trunk_args": TRUNK, "projection": "linear", "pooling": "max"},
    "text": {
        "kind": "open_clip", "encoder": {"width": 2, "heads": 1, "layers": 1, "vocab_size": 49408},
        "context_length": 32, "pooling": "eot", "projection": "linear",
    },
    "preprocess": {"mean": [0.5] * 3, "std": [0.5] * 3, "resolution": 32}, "inference": {"resolution": 32},
}  # fmt: skip
RECIPE: dict[str, Any] = {
    "name": "tiny", "output": "RUN", "seed": 3, "model": {"architecture": "tiny.yaml"},
    "data": {"source": {"kind": "scenes", "count": 16}, "workers": 0},
    "train": {"steps": 2, "batch_size": 8, "lr": 1e-3, "warmup_steps": 1},
}  # fmt: skip


def write_run(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(ARCHITECTURE), encoding="utf-8")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    train(run_recipe(folder), device="cpu")


def run_recipe(folder: Path):
    changes = {"model.architecture": str(folder / "tiny.yaml"), "output": str(folder / "run")}
    return load_recipe(folder / "recipe.yaml", changes)


@quick
def resume(folder: Path) -> None:
    """What a resumed run reads of a checkpoint, in its order, without the run itself."""
    recipe, path = run_recipe(folder), next(folder.glob("run/checkpoints/*.pt"))
    checkpoint = load_checkpoint(path)
    check_fits(checkpoint, recipe, 1, path, inexact=False)
    model = Clippy(parse_model_config(ARCHITECTURE, where="tests"))
    with restoring(path):
        RunState.resumed(checkpoint, path, Best(recipe), 0)
        model.load_state_dict(load_weights(path))
    check_data(checkpoint, 16, path, inexact=False)
    update = TrainStep(model, recipe, 2, {}, ALONE)
    with restoring(path):
        update.restore(load_checkpoint(path))
        update.optimizer.load_state_dict(load_optimizer(path))


def read_log(folder: Path) -> None:
    run = RunFolder(folder / "run")
    run.prepare(run_recipe(folder), 1, finished=True)
    draw_loss(run.records(), folder / "loss.png", "x")


def write_recipe(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")


def write_architecture(folder: Path) -> None:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(ARCHITECTURE), encoding="utf-8")


@quick
def read_architecture(folder: Path) -> None:
    ask(build_model(load_architecture(str(folder / "tiny.yaml"))))


def write_authors(folder: Path) -> None:
    foreign_models.write_tokenizer(folder / "tokenizer")
    encoder = {
        "model_type": "t5", "d_model": 32, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "pad_token_id": 0,
        "vocab_size": foreign_models.VOCABULARY,
    }  # fmt: skip
    text = {"kind": "hugging_face", "encoder": encoder, "context_length": 16, "pooling": "mean", "projection": "linear"}
    image = {**ARCHITECTURE["image"], "projection": "none"}
    fields = {**ARCHITECTURE, "embed_dim": 32, "text": text, "image": image}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")
    model = build_model(load_architecture(str(folder / "tiny.yaml")), tokenizer=str(folder / "tokenizer"))
    names = (
        ("image.trunk.", "visual.trunk."),
        ("text.encoder.transformer.embed_tokens.", "text.0.auto_model.shared."),
        ("text.encoder.transformer.", "text.0.auto_model.encoder."),
        ("text.projection.weight", "text.2.linear.weight"),
        ("log_logit_scale", "logit_scale"),
    )
    state = {}
    for name, value in model.state_dict().items():
        for own, theirs in names:
            if name.startswith(own):
                state[theirs + name.removeprefix(own)] = value
                break
    torch.save({"epoch": 1, "state_dict": state}, folder / "clippy_5k.pt")


@quick
def read_authors(folder: Path) -> None:
    given = {"architecture": str(folder / "tiny.yaml"), "tokenizer": str(folder / "tokenizer")}
    ask(import_checkpoint(folder / "clippy_5k.pt", **given))


@functools.cache
def known_to_open_clip() -> None:
    folder = Path(tempfile.mkdtemp())
    for name in ("tiny-vit", "tiny-deep"):
        (folder / f"{name}.json").write_text(json.dumps(foreign_models.OPEN_CLIP[name]), encoding="utf-8")
    open_clip.add_model_config(folder)


def write_open_clip(folder: Path) -> None:
    known_to_open_clip()
    foreign_models.write_open_clip(folder, "tiny-vit")
    save_file(torch.load(folder / "tiny-vit.pt", weights_only=True), folder / "tiny-vit.safetensors")


@quick
def read_open_clip(ending: str, folder: Path) -> None:
    ask(load_model(f"open_clip:tiny-vit/{folder / f'tiny-vit.{ending}'}", device="cpu"))


def write_open_clip_folder(folder: Path) -> None:
    """As open_clip saves a model for the hub."""
    write_open_clip(folder)
    target = folder / "saved"
    target.mkdir()
    (folder / "tiny-vit.safetensors").rename(target / "open_clip_model.safetensors")
    (folder / "tiny-vit.pt").unlink()
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    fields = {"model_cfg": foreign_models.OPEN_CLIP["tiny-vit"], "preprocess_cfg": preprocess}
    (target / "open_clip_config.json").write_text(json.dumps(fields), encoding="utf-8")


@quick
def read_open_clip_folder(folder: Path) -> None:
    ask(load_model(f"open_clip:{folder / 'saved'}", device="cpu"))


def write_transformers(folder: Path) -> None:
    foreign_models.write_transformers(folder / "clip", "clip")


def read_transformers(folder: Path) -> None:
    ask(load_model(f"hf:{next((folder / 'clip').iterdir())}", device="cpu"))


def write_timm(folder: Path) -> None:
    foreign_models.write_timm(folder)


def read_timm(folder: Path) -> None:
    ask(load_model(f"timm:test_vit@{folder / 'test_vit.safetensors'}", device="cpu"))


def write_dinotxt(folder: Path) -> None:
    dinotxt_files.write_dinotxt(folder)


@quick
def read_dinotxt(folder: Path) -> None:
    ask(load_model(f"dinotxt:{folder / 'dinotxt'}", device="cpu"))


def write_talk2dino(folder: Path) -> None:
    known_to_open_clip()
    foreign_models.write_talk2dino(folder)


@quick
def read_talk2dino(folder: Path) -> None:
    text, image = f"tiny-vit/{folder / 'tiny-vit.pt'}", f"test_vit@{folder / 'test_vit.safetensors'}"
    ask(load_model(f"talk2dino:{folder / 'talk2dino.pth'},text={text},trunk={image}", device="cpu"))


def write_dinoiser(folder: Path) -> None:
    known_to_open_clip()
    foreign_models.write_clip_dinoiser(folder)


@quick
def read_dinoiser(folder: Path) -> None:
    clip = f"tiny-deep/{folder / 'tiny-deep.pt'}"
    ask(load_model(f"clip-dinoiser:{folder / 'clip-dinoiser.pt'},clip={clip}", device="cpu"))


def write_set(folder: Path) -> None:
    for part, form in (("photos", "JPEG"), ("masks", "PNG")):
        (folder / part).mkdir()
        picture = noise(SIDE, SIDE) if part == "photos" else noise(SIDE, SIDE)[..., 0] % 2
        (folder / part / f"a.{'jpg' if form == 'JPEG' else 'png'}").write_bytes(encoded(picture, form))
    fields = {"title": "s", "images": "photos/{}.jpg", "masks": "masks/{}.png", "classes": {"a": "a", "b": ["b", "c"]}}
    (folder / "set.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")


def read_set(folder: Path) -> None:
    open_own_set(folder / "set.yaml").read(0)


def write_protocol(folder: Path) -> None:
    fields = {"resolution": 448, "window": 224, "stride": 112, "templates": "photo"}
    (folder / "own.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")


def write_results(folder: Path) -> None:
    for name in ("a", "b"):
        evaluation.write(folder / name, [(evaluation.segment_result(), evaluation.records())])


def write_journal(folder: Path) -> None:
    journal = Journal(folder, Facts("one", {}))
    for record in evaluation.records():
        journal.append({record.index: Counted({Task.SEGMENT: record})}, 0.5)
    journal.close()


def read_journal(folder: Path) -> None:
    journal = Journal(folder, Facts("one", {}))
    journal.read()
    journal.append({9: Counted({Task.SEGMENT: evaluation.records()[0]})}, 0.5)
    journal.close()


def write_regions(folder: Path) -> None:
    values = np.repeat(np.arange(4, dtype=np.uint8), SIDE * SIDE // 4).reshape(SIDE, SIDE)
    (folder / "a.png").write_bytes(encoded(values))
    masks = [{"segmentation": {"size": [SIDE, SIDE], "counts": [n, 9, SIDE * SIDE - n - 9]}} for n in range(8)]
    (folder / "a.json").write_text(json.dumps(masks), encoding="utf-8")


def read_regions_files(folder: Path) -> None:
    for name in ("a.json", "a.png"):
        read_regions(folder / name, SIDE, SIDE)


def write_all_mats(folder: Path) -> None:
    maps = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) % 5
    write_bsds(folder / "bsds", "val", {"1": [maps, maps]})
    classes = load_spec("context59").classes
    names = dict(enumerate(classes, start=1))
    write_context_mat(folder / "context", names, {"2008_000002": maps})


def read_bsds(folder: Path) -> None:
    from clippy_cli.data.benchmarks.bsds import _read_regions

    _read_regions(next(folder.glob("bsds/**/*.mat")))


def read_context(folder: Path) -> None:
    from clippy_cli.data.benchmarks.context_mat import read_label_map

    read_label_map(next(folder.glob("context/**/*.mat")))


def write_coco(folder: Path) -> None:
    write_panoptic(folder, {"1": np.full((SIDE, SIDE), 7)}, {"1": {7: 1}})


def read_coco(folder: Path) -> None:
    open_set("coco", load_spec("coco"), folder).read(0)


def write_images(folder: Path) -> None:
    for form in FORMATS:
        (folder / f"a.{form.lower()}").write_bytes(encoded(noise(SIDE, SIDE), form))
    (folder / "p.png").write_bytes(encoded(Image.fromarray(noise(SIDE, SIDE)).convert("P"), "PNG"))


def read_images(folder: Path) -> None:
    problems = []
    for path in sorted(folder.iterdir()):
        try:
            read_image(path)
        except ClippyError as error:
            problems.append(error)
    if problems:
        raise problems[0]


def write_table(folder: Path) -> None:
    (folder / "a.jpg").write_bytes(encoded(noise(SIDE, SIDE), "JPEG"))
    (folder / "rows.csv").write_text('image,caption\na.jpg,"a, b"\na.jpg,two\n', encoding="utf-8")
    (folder / "rows.tsv").write_text("image\tcaption\na.jpg\ta b\na.jpg\ttwo\n", encoding="utf-8")


def read_tables(folder: Path) -> None:
    for name in ("rows.csv", "rows.tsv"):
        source = TableSource(folder / name)
        read_samples(source)


def write_tar(folder: Path) -> None:
    picture = encoded(noise(SIDE, SIDE), "JPEG")
    members = {f"{n:04d}.{end}": held for n in range(4) for end, held in (("jpg", picture), ("txt", f"photo {n}"))}
    write_shard(folder / "a.tar", members | {"9.jpg": picture, "9.json": '{"captions": ["a", "b"]}'})
    (folder / "a.tsv").write_text("\t".join(INDEX_COLUMNS) + "\n0\tok\ta.jpg\t\n", encoding="utf-8")
    kept_index(folder / "a.tar", keep=folder / "a.index")


def read_tar(folder: Path) -> None:
    kept_index(folder / "a.tar", keep=folder / "a.index")
    read_index(folder / "a.tsv")
    read_samples(ShardSource([str(folder / "a.tar")]))


KINDS: dict[str, Kind] = {
    "model": Kind(write_model, read_model, {"model/**/*.json": m.JSON, "model/*.safetensors": m.SAFETENSORS}),
    "unsigned-model": Kind(
        write_unsigned_model, read_model, {"model/**/*.json": m.JSON, "model/*.safetensors": m.SAFETENSORS}
    ),
    "checkpoint": Kind(write_run, resume, {"run/checkpoints/*.pt": m.ARCHIVE}),
    "run-log": Kind(write_run, read_log, {"run/*.jsonl": m.LINES}),
    "authors": Kind(write_authors, read_authors, {"*.pt": m.ARCHIVE}),
    "open-clip-pt": Kind(write_open_clip, functools.partial(read_open_clip, "pt"), {"*.pt": m.ARCHIVE}),
    "open-clip-safetensors": Kind(
        write_open_clip, functools.partial(read_open_clip, "safetensors"), {"*.safetensors": m.SAFETENSORS}
    ),
    "open-clip-folder": Kind(
        write_open_clip_folder, read_open_clip_folder, {"saved/*.json": m.JSON, "saved/*.safetensors": m.SAFETENSORS}
    ),
    "transformers": Kind(
        write_transformers, read_transformers, {"**/*.json": m.JSON, "**/*.safetensors": m.SAFETENSORS}
    ),
    "timm": Kind(write_timm, read_timm, {"*.safetensors": m.SAFETENSORS}),
    "recipe": Kind(write_recipe, lambda folder: load_recipe(folder / "recipe.yaml"), {"*.yaml": m.YAML}),
    "architecture": Kind(
        write_architecture, read_architecture, {"*.yaml": m.YAML}
    ),
    "set": Kind(write_set, read_set, {"set.yaml": m.YAML, "masks/*": m.BYTES}),
    "protocol": Kind(write_protocol, lambda folder: load_protocol(str(folder / "own.yaml")), {"*.yaml": m.YAML}),
    "result": Kind(
        write_results, lambda folder: compare(folder / "a", folder / "b", resamples=20),
        {"a/result.json": m.JSON, "a/*.jsonl": m.LINES},
    ),
    "journal": Kind(write_journal, read_journal, {"*.jsonl": m.LINES}),
    "regions": Kind(write_regions, read_regions_files, {"a.png": m.BYTES, "a.json": m.JSON}),
    "bsds": Kind(write_all_mats, read_bsds, {"bsds/**/*.mat": m.MATLAB}),
    "context": Kind(write_all_mats, read_context, {"context/**/*.mat": m.MATLAB}),
    "coco": Kind(write_coco, read_coco, {"annotations/*.json": m.JSON, "annotations/*/*.png": m.BYTES}),
    "mask": Kind(write_masks, read_masks, {"*.png": m.BYTES, "val.txt": m.TEXT, "screen.icc": m.BYTES}),
    "image": Kind(write_images, read_images, {"*": m.BYTES}),
    "table": Kind(write_table, read_tables, {"rows.*": (*m.LINES, *m.TEXT)}),
    "tar": Kind(write_tar, read_tar, {"a.*": m.BYTES}),
    "bulk": Kind(
        folders.write_bulk, folders.read_bulk,
        {"*.tar": m.BYTES, "out/*.json": m.JSON, "out/records/*.json": m.JSON},
    ),
    "captions": Kind(folders.write_captions, folders.read_captions, {"*": m.TEXT}),
    "class-folders": Kind(folders.write_classes, folders.read_classes, {"classes.yaml": m.YAML, "*/*.jpg": m.BYTES}),
    "pack": Kind(
        folders.write_pack, folders.read_pack,
        {"pack/*.json": m.JSON, "pack/*.tsv": (*m.LINES, *m.TEXT), "pack/*.tar": m.BYTES},
    ),
    "birds": Kind(
        folders.write_birds, folders.read_birds,
        {"**/*.csv": (*m.LINES, *m.TEXT), "**/*.txt": (*m.LINES, *m.TEXT), "set/*.json": m.JSON, "**/*.png": m.BYTES},
    ),
    "features": Kind(
        folders.write_features, folders.read_features, {"*.npy": m.ARRAY, "*.jsonl": m.LINES, "*.json": m.JSON}
    ),
    "notes": Kind(folders.write_notes, folders.read_notes, {".clippy-written.jsonl": m.LINES, ".clippy-lock": m.JSON}),
    "dinotxt": Kind(write_dinotxt, read_dinotxt, {"**/*.pth": m.ARCHIVE}),
    "talk2dino": Kind(write_talk2dino, read_talk2dino, {"talk2dino.pth": m.ARCHIVE}),
    "clip-dinoiser": Kind(write_dinoiser, read_dinoiser, {"clip-dinoiser.pt": m.ARCHIVE}),
}  # fmt: skip


def main() -> int:
    """``python -m tests.fuzz --kind checkpoint --count 4000``; exit code 1 where any file was not refused well."""
    from tests.fuzz.harness import fuzz

    parser = argparse.ArgumentParser(description="Damage files and read them as clippy does.")
    parser.add_argument("--kind", action="append", choices=sorted(KINDS), help="by default all")
    parser.add_argument("--count", type=int, default=200, help="files of each kind")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--table", type=Path, help="a JSON Lines file that the counts are added to")
    options = parser.parse_args()
    failed = False
    for name in options.kind or KINDS:
        tally = fuzz(name, KINDS[name], options.count, first=options.first)
        failed |= bool(tally.failures)
        print(tally, *tally.failures, sep="\n  ", flush=True)  # noqa: T201
        if options.table is not None:
            with options.table.open("a", encoding="utf-8") as table:
                table.write(json.dumps(dataclasses.asdict(tally)) + "\n")
    return int(failed)
