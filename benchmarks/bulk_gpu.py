"""Photos a second of segment, evaluate and embed on one device, and where the rest of the time goes.

Photos are drawn once and held decoded in memory, so that neither disk nor JPEG is measured. Each row: all that the
command does with a photo but reading and writing files; the encoder's share of it; and, on a CUDA device, how often and
how much is copied between host and device for each photo. The last rows are refinement alone, on the host and on the
device. Weights are random but for clippy-ti, whose speed is the same; embeddings are made in bfloat16.

    python benchmarks/bulk_gpu.py --device cuda
    python benchmarks/bulk_gpu.py --tiny --no-file
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
from results_file import write_results

from clippy_cli.clip import Clip
from clippy_cli.data.benchmarks.base import BenchmarkClass, SegmentationSet, SegmentedImage, SetInfo
from clippy_cli.data.images import resize_image
from clippy_cli.evaluation.protocol import load_protocol
from clippy_cli.evaluation.set_evaluation import evaluate_set
from clippy_cli.evaluation.settings import Overrides
from clippy_cli.evaluation.tasks.base import Options
from clippy_cli.inference.choices import Refinement
from clippy_cli.inference.features import DecodedPhoto
from clippy_cli.inference.refine.refinement import refine
from clippy_cli.inference.requests import SegmentRequest
from clippy_cli.model.build import build_model
from clippy_cli.model.device import resolve_device
from clippy_cli.model.registry import load_architecture
from clippy_cli.model.store import find_model
from clippy_cli.reporting.model_choice import ModelChoice

COLUMNS = ("model", "short side", "work", "photos/s", "encoder's share", "copies/photo", "MB/photo")
LABELS = ("dog", "cat", "car", "person", "grass", "sky", "road", "building")
SIZE = (375, 500)  # of most VOC photos
TINY_SIZE = (48, 64)


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", nargs="+", default=["clippy-ti", "clippy-b16"])
    parser.add_argument("--resolutions", nargs="+", type=int, default=[224, 448])
    parser.add_argument("--photos", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiny", action="store_true", help="everything in small, for any machine")
    parser.add_argument("--no-file", action="store_true", help="print only")
    options = parser.parse_args()
    if options.tiny:
        options.architectures, options.resolutions, options.photos, options.batch_size = ["clippy-nano"], [64], 4, 2
    device = resolve_device(options.device)
    height, width = TINY_SIZE if options.tiny else SIZE
    photos = drawn_photos(options.photos, height, width)
    rows = [
        row
        for name in options.architectures
        for side in options.resolutions
        for row in rows_of(name, side, photos, options.batch_size, device)
    ]
    rows += refinement_rows(photos[0], device)
    settings = (
        f"`python benchmarks/bulk_gpu.py --photos {options.photos} --batch-size {options.batch_size}`; photos of "
        f"{width}x{height} pixels held in memory, {len(LABELS)} labels, bfloat16, {torch.get_num_threads()} threads."
    )
    if not options.no_file:
        print(f"written to {write_results('bulk_gpu', settings, COLUMNS, rows, device)}")


def rows_of(name: str, side: int, photos: Sequence[DecodedPhoto], batch: int, device: torch.device) -> list[list[str]]:
    """Each kind of work with one architecture at one short side in pixels."""
    model = in_bfloat16(random_model(name).to(device))
    clip = Clip(ModelChoice(model, name))
    images = Labeled(photos)

    def segment(refinement: str) -> Callable[[], None]:
        answer = clip.prepare(SegmentRequest.read(LABELS, {"resolution": side, "refine": refinement}))
        return lambda: exhaust(result.record() for result in clip.answer(answer, photos, batch_size=batch))  # type: ignore[union-attr]

    def evaluate() -> None:
        evaluate_set(
            model,
            images,
            load_protocol("clippy"),
            tasks=("segment",),
            overrides=Overrides(resolution=side),
            options=Options(batch_size=batch),
        )

    work = {
        "segment, no refinement": segment("none"),
        "segment, guided filter": segment("guided"),
        "evaluate": evaluate,
        "embed": lambda: exhaust(clip.embed_many(photos, resolution=side, batch_size=batch)),
        "embed, patches": lambda: exhaust(clip.embed_many(photos, patches=True, resolution=side, batch_size=batch)),
    }
    rows = []
    for what, run in work.items():
        run()  # warm up
        model.encoder_seconds = 0.0
        seconds = timed(run, device)
        share = model.encoder_seconds / seconds
        copies = [f"{value:.2f}" for value in copied(run, len(photos))] if device.type == "cuda" else ["", ""]
        rows.append([name, f"{side}", what, f"{len(photos) / seconds:.1f}", f"{share:.0%}", *copies])
        print(" | ".join(rows[-1]), flush=True)  # a table that takes minutes may be cut off
    return rows


def random_model(name: str) -> Any:
    """A model of an architecture with random weights, and the tokenizer of the shipped model where it needs one."""
    config = load_architecture(name)
    tokenizer = str(find_model("clippy-ti") / "tokenizer") if config.text.kind == "hugging_face" else None
    return build_model(config, tokenizer=tokenizer, seed=0).eval()


def in_bfloat16(model: Any) -> Any:
    """The model, whose embeddings are made under autocast in any thread, and whose image encoder is timed."""
    model.encoder_seconds = 0.0
    for name in ("embed_images", "embed_patches", "embed_texts"):
        setattr(model, name, _autocast(model, getattr(model, name), is_timed=name != "embed_texts"))
    return model


def _autocast(model: Any, embed: Callable[[Any], Any], *, is_timed: bool) -> Callable[[Any], Any]:
    @wraps(embed)
    def run(inputs: Any) -> Any:
        def embedded() -> Any:
            with torch.autocast(model.device.type, torch.bfloat16):
                return embed(inputs)

        if not is_timed:
            return embedded()
        value: list[Any] = []
        model.encoder_seconds += timed(lambda: value.append(embedded()), model.device)
        return value[0]

    return run


class Labeled(SegmentationSet):
    """Photos in memory with masks that name any class; the figures mean nothing, their cost does."""

    background, context = None, ()

    def __init__(self, photos: Sequence[DecodedPhoto]) -> None:
        self.info = SetInfo("drawn", "Drawn photos")
        self.classes = tuple(BenchmarkClass(label, (label,)) for label in LABELS)
        self._photos = photos

    def __len__(self) -> int:
        return len(self._photos)

    def key(self, index: int) -> str:
        return self._photos[index].key

    def read(self, index: int) -> SegmentedImage:
        image = self._photos[index].image
        return SegmentedImage(self.key(index), image, (image[..., 0] % len(LABELS)).astype(np.uint8))


def drawn_photos(count: int, height: int, width: int) -> list[DecodedPhoto]:
    """Photos of smooth noise, (height,width,3) uint8."""
    rng = np.random.default_rng(0)
    small = (rng.integers(0, 256, (12, 16, 3), dtype=np.uint8) for _ in range(count))
    return [DecodedPhoto(f"photo {number}", resize_image(noise, height, width)) for number, noise in enumerate(small)]


def refinement_rows(photo: DecodedPhoto, device: torch.device) -> list[list[str]]:
    """One photo's refinement, its maps on the host and, where there is one, on the device."""
    height, width = photo.image.shape[:2]
    maps = torch.rand(len(LABELS), height // 16, width // 16, generator=torch.Generator().manual_seed(0))
    rows = []
    for place in dict.fromkeys((torch.device("cpu"), device)):
        here = maps.to(place)
        for method in (Refinement.GUIDED, Refinement.PAMR):

            def run(here: torch.Tensor = here, method: Refinement = method) -> None:
                refine(here, range(1, len(LABELS) + 1), photo.image, method)

            run()
            seconds = min(timed(run, device) for _ in range(3))
            rows.append(["", "", f"{method} alone, maps on {place.type}", f"{1 / seconds:.1f}", "", "", ""])
            print(" | ".join(rows[-1]), flush=True)
    return rows


def timed(run: Callable[[], object], device: torch.device) -> float:
    """Seconds, with what the device still has to do."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    begun = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - begun


def copied(run: Callable[[], object], photos: int) -> tuple[float, float]:
    """Copies between host and device, and their MB, a photo, as torch's profiler counts them."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    copies = [event for event in events if "Memcpy" in str(event.get("name")) and "DtoD" not in str(event["name"])]
    return len(copies) / photos, sum(event.get("args", {}).get("bytes", 0) for event in copies) / photos / 1e6


def exhaust(results: Iterable[object]) -> None:
    """Take all, keep none."""
    for _ in results:
        pass


if __name__ == "__main__":
    main()
