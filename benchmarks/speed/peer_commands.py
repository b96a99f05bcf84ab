"""What a user of other libraries runs on one photo, as their documentation has it.

``python peer_commands.py KIND FOLDER PHOTO LABELS OUT`` prints the best label, or writes a palette PNG of the photo's
size. Imports are inside the functions: a command pays for what it uses.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Peer = Callable[[str, Sequence[str]], Any]


def main() -> None:
    """Run one peer on one photo."""
    kind, folder, photo, labels, out = sys.argv[1:]
    answer = PEERS[kind](Path(folder))(photo, labels.split(","))
    if isinstance(answer, str):
        print(answer)
        return
    from PIL import Image

    mask = Image.fromarray(answer)
    mask.putpalette([value for number in range(256) for value in (number * 67 % 256, number * 131 % 256, number)])
    mask.save(out)


def pipeline(folder: Path) -> Peer:
    """Transformers' pipeline zero-shot-image-classification: the best label."""
    from transformers import pipeline

    classify = pipeline("zero-shot-image-classification", model=str(folder / "clip"), device="cpu")
    return lambda photo, labels: classify(photo, candidate_labels=list(labels))[0]["label"]


def clipseg(folder: Path) -> Peer:
    """CLIPSeg: the photo once for each label, as its model card has it; (H,W) uint8 numbers of labels from 1."""
    import torch
    from PIL import Image
    from transformers import AutoProcessor, CLIPSegForImageSegmentation

    processor = AutoProcessor.from_pretrained(folder / "clipseg")
    model = CLIPSegForImageSegmentation.from_pretrained(folder / "clipseg").eval()

    def segment(photo: str, labels: Sequence[str]) -> Any:
        image = Image.open(photo).convert("RGB")
        inputs = processor(text=list(labels), images=[image] * len(labels), padding=True, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits  # (K,h,w)
        return _winners(logits.view(len(labels), *logits.shape[-2:]), image.size)

    return segment


def groupvit(folder: Path) -> Peer:
    """GroupViT with output_segmentation; (H,W) uint8 numbers of labels from 1."""
    import torch
    from PIL import Image
    from transformers import AutoProcessor, GroupViTModel

    processor = AutoProcessor.from_pretrained(folder / "groupvit")
    model = GroupViTModel.from_pretrained(folder / "groupvit").eval()

    def segment(photo: str, labels: Sequence[str]) -> Any:
        image = Image.open(photo).convert("RGB")
        inputs = processor(
            text=[f"a photo of a {label}" for label in labels], images=image, padding=True, return_tensors="pt"
        )
        with torch.no_grad():
            logits = model(**inputs, output_segmentation=True).segmentation_logits  # (1,K,h,w)
        return _winners(logits[0], image.size)

    return segment


def onnx(folder: Path) -> Peer:
    """A command in the manner of rembg, which imports no torch: ONNX Runtime on clippy's own exported image tower.

    The labels' vectors were stored before (``labels.npy``); the scores are upsampled label by label with Pillow.
    """
    import numpy as np
    import onnxruntime
    from PIL import Image

    about = json.loads((folder / "onnx" / "config.json").read_text(encoding="utf-8"))["image"]
    session = onnxruntime.InferenceSession(str(folder / "onnx" / about["file"]), providers=["CPUExecutionProvider"])
    vectors = np.load(folder / "labels.npy")  # (K,D)
    patch, side = about["patch_size"], about["native_resolution"]

    def segment(photo: str, labels: Sequence[str]) -> Any:
        image = Image.open(photo).convert("RGB")
        factor = side / min(image.size) / patch
        width, height = (max(1, round(length * factor)) * patch for length in image.size)
        small = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 255
        patches = session.run(["patches"], {"pixels": small.transpose(2, 0, 1)[None]})[0][0]  # (h,w,D)
        scores = patches @ vectors[: len(labels)].T  # (h,w,K)
        best, winner = None, np.zeros(image.size[::-1], np.uint8)
        for number in range(scores.shape[-1]):
            plane = Image.fromarray(np.ascontiguousarray(scores[..., number], np.float32))
            large = np.asarray(plane.resize(image.size, Image.Resampling.BILINEAR))
            better = np.ones_like(winner, bool) if best is None else large > best
            winner[better] = number + 1
            best = large if best is None else np.maximum(best, large)
        return winner

    return segment


def _winners(logits: Any, size: tuple[int, int]) -> Any:
    """(K,h,w) -> (H,W) uint8 numbers of the highest from 1; ``size`` is (W,H)."""
    import torch

    large = torch.nn.functional.interpolate(logits[None], size=size[::-1], mode="bilinear", align_corners=False)
    return (large[0].argmax(0) + 1).to(torch.uint8).numpy()


PEERS: dict[str, Callable[[Path], Peer]] = {
    "pipeline": pipeline, "clipseg": clipseg, "groupvit": groupvit, "onnx": onnx,
}  # fmt: skip

if __name__ == "__main__":
    main()
