"""A process that measures one code base's Python interface: orders come in as JSON lines, answers go out as such.

It is run with the code base on PYTHONPATH, so what it calls must be there before and today. Seconds are wall time, or
CPU time of all threads where INFERENCE_SPEED_CLOCK says so; milliseconds are of one photo.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import clippy_cli as clippy

BATCH = 8  # photos of a forward pass, as the commands have it
TEXTS = 256  # texts of a forward pass, as the text tower has it
clock = time.process_time if os.environ.get("INFERENCE_SPEED_CLOCK") == "cpu" else time.perf_counter


def main() -> None:
    """Answer until nothing more is asked; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(ORDERS[order.pop("name")](**order)), file=answers, flush=True)


@cache
def clip() -> Any:
    """The default model of this code base."""
    return clippy.load()


def imagenet_names() -> list[str]:
    """The names of ImageNet's classes, as published with CLIP."""
    from open_clip import IMAGENET_CLASSNAMES

    return list(IMAGENET_CLASSNAMES)


def encoder(photos: list[str]) -> float:
    """Milliseconds a photo of the image tower on batches that are ready."""
    batches = _batches(tuple(photos))
    begun = clock()
    for pixels in batches:
        clip().model.embed_patches(pixels)
    return 1000 * (clock() - begun) / len(photos)


@cache
def _batches(photos: tuple[str, ...]) -> list[Tensor]:
    """(B,3,H,W) normalized pixels: photos of one size among each BATCH, in the order of the list."""
    model, batches = clip().model, []
    for start in range(0, len(photos), BATCH):
        by_size: dict[tuple[int, ...], list[Any]] = {}
        for photo in photos[start : start + BATCH]:
            resized = _resized(photo)
            by_size.setdefault(resized.shape, []).append(resized)
        for images in by_size.values():
            pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)  # (B,H,W,3) -> (B,3,H,W)
            batches.append(model.preprocess.normalize(pixels.contiguous()))
    return batches


def _resized(photo: str) -> Any:
    """(H,W,3) uint8 at the model's resolution, sides multiples of its patch."""
    from PIL import Image

    from clippy_cli.data.images import dense_size, resize_image

    model = clip().model
    with Image.open(photo) as image:
        pixels = np.asarray(image.convert("RGB"))
    height, width = pixels.shape[:2]
    size = dense_size(height, width, model.defaults.resolution, model.preprocess.patch_size)
    return resize_image(pixels, *size)


def classify(photos: list[str], labels: list[str]) -> float:
    """Milliseconds a photo of ``clip.classify``, photo by photo."""
    return _each(photos, lambda photo: clip().classify(photo, labels))


def segment(photos: list[str], labels: list[str]) -> float:
    """Milliseconds a photo of ``clip.segment`` without refinement, photo by photo, up to the mask."""
    return _each(photos, lambda photo: clip().segment(photo, labels, refine="none").mask)


def peer(kind: str, folder: str, photos: list[str], labels: list[str]) -> float:
    """Milliseconds a photo of a peer of ``peer_commands.py``, photo by photo."""
    return _each(photos, lambda photo: _peer(kind, folder)(photo, labels))


@cache
def _peer(kind: str, folder: str) -> Callable[[str, Sequence[str]], Any]:
    from peer_commands import PEERS, Peer

    made: Peer = PEERS[kind](Path(folder))
    return made


def make_peers(folder: str, tiny: bool) -> None:
    """See :func:`peer_models.make_peers`."""
    from peer_models import make_peers

    make_peers(Path(folder), tiny=tiny)


def label_vectors(labels: list[str], out: str) -> None:
    """Write the (K,D) vectors of labels under the model's own templates."""
    from clippy_cli.data.prompts import patch_prompt_embeddings, resolve_templates

    model = clip().model
    vectors = patch_prompt_embeddings(model, labels, resolve_templates(model.defaults.templates))
    np.save(out, vectors.cpu().numpy())


