from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from clippy_cli.data.captions import BrokenSampleError
from clippy_cli.data.scenes import SceneSource
from clippy_cli.data.streams import START
from clippy_cli.errors import ClippyError
from clippy_cli.model.build import build_model
from clippy_cli.model.sampling import gather_tokens
from clippy_cli.model.store import load_model_directory, save_model
from clippy_cli.recipe.loading import load_recipe
from clippy_cli.training.checkpoint import latest_checkpoint, load_checkpoint
from clippy_cli.training.events import (
    BestChanged,
    CaptionsRead,
    CheckpointFailed,
    CheckpointSaved,
    Started,
    StepReport,
    Stop,
    Validated,
)
from clippy_cli.training.feature_cache import CachedFeed
from clippy_cli.training.order import BatchShare, keep_indices
from clippy_cli.training.run import TrainingResult, model_config, train
from clippy_cli.training.run_folder import RunFolder
from clippy_cli.training.step_shapes import StepShapes
from tests.fixtures.data import encoded, noise


def run(recipe, **options) -> tuple[TrainingResult, list]:
    events: list = []
    return train(recipe, device="cpu", on_event=events.append, **options), events


def losses(events: list) -> list[float]:
    return [event.loss for event in events if isinstance(event, StepReport)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def assert_same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def uninterrupted(tiny_recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list]:
    folder = tmp_path_factory.mktemp("whole") / "run"
    _, events = run(load_recipe(str(tiny_recipe_file), [f"output={folder}"]))
    return folder, events


def test_a_run_leaves_recipe_log_plot_checkpoints_and_a_model(uninterrupted) -> None:
    folder, events = uninterrupted
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints",
        "log.jsonl",
        "loss.png",
        "model",
        "recipe.yaml",
    ]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-00000008.pt", "step-00000010.pt"]
    assert load_recipe(str(folder / "recipe.yaml")).output == str(folder)
    logged = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["loss"] for record in logged if record["event"] == "step"] == losses(events)
    assert isinstance(events[0], Started) and events[0].total_steps == 10
    model = load_model_directory(str(folder), device="cpu")
    assert model.name == "tiny" and model.config.training["steps"] == 10
    assert model.config.training["pooled_patch_cosine"] == pytest.approx(offset_by_hand(model), abs=1e-3)


def offset_by_hand(model) -> float:
    source = SceneSource(40, 0, 32)
    images = torch.stack([torch.from_numpy(source.read(i).image).permute(2, 0, 1) for i in range(40)])
    with torch.no_grad():
        tokens = model.image_tokens(model.preprocess.normalize(images))
        mean_patch = tokens[:, 1:].mean(dim=(0, 1))
        assert torch.allclose(model.patch_mean, mean_patch, atol=1e-5)
        return float(torch.cosine_similarity(model.pool(tokens).mean(dim=0), mean_patch, dim=0))


def test_training_lowers_the_loss(tiny) -> None:
    _, events = run(tiny("train.epochs=8", "train.drop_rate=0", "train.lr=3e-3", "data.workers=0"))
    assert np.mean(losses(events)[-5:]) < np.mean(losses(events)[:5]) - 0.3


@pytest.mark.slow
def test_a_run_killed_by_sigkill_resumes_and_ends_bit_equal(uninterrupted, tiny, tiny_recipe_file, tmp_path) -> None:
    recipe = tiny("data.workers=2")
    program = (
        "import sys\n"
        "from clippy_cli.recipe.loading import load_recipe\n"
        "from clippy_cli.training.run import train\n"
        "recipe = load_recipe(sys.argv[1], ['output=' + sys.argv[2]])\n"
        "train(recipe, device='cpu', on_event=lambda event: print(event, flush=True))\n"
    )
    command = [sys.executable, "-c", program, str(tiny_recipe_file), recipe.output]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        for line in process.stdout:
            if line.startswith("StepReport(step=5"):
                os.kill(process.pid, signal.SIGKILL)
                break
    (Path(recipe.output) / "checkpoints" / "step-00000006.tmp").write_bytes(b"half a checkpoint")
    result, events = run(recipe, resume=True)
    assert events[0].first_step in (4, 6)
    assert result.finished
    assert_same_weights(weights(Path(recipe.output)), weights(uninterrupted[0]))
    logged = [json.loads(line) for line in (Path(recipe.output) / "log.jsonl").read_text().splitlines()]
    steps = [record["step"] for record in logged if record["event"] == "step"]
    assert steps == list(range(1, 11))


