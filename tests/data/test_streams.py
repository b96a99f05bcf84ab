"""Streams of shards: restarted anywhere they go on as before, and what cannot be had is said."""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import pickle
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clippy_cli.data import fetching
from clippy_cli.data.captions import BrokenSampleError
from clippy_cli.data.identity import identify
from clippy_cli.data.streams import START, Position, StreamSource
from clippy_cli.errors import ClippyError
from clippy_cli.extras import install_command
from tests.fixtures.data import encoded, noise, write_shard

SHARDS = 7
SAMPLES = 4


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_BACKOFF_SECONDS", 0.0)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven shards of three to five samples, each with a caption of its own."""
    folder = tmp_path_factory.mktemp("remote")
    for shard in range(SHARDS):
        members: dict[str, bytes | str] = {}
        for number in range(SAMPLES - 1 + shard % 3):
            members |= {f"{number}.png": encoded(noise(seed=number)), f"{number}.txt": f"{shard} {number}"}
        write_shard(folder / f"{shard}.tar", members)
    return folder


def stream(folder: Path, cache: Path, *, last: int = SHARDS - 1, window: int = 2, **options: int) -> StreamSource:
    arguments = {"samples": 28, "cache_bytes": 1 << 30, "seed": 5} | options
    return StreamSource([f"file://{folder}/{{0..{last}}}.tar"], cache=cache, window=window, **arguments)


def drawn(source: StreamSource, count: int, start: Position = START, rank: int = 0, size: int = 1) -> list[tuple]:
    return list(itertools.islice(source.draws(rank, size, start), count))


def captions(source: StreamSource, count: int, **options: int) -> list[str]:
    return [source.read(sample).captions[0] for sample, _, _ in drawn(source, count, **options)]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_each_pass_deals_every_shard_once(shards: Path, tmp_path: Path, size: int) -> None:
    source = stream(shards, tmp_path)
    by_pass: dict[int, list[int]] = {0: [], 1: []}
    for rank in range(size):
        for sample, passes, _ in itertools.takewhile(lambda draw: draw[1] < 2, source.draws(rank, size)):
            by_pass[passes].append(sample)
    for samples in by_pass.values():
        assert len(set(samples)) == len(samples)
        assert len({sample >> 32 for sample in samples}) == SHARDS // size * size
    if size == 1:
        assert sorted(by_pass[0]) == sorted(by_pass[1])
        assert by_pass[0] != by_pass[1]
        assert not list(source.notices)
    else:
        assert str(*source.notices).startswith("1 shard ignored: left out of each pass")
    assert len(source) == 28


def test_windows_mix_their_shards_and_nothing_else(shards: Path, tmp_path: Path) -> None:
    draws = drawn(stream(shards, tmp_path), 60)
    order: dict[tuple[int, int], list[int]] = {}
    at = START
    for sample, passes, after in draws:
        assert passes == at.passes
        order.setdefault(at[:2], []).append(sample >> 32)
        at = after
    first = order[0, 0]
    assert len(set(first)) == 2
    assert first != sorted(first)
    assert not set(first) & set(order[0, 1])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 90), st.integers(1, 9), st.integers(1, 3), st.integers(0, 3))
def test_it_restarts_exactly_at_any_position(
    shards: Path, tmp_path: Path, place: int, window: int, size: int, seed: int
) -> None:
    options = {"window": window, "seed": seed}
    rank = seed % size
    whole = drawn(stream(shards, tmp_path / "a", **options), place + 40, rank=rank, size=size)
    start = whole[place - 1][2] if place else START
    again = drawn(stream(shards, tmp_path / "b", **options), 40, start, rank, size)
    assert again == whole[place:]


def test_a_restart_fetches_its_window_and_the_next_only(shards: Path, tmp_path: Path) -> None:
    start = next(after for _, _, after in stream(shards, tmp_path / "a").draws(0, 1) if after.window == 1)
    source = stream(shards, tmp_path / "b")
    drawn(source, 1, start)
    wait_for_fetches()
    assert len(list((tmp_path / "b").glob("*.tar"))) == 4


