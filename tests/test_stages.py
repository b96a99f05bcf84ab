"""Seconds by stage: nesting, threads, and nothing outside of a profile."""

from __future__ import annotations

import threading
import time

from clippy_cli.stages import profiled, stage


def test_a_stage_inside_another_is_not_counted_twice():
    with profiled() as profile, stage("outer"):
        with stage("inner"):
            time.sleep(0.02)
        with stage("inner"):
            pass
    spent = {one.stage: one for one in profile.spent}
    assert spent["inner"].calls == 2 and spent["outer"].calls == 1
    assert spent["inner"].seconds >= 0.02 > spent["outer"].seconds
    assert spent["inner"].seconds + spent["outer"].seconds <= profile.wall


def test_threads_are_added_up_and_do_not_nest_in_each_other():
    def work() -> None:
        with stage("work"):
            time.sleep(0.02)

    with profiled() as profile, stage("main"):
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    spent = {one.stage: one for one in profile.spent}
    assert spent["work"].calls == 3 and spent["work"].seconds >= 0.06
    assert spent["main"].seconds >= 0.02


def test_other_is_what_the_main_thread_does_besides():
    def work() -> None:
        with stage("work"):
            time.sleep(0.02)

    with profiled() as profile:
        with stage("main"), stage("inside"):
            time.sleep(0.02)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()  # waiting for another thread is no stage of the main one
    inside = sum(one.seconds for one in profile.spent if one.stage != "work")
    assert 0.02 <= profile.other <= profile.wall - inside + 1e-6


def test_nothing_is_collected_without_a_profile():
    with stage("before"):
        pass
    with profiled() as profile:
        pass
    with stage("after"):
        pass
    assert profile.spent == []