def test_stopping_saves_a_checkpoint_and_resuming_ends_bit_equal(uninterrupted, tiny) -> None:
    recipe, asked = tiny(), iter([False, False, True])
    result, events = run(recipe, should_stop=lambda: next(asked))
    assert not result.finished and result.step == 3
    assert isinstance(events[-1], CheckpointSaved) and events[-1].step == 3
    assert not (Path(recipe.output) / "model").exists()
    assert run(recipe, resume=True)[0].finished
    assert_same_weights(weights(Path(recipe.output)), weights(uninterrupted[0]))


def test_a_used_run_folder_is_not_trained_over(uninterrupted, tiny) -> None:
    with pytest.raises(ClippyError, match=r"is not empty: it holds checkpoints, log\.jsonl") as caught:
        run(tiny(f"output={uninterrupted[0]}"))
    assert "--resume" in caught.value.hint and "--set output=" in caught.value.hint


def test_resuming_with_another_recipe_names_the_fields(uninterrupted, tiny) -> None:
    with pytest.raises(ClippyError, match=r"differs from the run's own in data\.flip, train\.lr\."):
        run(tiny(f"output={uninterrupted[0]}", "train.lr=1", "data.flip=false", "train.log_every=3"), resume=True)


def test_resuming_on_fewer_samples_is_refused(tiny, tmp_path: Path) -> None:
    table, rows = tmp_path / "captions.csv", ["image,caption"]
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(encoded(noise(seed=number)))
        rows.append(f"{number}.png,picture {number}")
    table.write_text("\n".join(rows))
    recipe = tiny(f"data.source={{kind: table, path: {table}}}", "train.batch_size=4")
    asked = iter([False, True])
    run(recipe, should_stop=lambda: next(asked))
    table.write_text("\n".join(rows[:-1]))
    with pytest.raises(ClippyError, match=r"trained on other data: 1 file is gone, or with other captions\.") as caught:
        run(recipe, resume=True)
    assert "clippy data check" in caught.value.hint
    assert run(recipe, resume=True, inexact=True)[0].finished


def test_resuming_on_edited_data_names_what_changed(tiny, tmp_path: Path) -> None:
    table, rows = (
        tmp_path / "captions.csv",
        ["image,caption", *(f"{number}.png,picture {number}" for number in range(8))],
    )
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(encoded(noise(seed=number)))
    table.write_text("\n".join(rows))
    recipe = tiny(f"data.source={{kind: table, path: {table}}}", "train.batch_size=4")
    asked = iter([False, True, True])
    run(recipe, should_stop=lambda: next(asked))
    (tmp_path / "3.png").write_bytes(encoded(noise(20, 20, seed=99)))
    with pytest.raises(ClippyError, match=r"other data: 1 file is modified since \(3\.png\)\."):
        run(recipe, resume=True)
    (tmp_path / "3.png").write_bytes(encoded(noise(seed=3)))
    table.write_text("\n".join([*rows[:-1], "7.png,a cat"]))
    with pytest.raises(ClippyError, match=r"1 file is new, or with other captions \(7\.png\)"):
        run(recipe, resume=True)
    result, events = run(recipe, resume=True, inexact=True)
    assert result.finished and len(list(result.notices)) == 1
    assert [str(notice) for event in events if isinstance(event, Started) for notice in event.notices] == [
        "2 changes: the data is not as it was before the run was resumed "
        "(1 file is new, or with other captions (7.png), 1 file is modified since (3.png))"
    ]


