"""``image.onnx``, ``text.onnx`` and what a program needs to feed them, compared with the model on ONNX Runtime."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from clippy_cli import __version__
from clippy_cli.data.prompts import resolve_templates
from clippy_cli.errors import ClippyError, first_line
from clippy_cli.export.graphs import ImageGraph, TextGraph
from clippy_cli.export.parity import (
    Difference,
    ExportReport,
    difference,
    file_sizes,
    refuse_model_folder,
    require_parity,
    sample_images,
    sample_texts,
)
from clippy_cli.extras import install_command
from clippy_cli.files import json_text, whole_folder
from clippy_cli.model.choices import Pooling
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.patch_forms import patch_form

LIMIT = 1e-4
IMAGE_FILE, TEXT_FILE, CONFIG_FILE, TOKENIZER_FOLDER = "image.onnx", "text.onnx", "config.json", "tokenizer"
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_LOGGERS = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")
_ONE_FILE_BYTES = 1_500_000_000  # a protobuf ends at 2 GiB; larger weights lie in a file beside it


def export_onnx(model: Clippy, out: Path, *, opset: int = 18, overwrite: bool = False) -> ExportReport:
    """Write a folder with both towers as ONNX graphs, tokenizer files and ``config.json``, on the CPU in float32.

    Batch, height and width are free; the sides are multiples of the patch. ONNX Runtime's outputs are compared with the
    model's at a square and another size, batches of one and two, and with padded texts. With ``overwrite`` files of the
    same names are replaced in a folder that is not empty. ClippyError where a package of the extra is missing, the
    export fails or a difference exceeds ``LIMIT``; nothing is then written.
    """
    for package in _PACKAGES:
        _needed(package)
    newest = _needed("onnx").defs.onnx_opset_version()
    if opset > newest:
        raise ClippyError(f"The installed onnx knows operator sets up to {newest}, not {opset}.", "Try --opset 18.")
    refuse_model_folder(out)
    model = model.to("cpu").eval()
    with whole_folder(out, overwrite=overwrite) as folder, torch.no_grad():
        image, text = ImageGraph(model).eval(), TextGraph(model).eval()
        token_ids = model.text.tokenize(sample_texts())
        patch = model.preprocess.patch_size
        batch = Dim("batch")
        sides = {2: patch * Dim("h"), 3: patch * Dim("w")}
        pixels = sample_images(2, 4 * patch, 6 * patch)
        _write(image, folder / IMAGE_FILE, {"pixels": pixels}, {0: batch, **sides}, ["patches", "pooled"], opset)
        lengths = {} if model.text.pad_id is None else {1: Dim("length")}
        _write(text, folder / TEXT_FILE, {"token_ids": token_ids}, {0: batch, **lengths}, list(text.outputs), opset)
        model.text.save_tokenizer(folder / TOKENIZER_FOLDER)
        description = json_text(_description(model, opset))
        (folder / CONFIG_FILE).write_text(description + "\n", encoding="utf-8")
        differences = (*_image_differences(image, folder / IMAGE_FILE), *_text_differences(text, folder / TEXT_FILE))
        require_parity(differences, LIMIT)
    return ExportReport(out, file_sizes(out), LIMIT, differences)


def _needed(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ClippyError(
            f"ONNX export needs the package {package}, which cannot be imported: {error}",
            install_command("onnx"),
        ) from error


def _write(
    graph: nn.Module, path: Path, example: dict[str, Tensor], free: dict[int, Any], outputs: list[str], opset: int
) -> None:
    """Trace ``graph`` with its one, named, input; ``free`` names the axes that are left open."""
    weight_bytes = sum(value.nbytes for value in graph.state_dict().values())
    try:
        with _quietly():
            torch.onnx.export(
                graph,
                tuple(example.values()),
                path,
                dynamo=True,
                dynamic_shapes=(free,),
                opset_version=opset,
                input_names=list(example),
                output_names=outputs,
                external_data=weight_bytes > _ONE_FILE_BYTES,
                verbose=False,
            )
    except Exception as error:  # the exporter passes on whatever its passes raise
        reason = first_line(error.__cause__ or error)
        raise ClippyError(
            f"torch {torch.__version__} cannot export {path.name} at opset {opset}: {reason}",
            "Try --opset 18, or other versions of torch and onnxscript.",
        ) from error
    written = _needed("onnx").load(path, load_external_data=False).opset_import
    found = {entry.domain: entry.version for entry in written}.get("")
    if found != opset:
        raise ClippyError(
            f"{path.name} came out at opset {found}, not {opset}.", f"Choose --opset {found}, or a version between."
        )


def _image_differences(graph: ImageGraph, path: Path) -> Iterator[Difference]:
    preprocess = graph.model.preprocess
    side = max(2, preprocess.resolution // preprocess.patch_size)
    session = _session(path)
    for h, w in ((side, side), (max(1, side * 2 // 3), side * 3 // 2)):
        for batch in (1, 2):
            pixels = sample_images(batch, h * preprocess.patch_size, w * preprocess.patch_size)
            exported = session.run(None, {"pixels": pixels.numpy()})
            for name, found, wanted in zip(("patches", "pooled"), exported, graph(pixels), strict=True):
                yield difference(name, pixels, torch.from_numpy(found), wanted)


def _text_differences(graph: TextGraph, path: Path) -> Iterator[Difference]:
    session = _session(path)
    texts = sample_texts()
    for chosen in (texts[:1], texts[1:], texts):
        token_ids = graph.model.text.tokenize(chosen)
        found = session.run(None, {"token_ids": token_ids.numpy()})
        for vectors, expected in zip(found, graph(token_ids), strict=True):
            yield difference("text", token_ids, torch.from_numpy(vectors), expected)


def _session(path: Path) -> Any:
    runtime = _needed("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _description(model: Clippy, opset: int) -> dict[str, Any]:
    image, text, defaults = model.config.image, model.config.text, model.defaults
    own_vocabulary = text.kind == "open_clip"
    width = "D" if model.config.patch_dim == model.config.embed_dim else "D/2"
    return {
        "format": 1,
        "clippy": __version__,
        "model": model.name,
        "opset": opset,
        "embed_dim": model.config.embed_dim,
        "image": {
            "file": IMAGE_FILE,
            "pixels": "(B,3,H,W) float32 RGB in [0, 1]; mean and std are applied in the graph",
            "mean": model.preprocess.mean,
            "std": model.preprocess.std,
            "patch_size": model.preprocess.patch_size,
            "native_resolution": model.preprocess.resolution,
            "resize": f"antialiased bicubic, short side {defaults.resolution}, sides multiples of the patch",
            "patches": f"(B,H/p,W/p,{width}) unit norm, {patch_form(model)}",
            "positions": model.positions,
            "pooled": "(B,D) unit norm",
            "pooling": image.pooling,
            "lse_scale": (model.config.inference.lse_scale or image.lse_scale)
            if image.pooling == Pooling.LSE
            else None,
        },
        "text": {
            "file": TEXT_FILE,
            "token_ids": "(K,L) int64; L is always context_length"
            if own_vocabulary
            else "(K,L) int64; L is at most context_length, padding with pad_id is masked",
            "embeddings": "(K,D) unit norm",
            **({"patch_embeddings": f"(K,{width}) unit norm, for patches"} if width != "D" else {}),
            "tokenizer": f"open_clip.SimpleTokenizer(context_length={text.context_length})"
            if own_vocabulary
            else f"{TOKENIZER_FOLDER}/ (transformers.AutoTokenizer; runs of white space become one blank first)",
            "context_length": text.context_length,
            "pad_id": model.text.pad_id,
        },
        "templates": resolve_templates(defaults.templates),
        "logit_scale": defaults.logit_scale,
    }


@contextmanager
def _quietly() -> Iterator[None]:
    """While open, the exporter's warnings and log records stay unseen: what counts is compared afterwards."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
