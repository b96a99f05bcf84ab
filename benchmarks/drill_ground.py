"""Where fault drills take place: shards on a disk or behind a URL, runs to disturb, and undisturbed ones to compare."""

from __future__ import annotations

import errno
import functools
import hashlib
import http.server
import json
import os
import random
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from clippy_cli.data.image_folder import FolderSource
from clippy_cli.data.pack_claim import Packing
from clippy_cli.data.packing import pack_shards
from clippy_cli.data.scenes import SceneSource

STEPS, CHECKPOINT_EVERY, BATCH, SHARDS, SCENES = 40, 8, 16, 8, 400
PATIENCE = 120.0
SAME = ("step", "loss", "image_accuracy", "text_accuracy", "learning_rate", "grad_norm")
ARCHITECTURE = """\
name: drill
embed_dim: 16
image:
  trunk: vit_tiny_patch16_224
  trunk_args: {img_size: 32, patch_size: 8, embed_dim: 32, depth: 2, num_heads: 2}
  projection: linear
  pooling: max
text:
  kind: open_clip
  encoder: {width: 16, heads: 2, layers: 1, vocab_size: 49408}
  context_length: 32
  pooling: eot
  projection: linear
preprocess: {mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5], resolution: 32}
inference: {resolution: 32}
"""


@dataclass
class Drill:
    """What a drill did, saw and lost."""

    what: str = ""
    seen: list[str] = field(default_factory=list)
    repeated: int = 0
    left_out: str = "none"
    compared: str = "not compared"
    lost: list[str] = field(default_factory=list)

    def expect(self, fulfilled: bool, otherwise: str) -> None:
        if not fulfilled:
            self.lost.append(otherwise)

    def readable(self, run: Run, *codes: int) -> None:
        """The run's processes ended with one of ``codes``, and said so in words."""
        found = run.wait()
        self.expect(set(found) <= set(codes), f"exit codes {found} instead of {codes}: {run.said()[-300:]}")
        self.expect("Traceback" not in run.said(), f"a traceback: {run.said()[-300:]}")
        self.expect(run.said().count("error:") <= 1, f"more than one error: {run.said()[-600:]}")

    def same(self, reference: Path, folder: Path) -> None:
        """The run in ``folder`` ended like the one that nothing happened to."""
        try:
            weights, curve = (f(reference) == f(folder) for f in (weights_of, curve_of))
        except OSError as error:
            weights = curve = False
            self.expect(False, f"no result ({error})")
        self.expect(weights, "the weights differ")
        self.expect(curve, "log.jsonl differs")
        self.compared = "bit-equal" if weights and curve else "different"

    def resumed(self, run: Run, killed_at: int) -> None:
        self.repeated += max(0, killed_at - run.first_step())