def test_doubtful_tables_are_refused_and_strict_refuses_all(tiny, tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    for number in range(8):
        (tmp_path / f"{number}.png").write_bytes(encoded(noise(seed=number)))
    table.write_text("image,caption\n" + "".join(f"{number}.png,one, two\n" for number in range(8)))
    source = f"data.source={{kind: table, path: {table}}}"
    with pytest.raises(ClippyError, match=r"8 of 8 rows \(100\.0%\) do not fit the header"):
        run(tiny(source, "train.batch_size=4"))
    more = source.replace("}", ", max_doubtful: 1}")
    with pytest.raises(ClippyError, match="8 rows: more fields than the 2 of the header"):
        run(tiny(more, "train.batch_size=4"), strict=True)
    assert run(tiny(more, "train.batch_size=4"))[0].finished


def test_a_best_model_that_cannot_be_written_is_not_called_the_best(tiny, monkeypatch) -> None:
    def full(model, directory: Path) -> None:
        if directory.name == "best" and model.config.training["steps"] == 2:
            raise ClippyError("no space left")
        save_model(model, directory)

    monkeypatch.setattr("clippy_cli.training.model_writer.save_model", full)
    figures = {2: 0.9, 4: 0.5, 6: 0.4, 8: 0.3, 10: 0.2}
    recipe = tiny("evaluate.best=birds.accuracy", "evaluate.every=2", "evaluate.scenes=1")
    result, events = run(recipe, evaluate=lambda model, step: {"birds.accuracy": figures[step]})
    assert [event.step for event in events if isinstance(event, CheckpointFailed)] == [2]
    assert [event.step for event in events if isinstance(event, BestChanged)] == [4] and result.best.step == 4


def test_log_lines_wait_for_space_on_the_disk(tmp_path: Path, caplog) -> None:
    folder = RunFolder(tmp_path)
    folder.log.mkdir()  # what cannot be written, as on a full disk
    for step in (1, 2):
        folder.append(Validated(step, 0.5))
    folder.log.rmdir()
    folder.append(Validated(3, 0.5))
    assert [record["step"] for record in folder.records()] == [1, 2, 3]
    assert len(caplog.records) == 1


def test_half_a_checkpoint_of_a_killed_run_is_removed(tiny) -> None:
    recipe, asked = tiny(), iter([Stop.INTERRUPTED])
    half = Path(recipe.output) / "checkpoints" / "step-00000007.tmp"
    train(recipe, device="cpu", should_stop=lambda: next(asked))
    half.write_bytes(b"half")
    run(recipe, resume=True)
    assert not half.exists()


def test_a_loss_that_is_no_number_stops_at_its_step_and_spares_the_checkpoint(tiny) -> None:
    recipe = tiny("train.lr=1e38", "train.warmup_steps=0", "train.grad_clip=null", "train.checkpoint_every=1")
    with pytest.raises(
        ClippyError, match=r"(The loss|The gradient's norm|Weights|Embeddings) became .* step \d+"
    ) as caught:
        run(recipe)
    newest = latest_checkpoint(Path(recipe.output) / "checkpoints")
    if newest is None:
        assert "No checkpoint was written" in caught.value.message
    else:
        assert str(newest) in caught.value.message
        assert all(value.isfinite().all() for value in load_checkpoint(newest).model.values())


def test_a_damaged_checkpoint_is_an_error_that_says_what_to_do(tiny) -> None:
    recipe = tiny("train.epochs=1")
    run(recipe)
    newest = latest_checkpoint(Path(recipe.output) / "checkpoints")
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(ClippyError, match="cannot be read") as caught:
        run(recipe, resume=True)
    assert "Delete this file" in caught.value.hint


@pytest.mark.parametrize("cached", ["false", "true"])
def test_broken_samples_are_counted_and_all_broken_is_an_error(tiny, monkeypatch, cached: str) -> None:
    original, good = SceneSource.read, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}

    def read(self, index: int):
        if index not in good:
            raise BrokenSampleError(f"scene {index}", "torn")
        return original(self, index)

    monkeypatch.setattr(SceneSource, "read", read)
    options = ["model.image.freeze=trunk", f"data.cache_features={cached}"]
    result, events = run(tiny(*options))
    assert result.finished and len(result.broken) == 30 and "torn" in result.broken[30]
    assert [event for event in events if isinstance(event, StepReport)][-1].broken == 30
    good.clear()
    with pytest.raises(ClippyError, match=r"(?s)(All .* samples are broken|samples in a row cannot be read).*torn"):
        run(tiny(*options, f"output={result.folder.root}-none"))