def after_encoder(photos: list[str], labels: list[str], vectors: str, out: str, theirs: bool) -> float:
    """Milliseconds a photo from patches to the mask, ours without refinement, or theirs; the masks go to ``out``.

    Theirs is written anew by what SCLIP's public code does after its encoder (clip_segmentor.py, forward_feature and
    postprocess_result, there for mmseg): cosines of all patches and texts, upsampled bilinearly for every text to the
    photo's size, times the logit scale, softmax over the texts, argmax, and a threshold on the highest probability.
    """
    from clippy_cli.inference.features import patch_embeddings, read_photo
    from clippy_cli.inference.requests import SegmentRequest

    texts, scale = torch.from_numpy(np.load(vectors)), float(clip().model.defaults.logit_scale)
    answer = clip().prepare(SegmentRequest.read(labels, {"refine": "none"}))
    total, masks = 0.0, dict[str, Any]()
    for number, name in enumerate(photos):
        photo, patches = read_photo(name), patch_embeddings(clip().model, [_resized(name)])[0]
        begun = clock()
        if theirs:
            mask = _by_softmax_of_all(patches, texts, scale, photo.image.shape[:2]).numpy() + 1
        else:
            mask = answer.result(photo, patches).mask
        total += clock() - begun
        masks[str(number)] = mask.astype(np.uint8)
    np.savez(out, **masks)
    return 1000 * total / len(photos)


def _by_softmax_of_all(patches: Tensor, texts: Tensor, scale: float, size: tuple[int, int]) -> Tensor:
    """(h,w,D) patches, (K,D) texts -> (H,W) number of the text that wins each pixel."""
    logits = (patches @ texts.T).permute(2, 0, 1)[None]  # (1,K,h,w)
    large = torch.nn.functional.interpolate(logits, size=size, mode="bilinear")[0]  # (K,H,W)
    probabilities = (large * scale).softmax(0)
    winner = probabilities.argmax(0)
    winner[probabilities.max(0)[0] < 0.0] = 0
    return winner


def embed(captions: str, out: str) -> float:
    """Seconds of ``embed_texts`` on the lines of a file; the (K,D) vectors go to ``out``."""
    texts = Path(captions).read_text(encoding="utf-8").splitlines()
    begun = clock()
    vectors = clip().model.embed_texts(texts)
    seconds = clock() - begun
    np.save(out, vectors.cpu().numpy())
    return seconds


def text_tower(captions: str) -> float:
    """Seconds of the text tower on token ids that are ready, sorted by length, TEXTS at a time."""
    batches = _token_ids(captions)
    begun = clock()
    with torch.no_grad():
        for ids in batches:
            clip().model.text_vectors(ids)
    return clock() - begun


@cache
def _token_ids(captions: str) -> list[Tensor]:
    tokenize = clip().model.text.tokenize
    texts = Path(captions).read_text(encoding="utf-8").splitlines()
    texts.sort(key=lambda text: tokenize([text]).shape[1])
    return [tokenize(texts[start : start + TEXTS]) for start in range(0, len(texts), TEXTS)]


def prepare(labels: str, templates: str) -> float:
    """Seconds until ``classify`` has the vectors of the lines of a file under templates; the model is loaded before."""
    from clippy_cli.inference.requests import ClassifyRequest

    names = Path(labels).read_text(encoding="utf-8").splitlines()
    clip().prepare(ClassifyRequest.read(["something"], 1, "none", None))
    begun = clock()
    clip().prepare(ClassifyRequest.read(names, 1, templates, None))
    return clock() - begun


def _each(photos: Sequence[str], call: Callable[[str], Any]) -> float:
    begun = clock()
    for photo in photos:
        call(photo)
    return 1000 * (clock() - begun) / len(photos)


ORDERS: dict[str, Callable[..., Any]] = {
    order.__name__: order
    for order in (
        imagenet_names, encoder, classify, segment, peer, make_peers, label_vectors, after_encoder, embed, text_tower,
        prepare,
    )
}  # fmt: skip

if __name__ == "__main__":
    main()