class Run:
    """``clippy train`` in one or several processes, whose words go to a file."""

    def __init__(self, arguments: Sequence[str], folder: Path, said: Path, size: int = 1) -> None:
        self.folder, self._said = folder, said
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "400"}
        if size > 1:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = str(free.getsockname()[1])
            environment |= {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        with said.open("wb") as out:
            self.processes = [
                subprocess.Popen(
                    [sys.executable, "-m", "clippy_cli", "train", *arguments],
                    env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)} if size > 1 else environment,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                )
                for rank in range(size)
            ]

    def wait(self) -> list[int]:
        return [process.wait(PATIENCE) for process in self.processes]

    def send(self, number: int, rank: int = 0) -> int:
        """Send a signal to one process; the last step in the log before it."""
        self.processes[rank].send_signal(number)
        return self.step()

    def said(self) -> str:
        return self._said.read_text(encoding="utf-8", errors="replace")

    def step(self) -> int:
        return max((record["step"] for record in records(self.folder) if record["event"] == "step"), default=0)

    def first_step(self) -> int:
        """The step that a resumed run said it goes on from."""
        found = re.search(r"resuming after step (\d+)", self.said())
        return int(found.group(1)) if found else 0

    def until(self, what: str, reached: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Return as soon as ``reached``; an error where the run ends before, or where it takes too long."""
        deadline = time.monotonic() + seconds
        while not reached():
            ended = all(process.poll() is not None for process in self.processes)
            if (ended and not reached()) or time.monotonic() > deadline:
                for process in self.processes:
                    process.kill()
                sys.exit(f"The drill failed: waited for {what}; the run said:\n{self.said()}")
            time.sleep(0.001)

    def until_step(self, step: int) -> None:
        self.until(f"step {step}", lambda: self.step() >= step)


class Ground:
    """Where drills take place: shards, an architecture, and the undisturbed run of each variant, made once."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        self._references: dict[tuple[tuple[str, ...], int], Path] = {}
        self._count = 0
        self.architecture = folder / "drill.yaml"
        self.architecture.write_text(ARCHITECTURE, encoding="utf-8")
        images = self.images_folder = folder / "images"
        images.mkdir()
        scenes = SceneSource(SCENES, 1, 64)
        for number in range(SCENES):
            scene = scenes.read(number)
            Image.fromarray(scene.image).save(images / f"{number:04}.jpg")
            (images / f"{number:04}.txt").write_text(scene.captions[0], encoding="utf-8")
        self.images = FolderSource(images)
        self.shards = self.new_shards()

    def new_shards(self) -> Path:
        """The same shards once more, to be damaged."""
        folder = self.new("shards")
        pack_shards(self.images, folder, Packing(shards=SHARDS))
        return folder

    def new(self, name: str) -> Path:
        self._count += 1
        return self.folder / f"{self._count:02}-{name}"

    def start(self, run: Path, *options: str, size: int = 1, shards: Path | str | None = None) -> Run:
        """Start training into ``run``, alone or as ``size`` processes."""
        settings = {
            "output": run,
            "model.architecture": self.architecture,
            "data.source": json.dumps(self.source(shards or self.shards)),
            "data.workers": 2,
            "train.steps": STEPS,
            "train.batch_size": BATCH,
            "train.warmup_steps": 4,
            "train.log_every": 1,
            "train.checkpoint_every": CHECKPOINT_EVERY,
            "evaluate.scenes": 0,
        }
        fields = [f"--set={name}={value}" for name, value in settings.items()]
        return Run(["quickstart", *fields, "--device=cpu", *options], run, self.new("said"), size)

    @staticmethod
    def source(shards: Path | str) -> dict[str, Any]:
        paths = f"{shards}/{{00000..{SHARDS - 1:05}}}.tar"
        streamed = {"samples": SCENES, "window": 1} if str(shards).startswith("http") else {}
        return {"kind": "shards", "paths": [paths], **streamed}

    def reference(self, *options: str, size: int = 1, shards: Path | str | None = None) -> Path:
        """The run folder of the same training, undisturbed."""
        key = ((*options, str(shards)), size)
        if key not in self._references:
            folder = self.new("undisturbed")
            run = self.start(folder, *options, size=size, shards=shards)
            if any(run.wait()):
                sys.exit(f"The undisturbed run failed:\n{run.said()}")
            self._references[key] = folder
        return self._references[key]


def records(folder: Path) -> list[dict[str, Any]]:
    found = []
    with suppress(FileNotFoundError):
        for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # being written
                found.append(json.loads(line))
    return found


def curve_of(folder: Path) -> list[list[Any]]:
    return [[record[name] for name in SAME] for record in records(folder) if record["event"] == "step"]


def weights_of(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def checkpoints(folder: Path, kind: str = "pt") -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob(f"checkpoints/*.{kind}")}


@contextmanager
def small_disk(folder: Path) -> Iterator[tuple[Path, Callable[[Run], None], Callable[[Run], None], str]]:
    """A folder, how to fill its disk and free it again: a tmpfs, or a limit on file sizes where none may be mounted."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True)
    ballast = folder / "ballast"

    def fill(run: Run) -> None:
        try:
            with ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise

    def limit(run: Run, size: int = 4096) -> None:
        most = resource.prlimit(run.processes[0].pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(run.processes[0].pid, resource.RLIMIT_FSIZE, (size, most))

    try:
        if mounted.returncode == 0:
            yield folder, fill, lambda run: ballast.unlink(), "tmpfs"
        else:
            yield folder, limit, lambda run: limit(run, resource.RLIM_INFINITY), "a limit on file sizes"
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", str(folder)], check=True)


class ShardServer(http.server.ThreadingHTTPServer):
    """Serves a folder over HTTP; ``down`` drops every connection without an answer, ``missing`` is not found."""

    down, missing, refused = False, "", 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class ShardHandler(http.server.SimpleHTTPRequestHandler):
    server: ShardServer

    def do_GET(self) -> None:
        if self.server.down:
            self.server.refused += 1
            self.close_connection = True
        elif self.path.strip("/") == self.server.missing:
            self.send_error(404)
        else:
            super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[ShardServer]:
    with ShardServer(("127.0.0.1", 0), functools.partial(ShardHandler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