def wait_for_fetches() -> None:
    for thread in threading.enumerate():
        if thread.name == "clippy-fetch":
            thread.join(10)


def test_first_is_what_the_first_pass_draws(shards: Path, tmp_path: Path) -> None:
    source = stream(shards, tmp_path)
    assert source.first(6, 1, 2) == [sample for sample, _, _ in drawn(source, 6, rank=1, size=2)]
    assert len(source.first(1000, 0, 1)) == sum(SAMPLES - 1 + shard % 3 for shard in range(SHARDS))


def test_samples_are_what_the_shards_hold_also_elsewhere(shards: Path, tmp_path: Path) -> None:
    source = stream(shards, tmp_path)
    samples = source.first(28, 0, 1)
    elsewhere: StreamSource = pickle.loads(pickle.dumps(source))
    for sample in samples:
        found = elsewhere.read(sample)
        assert found.captions == (f"{sample >> 32} {found.key}",)
        np.testing.assert_array_equal(found.image, noise(seed=int(found.key)))


def test_evicted_shards_come_back(shards: Path, tmp_path: Path) -> None:
    size = max(path.stat().st_size for path in shards.glob("*.tar"))
    source = stream(shards, tmp_path, window=1, cache_bytes=3 * size)
    samples = []
    for sample, _, _ in itertools.islice(source.draws(0, 1), 28):
        samples.append(sample)
        source.read(sample)
    wait_for_fetches()
    there = list(tmp_path.glob("*.tar"))
    assert 0 < len(there) <= 4
    assert {path.with_suffix(".index") for path in there} == set(tmp_path.glob("*.index"))
    assert [source.read(sample).captions[0].split()[0] for sample in samples] == [str(s >> 32) for s in samples]