def test_frozen_towers_keep_their_weights_and_the_rest_moves(tiny) -> None:
    recipe = tiny("model.image.freeze=trunk", "model.text.freeze=encoder", "train.weight_decay=0.5")
    before = {name: value.clone() for name, value in initial_model(recipe).state_dict().items()}
    run(recipe)
    moved = {name for name, value in weights(Path(recipe.output)).items() if not torch.equal(value, before[name])}
    assert moved == {"image.projection.weight", "text.projection.weight", "log_logit_scale", "patch_mean"}


def initial_model(recipe):
    return build_model(model_config(recipe), seed=recipe.seed)


@pytest.mark.parametrize("text", ["encoder", "none"])
def test_training_on_cached_features_is_training_without_the_cache(tiny, tmp_path: Path, text: str) -> None:
    options = [
        "model.image.freeze=trunk",
        f"model.text.freeze={text}",
        "train.drop_rate=0",
        "data.validation={kind: scenes, count: 9, seed: 8}",
    ]
    _, live = run(tiny(*options))
    result, cached = run(tiny(*options, "data.cache_features=true", f"output={tmp_path / 'cached'}"))
    assert losses(cached) == pytest.approx(losses(live), abs=2e-3)  # tokens are stored in float16
    validated = [[event.loss for event in events if isinstance(event, Validated)] for events in (live, cached)]
    assert len(validated[0]) == 2 and validated[1] == pytest.approx(validated[0], abs=2e-3)
    live_weights, cached_weights = weights(tmp_path / "run"), weights(result.folder.root)
    for name, value in live_weights.items():
        assert torch.allclose(cached_weights[name], value, atol=2e-3), name


