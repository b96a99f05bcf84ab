"""Training on both sides: whole runs, killed or interrupted and resumed ones, and one that the other side began."""

from __future__ import annotations

import json
import shutil
import signal
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from equality.differences import Differences
from equality.settings import announced
from equality.sides import PATIENCE, Side, last_words

STEPS, EVERY = 40, 10
QUICK = (
    "quickstart", f"train.steps={STEPS}", "train.warmup_steps=10", "train.batch_size=32", "train.log_every=1",
    f"train.checkpoint_every={EVERY}", "data.source.count=4000", "evaluate.scenes=16",
)  # fmt: skip
MEASURED = ("step", "validation", "evaluation")  # a checkpoint more, where a run was interrupted, changes nothing
TRUNK = "vit_tiny_patch16_224.augreg.safetensors"  # looked for in models/ beside the data
TOKENIZER = "clippy_cli/assets/models/clippy-ti/tokenizer"
CACHED = """\
name: cached
output: unset
model:
  architecture: clippy-ti
  image: {{init: {trunk}, freeze: trunk}}
  text: {{init: random, tokenizer: {tokenizer}, freeze: all}}
data:
  source:
    kind: mixture
    parts:
      - source: {{kind: shards, paths: {shard}}}
      - source: {{kind: class_folders, path: {classes}}}
        repeat: 2
  cache_features: true
train:
  steps: 8
  batch_size: 32
  lr: 3.0e-3
  logit_scale_lr: 0
  warmup_steps: 2
  drop_rate: 0.75
  precision: bf16
  log_every: 1
  checkpoint_every: 4
  words: {{weight: 1.0, balance: 0.25}}
  classes: {{weight: 0.5}}
"""


@dataclass(frozen=True)
class Pair:
    """Two run folders to compare."""

    name: str
    before: Path
    after: Path

    def compare(self, failures: dict[Path, str]) -> Differences:
        found = Differences()
        found.failed += [failures[path] for path in (self.before, self.after) if path in failures]
        if not found.failed:
            for name in ("log.jsonl", "model/model.safetensors", "evaluation.json"):
                if (self.before / name).is_file() or (self.after / name).is_file():
                    self._file(name, found)
        return found

    def _file(self, name: str, found: Differences) -> None:
        one, other = self.before / name, self.after / name
        if not other.is_file() or not one.is_file():
            (found.added if other.is_file() else found.missing).add(name)
        elif name == "log.jsonl":
            found.documents(*({_event(line): line for line in _log(path.parent)} for path in (one, other)))
        else:
            found.files(one, other)


class Runs:
    """The runs of both sides; ``failures`` says of a run folder why it is worth nothing."""

    def __init__(self, before: Side, after: Side) -> None:
        self._sides = before, after
        self.failures: dict[Path, str] = {}

    def pairs(self, recipe: Path | None) -> list[tuple[str, Differences, str]]:
        """Name, differences and announcement of each comparison. ``recipe`` is the one with stored features."""
        before, after = self._sides
        with ThreadPoolExecutor(2) as both:
            list(both.map(lambda side: self._side(side, recipe), self._sides))
        crossed = after.work / "crossed"
        shutil.copytree(before.work / "killed-early", crossed)
        self._train(after, crossed, "--resume")
        whole = before.work / "whole", after.work / "whole"
        pairs = [
            Pair("whole run", *whole),
            Pair("killed and resumed", before.work / "killed", after.work / "killed"),
            Pair("interrupted and resumed", before.work / "interrupted", after.work / "interrupted"),
            Pair("resumed run and whole run, before", whole[0], before.work / "killed"),
            Pair("resumed run and whole run, after", whole[1], after.work / "killed"),
            Pair("begun before, resumed after", whole[0], crossed),
        ]
        if recipe is not None:
            pairs.append(Pair("stored features, words, classes", before.work / "cached", after.work / "cached"))
        named = [(f"training: {pair.name}", pair.compare(self.failures)) for pair in pairs]
        return [(name, found, announced(name)) for name, found in named]

    def _side(self, side: Side, recipe: Path | None) -> None:
        self._train(side, side.work / "whole")
        self._disturbed(side, side.work / "killed", signal.SIGKILL)
        self._train(side, side.work / "killed", "--resume")
        self._disturbed(side, side.work / "interrupted", signal.SIGINT)
        self._train(side, side.work / "interrupted", "--resume")
        if recipe is not None:
            self._train(side, side.work / "cached", recipe=(str(recipe),))

    def _train(self, side: Side, folder: Path, *arguments: str, recipe: tuple[str, ...] = QUICK) -> None:
        log = side.work / f"{folder.name}.log"
        code = side.clippy(_command(folder, recipe) + list(arguments), log)
        if code:
            self.failures.setdefault(folder, f"{side.name}: exit code {code}: {last_words(log)}")

    def _disturbed(self, side: Side, folder: Path, number: int) -> None:
        """Stop a run by a signal between its first checkpoint and its next; keep what SIGKILL left."""
        process = side.start(["-m", "clippy_cli", *_command(folder, QUICK)], side.work / f"{folder.name}.log")
        begun = time.monotonic()
        while process.poll() is None and _step(folder) < EVERY + 2 and time.monotonic() - begun < PATIENCE:
            time.sleep(0.05)
        process.send_signal(number)
        process.wait(PATIENCE)
        if not EVERY <= _step(folder) < STEPS:
            self.failures[folder] = f"{side.name}: stopped at step {_step(folder)}, not on the way"
        if number == signal.SIGKILL:
            shutil.copytree(folder, folder.with_name("killed-early"))


def stored_features_recipe(folder: Path, code: Path, data_root: Path) -> Path | None:
    """A recipe of frozen towers on a few photos and classes; None where trunk or photos are missing."""
    trunk = data_root.resolve().parent / "models" / TRUNK
    shard, classes = data_root / "flickr8k" / "train-00000.tar", data_root / "imagenet-sample"
    if not (trunk.is_file() and shard.is_file() and classes.is_dir()):
        return None
    with tarfile.open(shard) as whole, tarfile.open(folder / "few.tar", "w") as few:
        for member in islice(whole, 2 * 96):  # a photo and its captions each
            few.addfile(member, whole.extractfile(member))
    (folder / "classes").mkdir()
    for path in sorted(classes.iterdir())[:24]:
        (folder / "classes" / path.name).symlink_to(path.resolve())
    recipe = folder / "cached.yaml"
    places = {"trunk": trunk, "tokenizer": code / TOKENIZER, "shard": folder / "few.tar", "classes": folder / "classes"}
    recipe.write_text(CACHED.format(**places), encoding="utf-8")
    return recipe


def _command(folder: Path, recipe: tuple[str, ...]) -> list[str]:
    name, *overrides = recipe
    return ["train", name, *(f"--set={text}" for text in (*overrides, f"output={folder.name}"))]


def _log(folder: Path) -> list[dict[str, object]]:
    path = folder / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [record for record in records if record["event"] in MEASURED]


def _event(line: dict[str, object]) -> str:
    return f"{line['event']}[{line['step']}]"


def _step(folder: Path) -> int:
    """The last step that a run has logged."""
    return max((int(str(line["step"])) for line in _log(folder) if line["event"] == "step"), default=0)