def test_other_files_in_the_cache_are_left_alone(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.tar").write_bytes(bytes(1 << 20))
    size = max(path.stat().st_size for path in shards.glob("*.tar"))
    drawn(stream(shards, tmp_path, window=1, cache_bytes=3 * size), 40)
    assert (tmp_path / "mine.tar").exists()


@pytest.mark.parametrize("sharers", [1, 2])
def test_a_cache_that_is_too_small_is_refused(shards: Path, tmp_path: Path, sharers: int) -> None:
    size = max(path.stat().st_size for path in shards.glob("*.tar"))
    source = stream(shards, tmp_path, window=1, cache_bytes=3 * size * sharers - 1, sharers=sharers)
    with pytest.raises(ClippyError, match=f"cannot hold the {3 * sharers} shards") as caught:
        drawn(source, 30, rank=0, size=sharers)
    assert "cache_gb" in str(caught.value.hint)


def test_missing_and_broken_shards_are_left_out_and_said(shards: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    remote.mkdir()
    for path in shards.glob("*.tar"):
        (remote / path.name).write_bytes(path.read_bytes())
    whole = (remote / "1.tar").read_bytes()
    (remote / "0.tar").unlink()
    (remote / "1.tar").write_bytes(whole[:4500])
    (remote / "2.tar").write_bytes(b"\x1f\x8b" + whole)
    source = stream(remote, tmp_path / "cache")
    numbers = {sample >> 32 for sample in source.first(100, 0, 1)}
    assert numbers == {1, 3, 4, 5, 6}
    said = {notice.unit: str(notice) for notice in source.notices}
    assert said["shard"].startswith("2 shards skipped: cannot be fetched or used (")
    assert "0.tar: cannot be fetched" in said["shard"] and "2.tar is compressed with gzip" in said["shard"]
    assert "cut short or damaged" in said["rest of a shard"] and said["rest of a shard"].endswith("1.tar)")
    with pytest.raises(BrokenSampleError, match=r"0\.tar"):
        source.read(0)


def test_all_missing_is_an_error_that_names_the_first(tmp_path: Path) -> None:
    source = stream(tmp_path, tmp_path / "cache")
    with pytest.raises(ClippyError, match=r"7 shards in a row could not be used; the first: .*\.tar: cannot be"):
        drawn(source, 1)


def test_a_flaky_server_is_asked_again_and_a_full_disk_is_not(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{shards}/0.tar"
    filesystem = type(fsspec.filesystem("file"))
    fetch, failures = filesystem.get_file, [ConnectionError("reset"), TimeoutError()]

    def flaky(self: object, *arguments: object, **options: object) -> object:
        if failures:
            raise failures.pop()
        return fetch(self, *arguments, **options)

    monkeypatch.setattr(filesystem, "get_file", flaky)
    assert len(fetching.ShardFolder(tmp_path, 1 << 30).fetch(url).index) == 3
    failures.append(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(ClippyError, match="disk is full") as caught:
        fetching.ShardFolder(tmp_path / "full", 1 << 30).fetch(url)
    assert "cache_gb" in str(caught.value.hint)
    assert list((tmp_path / "full").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ClippyError, match="cannot be put there"):
        fetching.ShardFolder(tmp_path / "file", 1 << 30).fetch(url)


def test_a_server_that_was_there_is_waited_for_longer_than_one_that_never_was(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem = type(fsspec.filesystem("file"))
    fetch, failures = filesystem.get_file, [TimeoutError()] * 5

    def flaky(self: object, *arguments: object, **options: object) -> object:
        if failures:
            raise failures.pop()
        return fetch(self, *arguments, **options)

    monkeypatch.setattr(filesystem, "get_file", flaky)
    folder = fetching.ShardFolder(tmp_path, 1 << 30)
    with pytest.raises(fetching.ShardUnavailableError):
        folder.fetch(f"file://{shards}/0.tar")
    assert len(failures) == 2
    folder.fetch(f"file://{shards}/0.tar")
    failures += [TimeoutError()] * 5
    assert len(folder.fetch(f"file://{shards}/1.tar").index) == 4


def test_processes_need_a_shard_each(shards: Path, tmp_path: Path) -> None:
    source = stream(shards, tmp_path)
    source.check_processes(7)
    assert not list(source.notices)
    with pytest.raises(ClippyError, match="7 shards cannot feed 8 processes") as caught:
        source.check_processes(8)
    assert "--shards 8" in str(caught.value.hint)
    with pytest.raises(ClippyError, match="no Position"):
        drawn(source, 1, Position(0, 4, 0))


def test_urls_that_cannot_be_opened_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_stream = partial(StreamSource, samples=1, cache=tmp_path, cache_bytes=1, window=1, seed=0)
    for url, said in (
        ("pipe:curl x", "cannot be commands"),
        ("simplecache::https://x/0.tar", "not a URL"),
        ("/data/0.tar", "not a URL"),
        ("nonsense://x/{0..3}.tar", "nonsense:// is not known"),
        ("memory://{0,0}.tar", "named twice"),
    ):
        with pytest.raises(ClippyError, match=said):
            open_stream([url])

    def absent(_: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", absent)
    with pytest.raises(ClippyError) as caught:
        open_stream(["s3://bucket/0.tar"])
    assert caught.value.hint == "pip install s3fs"


def test_messages_hold_no_secrets() -> None:
    assert fetching.shown("https://me:word@host/0.tar?Signature=x") == "https://host/0.tar"


def test_shards_in_memory(shards: Path, tmp_path: Path) -> None:
    for number in range(2):
        MemoryFileSystem.store.pop(f"/b/{number}.tar", None)
        with fsspec.open(f"memory://b/{number}.tar", "wb") as file:
            file.write((shards / f"{number}.tar").read_bytes())
    source = StreamSource(["memory://b/{0..1}.tar"], samples=7, cache=tmp_path, cache_bytes=1 << 30, window=2, seed=0)
    assert sorted(captions(source, 7)) == ["0 0", "0 1", "0 2", "1 0", "1 1", "1 2", "1 3"]


@pytest.mark.parametrize(
    ("url", "installs"), [("https://a.org/1.tar", install_command("http")), ("s3://a/1.tar", "pip install s3fs")]
)
def test_a_missing_driver_is_named_with_what_installs_it(url: str, installs: str, monkeypatch) -> None:
    def missing(protocol: str) -> None:
        raise ImportError(f"no {protocol}")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(ClippyError, match="needs a driver") as raised:
        fetching.check_driver(url)
    assert raised.value.hint == installs


class _Quiet(SimpleHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012 (one server at a time)

    def log_message(self, format: str, *arguments: object) -> None:
        self.asked.append(str(arguments[0]))


@pytest.fixture
def server(shards: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp", reason="needs aiohttp, fsspec's driver of http")
    _Quiet.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(shards))) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_shards_over_http_are_asked_for_once(server: str, tmp_path: Path) -> None:
    source = StreamSource([f"{server}/{{0..7}}.tar"], samples=28, cache=tmp_path, cache_bytes=1 << 30, window=3, seed=0)
    seen = captions(source, 40)
    assert len(set(seen)) == 27
    wait_for_fetches()
    asked = [line.split()[1] for line in _Quiet.asked if line.startswith("GET") and "HTTP/" in line]
    assert [asked.count(f"/{number}.tar") for number in range(SHARDS)] == [1] * SHARDS
    (notice,) = source.notices
    assert "7.tar: cannot be fetched" in str(notice)


def test_a_shard_that_was_replaced_on_the_server_is_noticed_and_fetched_again(
    server: str, shards: Path, tmp_path: Path
) -> None:
    def opened() -> StreamSource:
        urls = [f"{server}/{{0..6}}.tar"]
        return StreamSource(urls, samples=28, cache=tmp_path, cache_bytes=1 << 30, window=3, seed=0)

    first = opened()
    before = identify(first)
    assert "3 0" in captions(first, 40) and not opened().notices
    kept = (shards / "3.tar").read_bytes()
    try:
        write_shard(shards / "3.tar", {"0.png": encoded(noise()), "0.txt": "another caption"})
        again = opened()
        assert [str(notice) for notice in again.notices] == [
            f"1 shard: changed since it was fetched, and fetched again ({server}/3.tar)"
        ]
        assert identify(again).changes(before.hashes) == (f"1 file is modified since ({server}/3.tar)",)
        seen = captions(again, 40)
        assert "another caption" in seen and "3 0" not in seen
    finally:
        (shards / "3.tar").write_bytes(kept)


def test_without_an_answer_what_was_fetched_is_used(shards: Path, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    shutil.copytree(shards, remote)
    seen = captions(stream(remote, tmp_path / "cache"), 28)
    known = identify(stream(remote, tmp_path / "cache")).hashes
    shutil.rmtree(remote)
    offline = stream(remote, tmp_path / "cache")
    assert captions(offline, 28) == seen and not offline.notices
    assert identify(offline).changes(known) == ()


def _draw_in_another_process(shards: Path, cache: Path, rank: int, queue: Any) -> None:
    source = stream(shards, cache)
    queue.put((rank, captions(source, 60, rank=rank, size=2)))


def test_processes_share_a_cache(shards: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    others = [
        context.Process(target=_draw_in_another_process, args=(shards, tmp_path / "shared", rank, queue))
        for rank in range(2)
    ]
    for process in others:
        process.start()
    found = dict(queue.get(timeout=30) for _ in others)
    for process in others:
        process.join(10)
    for rank, seen in found.items():
        assert seen == captions(stream(shards, tmp_path / f"alone{rank}"), 60, rank=rank, size=2)
    assert not [path for path in (tmp_path / "shared").iterdir() if path.suffix not in (".tar", ".index", ".version")]