def test_the_cache_is_reused_rebuilt_when_stale_and_continued_when_cut_off(tiny, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("clippy_cli.training.feature_cache.BATCH", 16)
    options = ["model.image.freeze=trunk", "model.text.freeze=encoder", "data.cache_features=true", "train.epochs=1"]
    asked = iter([False, True])
    result, events = run(tiny(*options), should_stop=lambda: next(asked))
    assert not result.finished and result.step == 0 and cached_images(events) == [16]
    result, events = run(tiny(*options), resume=True)
    assert result.finished and cached_images(events) == [32, 40]
    assert cached_images(run(tiny(*options), resume=True)[1]) == []
    assert_same_weights(
        weights(tmp_path / "run"), weights(run(tiny(*options, f"output={tmp_path / 'b'}"))[0].folder.root)
    )
    (tmp_path / "c").mkdir()
    (tmp_path / "run" / "cache").rename(tmp_path / "c" / "cache")
    _, events = run(tiny(*options, f"output={tmp_path / 'c'}", "data.source.seed=9"), resume=True)
    assert cached_images(events) == [16, 32, 40]


def test_cached_tokens_are_sub_sampled_as_live_tokens_are(tiny, tmp_path: Path) -> None:
    options = ["model.image.freeze=trunk", "data.cache_features=true", "train.epochs=1", "train.drop_rate=0.75"]
    recipe = tiny(*options)
    run(recipe)
    feed = CachedFeed(tmp_path / "run" / "cache" / "train", recipe, str, num_prefix=1, flip=True)
    *_, batch = feed.training(BatchShare(8), 2, StepShapes(recipe, (32,), 5), START)
    keep = keep_indices(8, 16, 0.75, seed=recipe.seed, step=4, device=torch.device("cpu"))
    whole = torch.from_numpy(np.load(tmp_path / "run" / "cache" / "train" / "images.npy"))[batch.indices]  # (B,2,17,F)
    views = [gather_tokens(whole[:, view], keep, 1) for view in (0, 1)]
    chosen = [torch.equal(tokens, views[1][row]) for row, tokens in enumerate(batch.features)]
    assert torch.equal(batch.features, torch.stack([views[flip][row] for row, flip in enumerate(chosen)]))
    assert batch.features.shape == (8, 5, 32) and 0 < sum(chosen) < 8


def cached_images(events: list) -> list[int]:
    return [event.done for event in events if getattr(event, "what", "") == "images"]


def test_a_disk_that_is_too_small_is_found_before_the_cache_is_built(tiny, monkeypatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(ClippyError, match="The feature cache needs"):
        run(tiny("model.image.freeze=trunk", "data.cache_features=true"))


def test_bf16_trains_on_the_cpu_and_fp16_says_what_it_needs(tiny) -> None:
    _, events = run(tiny("train.precision=bf16", "train.epochs=1", "train.optimizer=lamb"))
    assert np.isfinite(losses(events)).all()
    with pytest.raises(ClippyError, match="needs a CUDA device"):
        run(tiny("train.precision=fp16", "output=elsewhere"))


def test_checkpoints_keep_the_newest_and_the_best(tiny) -> None:
    figures = iter([0.1, 0.9, 0.2, 0.3, 0.4])
    recipe = tiny("train.keep_checkpoints=1", "evaluate={scenes: 3, every: 2, best: scenes.miou}")
    result, events = run(recipe, evaluate=lambda model, step: {"scenes.miou": next(figures)})
    folder = Path(recipe.output)
    assert [event.step for event in events if isinstance(event, BestChanged)] == [2, 4]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-00000004.pt", "step-00000010.pt"]
    assert (
        result.best.value == 0.9
        and load_model_directory(str(result.best.path), device="cpu").config.training["steps"] == 4
    )
    kept, best = (
        load_checkpoint(folder / "checkpoints" / "step-00000004.pt").model,
        load_file(result.best.path / "model.safetensors"),
    )
    assert all(torch.equal(value, best[name]) for name, value in kept.items())


def test_a_full_disk_spares_the_checkpoint_before_and_does_not_stop_the_run(uninterrupted, tiny, monkeypatch) -> None:
    original, failures = torch.save, iter([False, True, True, False, False, False])

    def save(fields, file) -> None:
        if next(failures):
            file.write(b"half")
            raise OSError(28, "No space left on device")
        original(fields, file)

    monkeypatch.setattr(torch, "save", save)
    recipe = tiny("train.keep_checkpoints=9")
    _, events = run(recipe)
    failed = [event for event in events if isinstance(event, CheckpointFailed)]
    assert [event.step for event in failed] == [4, 6] and "No space left" in failed[0].reason
    names = sorted(path.name for path in (Path(recipe.output) / "checkpoints").iterdir())
    assert names == ["step-00000002.pt", "step-00000008.pt", "step-00000010.pt"]
    assert_same_weights(weights(Path(recipe.output)), weights(uninterrupted[0]))


def test_other_chunks_are_refused_unless_inexact_is_asked_for(tiny) -> None:
    asked = iter([False, False, True])
    run(tiny(), should_stop=lambda: next(asked))
    with pytest.raises(ClippyError, match=r"differs from the run's own in train\.chunk_size") as caught:
        run(tiny("train.chunk_size=4"), resume=True)
    assert "--inexact" in caught.value.hint
    assert run(tiny("train.chunk_size=4"), resume=True, inexact=True)[0].finished


@pytest.mark.slow
def test_a_run_with_everything_at_once_resumes_bit_equal(tiny, tmp_path) -> None:
    options = [
        "data.resolution=[16, 32]",
        "data.crop_scale=[0.5, 1]",
        "data.workers=1",
        "train={epochs: 2, batch_size: 8, lr: 1e-3, chunk_size: 4, loss: sigmoid, logit_scale_init: 10, "
        "drop_rate: 0.5, final: {share: 0.3, resolution: 24, chunk_size: 2}, log_every: 1, checkpoint_every: 3}",
    ]
    whole, _ = run(tiny(*options, f"output={tmp_path / 'whole'}"))
    asked = iter([False] * 4 + [True])
    run(tiny(*options), should_stop=lambda: next(asked))
    run(tiny(*options), resume=True)
    assert_same_weights(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    states = [load_checkpoint(latest_checkpoint(tmp_path / name / "checkpoints")) for name in ("run", "whole")]
    assert states[0].logit_bias == states[1].logit_bias != -10.0
    assert len(whole.model.config.training) > 5 and whole.model.preprocess.resolution == 32


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # the compiler's own
def test_compiled_towers_train_as_plain_ones_without_recompiling(tiny, tmp_path) -> None:
    options = ["train.epochs=1", "train.chunk_size=4", "data.resolution=[16, 32]"]
    _, plain = run(tiny(*options))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    _, compiled = run(tiny(*options, "train.compile=true", f"output={tmp_path / 'compiled'}"))
    assert losses(compiled) == pytest.approx(losses(plain), abs=2e-3)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 0 < graphs <= 2 * (2 + 1)  # with and without gradient: two resolutions of images, one length of texts


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("train.chunk_size=4", "has batch normalisation"),
        ("train.drop_rate=0.5", "drops no tokens"),
    ],
)
def test_a_convolutional_trunk_refuses_what_it_cannot_do(tiny, option: str, complaint: str) -> None:
    plain = ("model.architecture=align-nano", "train.drop_rate=0", "data.resolution=64", "train.epochs=1")
    with pytest.raises(ClippyError, match=complaint):
        run(tiny(*plain, option))


def test_fewer_samples_than_a_batch_is_an_error(tiny) -> None:
    with pytest.raises(ClippyError, match=r"holds 5 samples and train\.batch_size is 8"):
        run(tiny("data.source.count=5"))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_trains_and_resumes_on_cuda(tiny, precision: str) -> None:
    recipe, asked = (
        tiny(f"train.precision={precision}", "train.epochs=8", "train.lr=3e-3"),
        iter([Stop.GO_ON] * 20 + [Stop.INTERRUPTED]),
    )
    events: list = []
    train(recipe, device="cuda", on_event=events.append, should_stop=lambda: next(asked))
    assert train(recipe, device="cuda", resume=True, on_event=events.append).finished
    assert np.mean(losses(events)[-5:]) < np.mean(losses(events)[:5]) - 0.3


def test_words_of_a_mixture_add_to_the_loss_and_a_resumed_run_ends_the_same(tiny, tmp_path) -> None:
    for name in ("star", "ring"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for number in range(2):
            path = tmp_path / "classes" / name / f"{number}.png"
            path.write_bytes(encoded(noise(40, 40, seed=number), "PNG"))
    source = (
        "{kind: mixture, parts: [{source: {kind: scenes, count: 20}}, "
        f"{{source: {{kind: class_folders, path: {tmp_path / 'classes'}}}, repeat: 2}}]}}"
    )
    options = [
        f"data.source={source}",
        "model.image.freeze=trunk",
        "model.text.freeze=all",
        "data.cache_features=true",
        "train.epochs=2",
        "train.log_every=1",
    ]
    words = "train.words={weight: 1, min_images: 2}"
    _, plain = run(tiny(*options, f"output={tmp_path / 'plain'}"))
    whole, with_words = run(tiny(*options, words, f"output={tmp_path / 'whole'}"))
    assert whole.samples == 28
    assert losses(with_words)[0] > losses(plain)[0] + 0.1
    stops = iter([Stop.GO_ON] * 4 + [Stop.INTERRUPTED])
    part, _ = run(tiny(*options, words, f"output={tmp_path / 'part'}"), should_stop=lambda: next(stops, Stop.GO_ON))
    assert 0 < part.step < part.total_steps
    run(tiny(*options, words, f"output={tmp_path / 'part'}"), resume=True)
    assert_same_weights(weights(tmp_path / "part"), weights(tmp_path / "whole"))


def test_a_word_that_nobody_says_often_enough_is_an_error(tiny) -> None:
    frozen = ["model.image.freeze=trunk", "model.text.freeze=all", "data.cache_features=true"]
    with pytest.raises(ClippyError, match="no word is in the captions of 999 images"):
        run(tiny(*frozen, "train.words={weight: 1, min_images: 999}"))


def test_words_of_a_live_trunk_are_those_of_stored_features(tiny, tmp_path) -> None:
    options = ["model.image.freeze=trunk", "model.text.freeze=all", "train.drop_rate=0", "train.words.weight=1"]
    _, live = run(tiny(*options, "train.words.min_images=2", "train.chunk_size=4"))
    cached = ["data.cache_features=true", f"output={tmp_path / 'cached'}"]
    _, stored = run(tiny(*options, "train.words.min_images=2", *cached))
    parts = [[event.terms for event in events if isinstance(event, StepReport)] for events in (live, stored)]
    for name in ("contrastive", "words"):
        mine, theirs = ([step[name] for step in of] for of in parts)
        assert mine == pytest.approx(theirs, abs=2e-3)  # tokens are stored in float16


def test_words_beside_a_trunk_that_learns_resume_bit_equal(tiny, tmp_path) -> None:
    options = ["model.text.freeze=all", "train.words={weight: 1, min_images: 2}", "data.crop_scale=[0.5, 1]"]
    _, events = run(tiny(*options, f"output={tmp_path / 'whole'}"))
    assert CaptionsRead(0, 40) in events
    asked = iter([False] * 4 + [True])  # the first is before captions are read
    assert 0 < run(tiny(*options), should_stop=lambda: next(asked))[0].step < 10
    run(tiny(*options), resume=True)
    assert_same_weights(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_a_stop_while_captions_are_read_leaves_nothing_but_what_can_be_resumed(tiny) -> None:
    options = ["model.text.freeze=all", "train.words={weight: 1, min_images: 2}"]
    result, _ = run(tiny(*options), should_stop=lambda: Stop.PREEMPTED)
    assert (result.step, result.stopped, result.finished) == (0, Stop.PREEMPTED, False)
    assert run(tiny(*options, "train.epochs=1"), resume=True)[0].finished


@pytest.mark.parametrize("term", ["words", "classes"])
def test_terms_with_texts_want_a_frozen_text_tower(tiny, term) -> None:
    for text in ("none", "encoder"):
        with pytest.raises(ClippyError, match=rf"train\.{term}\.weight: {term} are embedded once.*text\.freeze: all"):
            tiny(f"model.text.freeze={text}", f"train.{term}.weight=1")
    tiny("model.text.freeze=all", f"train.{term}.weight=1")


def test_words_of_shards_that_are_not_fetched_are_refused(tiny) -> None:
    remote = "data.source={kind: shards, paths: 'https://host/0.tar', samples: 100}"
    with pytest.raises(ClippyError, match="words are counted in all captions before training starts"):
        tiny(remote, "model.text.freeze=all", "train.words.weight=1")


def test_a_checkpoint_of_before_a_field_existed_still_fits(tiny) -> None:
    asked = iter([False, False, True])
    result, _ = run(tiny(), should_stop=lambda: next(asked))
    newest = latest_checkpoint(result.folder.checkpoints)
    fields = torch.load(newest, weights_only=True)
    del fields["terms"], fields["recipe"]["train"]["self_distillation"]
    torch.save(fields, newest)
    assert run(tiny(), resume=True)[0].finished
