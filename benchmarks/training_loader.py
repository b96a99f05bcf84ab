"""Shards to batches: clippy's loader against open_clip's webdataset pipeline."""

from __future__ import annotations

import argparse
import io
import json
import resource
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transform import AugmentationCfg, image_transform
from training_updates import Report
from webdataset.tariterators import tar_file_expander

from clippy_cli.data.images import image_format
from clippy_cli.data.shard_names import local_shards
from clippy_cli.data.shards import ShardSource
from clippy_cli.data.streams import Position
from clippy_cli.errors import ClippyError
from clippy_cli.model.text_tower import Tokenize
from clippy_cli.recipe.schema import Recipe
from clippy_cli.training.loader import ImageFeed
from clippy_cli.training.order import BatchShare
from clippy_cli.training.step_shapes import StepShapes

SIDE, CROP, SHARDS = 224, (0.9, 1.0), 4
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def measure_loader(options: argparse.Namespace, device: torch.device) -> Report:
    """Both loaders over shards of the options' images, passes in turn."""
    batch = options.batch_size or 64
    if not options.shards and options.images is None:
        raise SystemExit("--part loader needs --shards, --images, or both")
    shards = [str(Path(name).expanduser()) for name in options.shards]
    captions = ["two dogs run over the wet grass behind a red ball"]
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        sets: dict[str, list[tuple[str, bytes, str]]] = {}
        if shards:
            sets[f"samples of {Path(shards[0]).parent.name}"] = taken = list(stored(shards, options.samples))
            captions = [caption for _, _, caption in taken]
        if options.images is not None:
            photos = sorted(options.images.expanduser().glob("*.jpg"))
            files = [("jpeg", photo.read_bytes()) for photo in photos]
            pairs = zip(cycle(files), cycle(captions), strict=False)
            sets[f"{len(photos)} JPEG photos"] = [
                (suffix, data, caption) for (suffix, data), caption in islice(pairs, options.samples)
            ]
        for number, (name, samples) in enumerate(sets.items()):
            folder = Path(temporary) / str(number)
            write_shards(samples, folder)
            rows += compare(name, folder, len(samples) // (2 * batch) * 2 * batch, batch, options.passes)
    columns = ("shards", "measured", "ours, images/s", "open_clip, images/s", "ratio", "ratios of passes")
    return Report(
        columns,
        rows,
        f"{SIDE} pixels, crops {CROP}, batch {batch}, CLIP's tokenizer, passes of {options.samples} samples in "
        f"{SHARDS} shards that name image, text and JSON as img2dataset does; medians of {options.passes} passes each, "
        f"in turn. open_clip's batches are float32 and normalised, ours uint8, which a step normalises on its device.",
    )


def compare(name: str, folder: Path, samples: int, batch: int, passes: int) -> list[tuple[str, ...]]:
    """Images a second of CPU time with one worker, and of wall time with two."""
    rows = []
    for workers, measured in ((1, "a second of CPU time, 1 worker"), (2, "a second, 2 workers")):
        rates: dict[str, list[float]] = {"ours": [], "theirs": []}
        for turn in range(passes + 1):
            for side, loader in (("ours", ours), ("theirs", theirs)):
                cpu, wall = consume(partial(loader, folder, samples, batch, workers), samples)
                if turn:  # the first fills caches
                    rates[side].append(samples / (cpu if workers == 1 else wall))
        mine, other = (statistics.median(values) for values in rates.values())
        ratios = [a / b for a, b in zip(rates["ours"], rates["theirs"], strict=True)]
        rows.append(
            (
                name,
                measured,
                f"{mine:.0f}",
                f"{other:.0f}",
                f"{mine / other:.2f}x",
                f"{min(ratios):.2f}-{max(ratios):.2f}",
            )
        )
    return rows


def consume(start: Callable[[], Iterable[torch.Tensor]], samples: int) -> tuple[float, float]:
    """CPU seconds of this process and the workers it waited for, and wall seconds, of one pass."""
    before, began = cpu_seconds(), time.perf_counter()
    batches = start()
    images = sum(len(batch) for batch in batches)
    del batches  # its workers end and are counted
    assert images == samples, f"{images} of {samples} images came"
    return cpu_seconds() - before, time.perf_counter() - began


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def ours(folder: Path, samples: int, batch: int, workers: int) -> Iterable[torch.Tensor]:
    recipe = Recipe.model_validate(
        {
            "name": "benchmark",
            "output": "benchmark",
            "model": {"architecture": "clip-b16"},
            "data": {
                "source": {"kind": "shards", "paths": str(folder / "*.tar")},
                "crop_scale": CROP,
                "workers": workers,
            },
            "train": {"steps": samples // batch, "batch_size": batch, "lr": 1e-4},
        }
    )
    tokenize = Tokenize(SimpleTokenizer(context_length=77), 77, None)
    source = ShardSource([str(folder / "*.tar")])
    feed = ImageFeed(source, recipe.data, SIDE, tokenize, seed=0, pin_memory=False)
    shapes = StepShapes(recipe, (SIDE,), samples // batch)
    for made in feed.training(BatchShare(batch), 0, shapes, Position(0, 0, 0)):
        assert made.images is not None and made.token_ids is not None
        yield made.images


def theirs(folder: Path, samples: int, batch: int, workers: int) -> Iterable[torch.Tensor]:
    from open_clip_train import data as peer  # wants pandas, which nothing else here does

    # open_clip 3.3 trips over the marker that webdataset 1.0 puts at the end of a shard.
    peer.tar_file_expander = partial(tar_file_expander, eof_value=None)
    augmentation = AugmentationCfg(scale=CROP)
    arguments = argparse.Namespace(
        train_data=f"{folder}/{{0..{SHARDS - 1}}}.tar",
        train_num_samples=samples,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        batch_size=batch,
        workers=workers,
        world_size=1,
    )
    transform = image_transform(SIDE, is_train=True, mean=MEAN, std=STD, aug_cfg=augmentation)
    tokenizer = SimpleTokenizer(context_length=77)
    data = peer.get_wds_dataset(arguments, transform, is_train=True, floor=True, tokenizer=tokenizer)
    for images, _ in data.dataloader:
        yield images


def stored(shards: list[str], count: int) -> Iterable[tuple[str, bytes, str]]:
    """Suffix, image bytes and first caption of the first samples of existing shards."""
    try:
        paths = local_shards(shards)
    except ClippyError as error:
        raise SystemExit(error.message) from error
    source = ShardSource([str(path) for path in paths])
    for number in range(min(count, len(source))):
        shard, place = source._place(number)
        data = shard.image_bytes(place)
        yield image_format(data) or "jpeg", data, shard.captions(place)[0]


def write_shards(samples: list[tuple[str, bytes, str]], folder: Path) -> None:
    """Shards 0.tar, 1.tar and so on, of KEY.jpeg (or .webp, .png), KEY.txt and KEY.json."""
    folder.mkdir()
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard}.tar", "w") as tar:
            for number in range(shard, len(samples), SHARDS):
                suffix, image, caption = samples[number]
                fields = json.dumps({"caption": caption, "key": f"{number:06d}"}).encode()
                for kind, data in ((suffix, image), ("txt", caption.encode()), ("json", fields)):
                    member = tarfile.TarInfo(f"{number:06d}.{kind}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
