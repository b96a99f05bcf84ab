"""Folders for the fuzzers: tables of objects and places, captions in files, packs, stored features, clippy's notes."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

from clippy_cli.bulk.folder import BulkFolder
from clippy_cli.bulk.parts import LocalShard
from clippy_cli.data.captions import BrokenSampleError
from clippy_cli.data.class_captions import ClassFolderSource
from clippy_cli.data.identity import DataIdentity
from clippy_cli.data.image_folder import FolderSource
from clippy_cli.data.pack_claim import Packing
from clippy_cli.data.packing import pack_shards
from clippy_cli.errors import ClippyError
from clippy_cli.files import write_whole
from clippy_cli.locks import LOCK, hold_folder
from clippy_cli.notices import Notices
from clippy_cli.own_files import OwnFiles, replacing_own
from clippy_cli.recipe.loading import load_recipe
from clippy_cli.training.feature_cache import CachedFeed
from clippy_cli.training.stored_features import is_of
from clippy_cli.waterbirds.build.foregrounds import open_foregrounds
from clippy_cli.waterbirds.dataset import BUILD_FILE, SPLITS, open_waterbirds
from tests.fixtures import bird_trees
from tests.fixtures.data import encoded, noise, write_shard

SIDE = 16


def read_samples(source) -> None:
    """Every sample; those that are broken are left out, as training does, which counts them."""
    for index in range(len(source)):
        with suppress(BrokenSampleError):
            source.read(index)


def write_bulk(folder: Path) -> None:
    pictures = {f"{number}.jpg": encoded(noise(SIDE, SIDE, seed=number), "JPEG") for number in range(3)}
    write_shard(folder / "0.tar", pictures | {"0.txt": "a photo", "a.b.png": encoded(noise(SIDE, SIDE))})
    out = _bulk_folder(folder)
    out.claim({"settings": {"labels": ["dog"]}})
    (part,) = out.parts
    with out.working(part) as working:
        (working / "result").write_bytes(b"{}")
        notices = Notices()
        notices.ignored("member", "type .txt is not a photo", "0.txt")
        out.finish(part, working / "result", 4, 0, notices)


def read_bulk(folder: Path) -> None:
    out = _bulk_folder(folder)
    (part,) = out.parts
    out.record(part)
    with suppress(ClippyError), part.opened() as found:
        for photo in found.photos:
            with suppress(ClippyError):
                assert photo.image.ndim == 3
    out.claim({"settings": {"labels": ["dog"]}})
    out.complete({"settings": {"labels": ["dog"]}})


class _Shard(LocalShard):
    source = "0.tar"  # wherever the folder is copied to


def _bulk_folder(folder: Path) -> BulkFolder:
    return BulkFolder(folder / "out", [_Shard("0", folder / "0.tar")], ".jsonl", "clippy classify")


def write_birds(folder: Path) -> None:
    (folder / "set").mkdir()
    bird_trees.write_waterbirds(
        folder / "set", [(y, split, place) for y in (0, 1) for split in (0, 2) for place in (0, 1)]
    )
    named = {"classes": ["cat", "dog"], "places": ["land", "water"]}
    (folder / "set" / BUILD_FILE).write_text(json.dumps(named), encoding="utf-8")
    bird_trees.write_objects(folder / "objects", ["cat", "dog", "cat"])
    bird_trees.write_cub(folder / "cub", [("001.Black_footed_Albatross", True), ("002.House_Wren", False)])


def read_birds(folder: Path) -> None:
    birds = open_waterbirds(folder / "set", SPLITS[0])
    for index in range(len(birds)):
        birds.read(index)
    for name in ("objects", "cub"):
        objects = open_foregrounds(folder / name)
        for index in range(len(objects)):
            objects.read(index)


def write_classes(folder: Path) -> None:
    for name in ("dog", "cat"):
        (folder / name).mkdir()
        (folder / name / "1.jpg").write_bytes(encoded(noise(SIDE, SIDE), "JPEG"))
    (folder / "classes.yaml").write_text("dog: [dog, puppy]\ncat: cat\n", encoding="utf-8")


def read_classes(folder: Path) -> None:
    source = ClassFolderSource(folder)
    for index in range(len(source)):
        source.captions(index)
    read_samples(source)


def write_captions(folder: Path) -> None:
    for name in ("a", "b"):
        (folder / f"{name}.jpg").write_bytes(encoded(noise(SIDE, SIDE), "JPEG"))
        (folder / f"{name}.txt").write_text("two dögs\nrun\n", encoding="utf-8")


def read_captions(folder: Path) -> None:
    source = FolderSource(folder)
    read_samples(source)
    for notice in source.notices:
        str(notice).encode()


def write_pack(folder: Path) -> None:
    (folder / "photos").mkdir()
    write_captions(folder / "photos")
    read_pack(folder)


def read_pack(folder: Path) -> None:
    """A pack that is made again where it lies, which reads what the first one left."""
    pack_shards(FolderSource(folder / "photos"), folder / "pack", Packing(shards=2), workers=1)


_IDENTITY = DataIdentity(np.arange(8, dtype=np.int64).reshape(4, 2), str)


def write_features(folder: Path) -> None:
    np.save(folder / "images.npy", np.ones((4, 1, 5, 8), np.float16))
    np.save(folder / "texts.npy", np.ones((4, 8), np.float32))
    np.save(folder / "identity.npy", _IDENTITY.hashes)
    (folder / "samples.jsonl").write_text('["a"]\n["b", "c"]\n"cut short"\n["d"]\n', encoding="utf-8")
    (folder / "fingerprint.json").write_text('{"format": 2, "samples": 4}', encoding="utf-8")


def read_features(folder: Path) -> None:
    is_of(folder, {"format": 3, "samples": 4}, _IDENTITY)
    feed = CachedFeed(folder, load_recipe("quickstart"), lambda texts: torch.zeros(1), num_prefix=1, flip=False)
    for batch in feed.plain(np.arange(len(feed)), 2):
        assert batch.features is not None


def write_notes(folder: Path) -> None:
    (folder / LOCK).write_text(
        '{"work": "clippy train", "pid": 1, "host": "elsewhere", "since": "x"}', encoding="utf-8"
    )
    with replacing_own(folder, "photo.jpg"):
        for name in ("a.txt", "b.txt"):
            write_whole(folder / name, lambda stream: stream.write(b"mine"))


def read_notes(folder: Path) -> None:
    """The list of clippy's own files, then the lock, which is somebody else's unless it is damaged."""
    own = OwnFiles(folder)
    own.is_own(folder / "a.txt")
    with suppress(ClippyError), hold_folder(folder, "clippy tests"):
        own.check([folder / "b.txt"], "photo.jpg")
