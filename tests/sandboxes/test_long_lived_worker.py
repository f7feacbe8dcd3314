"""A worker answers calls of a function that it holds in a sandbox; whatever that function does is a reply."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nightsmith.record.errors import NightsmithError
from nightsmith.sandboxes.base import Limits, Sandbox, SandboxSpec
from nightsmith.sandboxes.choice import choose
from nightsmith.sandboxes.worker import ReplyStatus, Worker

SPEC = SandboxSpec(limits=Limits(output_bytes=20_000))
MISCHIEF = """
import json, os, signal, sys, time
calls = []

def reward(what="", text="", seconds=0):
    calls.append(what)
    if what == "print":
        print(text * 1_000_000)
    if what == "raise":
        raise ValueError(text)
    if what == "exit":
        sys.exit(3)
    if what == "die":
        os._exit(7)
    if what == "sleep":
        time.sleep(seconds)
    if what == "spin":
        while True:
            pass
    if what == "stubborn":
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        while True:
            time.sleep(1)
    if what == "megabytes":
        return "x" * 10_000_000
    if what == "set":
        return {1, 2}
    if what == "nan":
        return float("nan")
    if what == "garble":
        for number in range(3, 10):
            try:
                os.write(number, text.encode() + b"\\n")
            except OSError:
                pass
    if what == "deep":
        value = []
        for _ in range(100_000):
            value = [value]
        return value
    if what == "memory":
        return len(bytearray(8 << 30))
    return len(calls)
"""


@pytest.fixture(scope="module")
def worker(sandbox: Sandbox):
    with Worker(MISCHIEF, "reward", sandbox, SPEC) as worker:
        yield worker


def test_calls_find_one_process_that_keeps_its_state(sandbox: Sandbox):
    with Worker(MISCHIEF, "reward", sandbox, SPEC) as worker:
        assert [worker.call({}, 30.0).value for _ in range(3)] == [1, 2, 3]
        assert worker.starts == 1


def test_a_worker_outlives_the_thread_that_started_it(sandbox: Sandbox):
    made: list[Worker] = []
    thread = threading.Thread(target=lambda: made.append(Worker(MISCHIEF, "reward", sandbox, SPEC)))
    thread.start()
    thread.join()
    with made[0] as worker:
        assert [worker.call({}, 30.0).value for _ in range(2)] == [1, 2]


def test_a_forked_process_starts_workers_of_its_own():
    program = """if True:
        import os
        from nightsmith.sandboxes.base import SandboxSpec
        from nightsmith.sandboxes.choice import choose
        from nightsmith.sandboxes.worker import Worker
        def answer():
            with Worker("def f(): return 7", "f", choose(), SandboxSpec()) as worker:
                return worker.call({}, 30.0).value
        assert answer() == 7
        child = os.fork()
        if child:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        else:
            assert answer() == 7
    """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=100)


def test_a_large_question_gets_through_both_pipes(worker: Worker):
    assert worker.call({"text": "x" * 3_000_000}, 10.0).status is ReplyStatus.OK


def test_what_it_raises_is_told_with_the_line_of_its_file(worker: Worker):
    reply = worker.call({"what": "raise", "text": "no such luck"}, 30.0)
    assert reply.status is ReplyStatus.RAISED
    assert "ValueError: no such luck" in reply.detail
    assert "raise ValueError(text)" in reply.detail
    assert "answering" not in reply.detail


@pytest.mark.parametrize(
    ("what", "status", "told"),
    [
        ("exit", ReplyStatus.RAISED, "SystemExit: 3"),
        ("die", ReplyStatus.CRASHED, "status 7"),
        ("sleep", ReplyStatus.TIMED_OUT, "time limit"),
        ("spin", ReplyStatus.TIMED_OUT, "time limit"),
        ("stubborn", ReplyStatus.TIMED_OUT, "time limit"),
        ("megabytes", ReplyStatus.OUTPUT_LIMIT, "20000 bytes"),
        ("set", ReplyStatus.RAISED, "a set, which JSON cannot hold"),
        ("deep", ReplyStatus.RAISED, "RecursionError"),
        ("memory", ReplyStatus.RAISED, "MemoryError"),
    ],
)
def test_whatever_it_does_is_a_reply_and_the_next_call_is_answered(
    worker: Worker, what: str, status: ReplyStatus, told: str
):
    reply = worker.call({"what": what, "seconds": 60}, 0.4 if status is ReplyStatus.TIMED_OUT else 60.0)
    assert (reply.status, reply.value) == (status, None)
    assert told in reply.detail
    assert worker.call({}, 30.0).status is ReplyStatus.OK


def test_what_it_prints_is_cut_off_and_sent_along(worker: Worker):
    reply = worker.call({"what": "print", "text": "ab"}, 10.0)
    assert reply.status is ReplyStatus.OK
    assert reply.printed.startswith("abab")
    assert len(reply.printed) == 4096


def test_not_a_number_comes_back_as_it_is(worker: Worker):
    value = worker.call({"what": "nan"}, 30.0).value
    assert value != value


@pytest.mark.parametrize("text", ["", "{}", "[" * 10_000, '{"id": "0", "value": 1, "cpu_s": 0, "printed": ""}', "\xff"])
def test_an_answer_that_was_forged_is_none(worker: Worker, text: str):
    reply = worker.call({"what": "garble", "text": text}, 30.0)
    assert (reply.status, reply.value) == (ReplyStatus.CRASHED, None)
    assert worker.call({}, 30.0).status is ReplyStatus.OK


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def rewrad(x): return 1\ndef other(): ...", "no function 'reward'; it defines: rewrad, other"),
        ("", "it defines: none"),
        ("reward = 3", "no function 'reward'"),
        ("def reward(:", "SyntaxError"),
        ("import numpy\ndef reward(): ...", "No module named 'numpy'"),
        ("import sys; sys.exit()", "SystemExit"),
        ("import os; os._exit(1)", "status 1"),
    ],
)
def test_a_file_without_the_function_says_what_it_has(sandbox: Sandbox, tmp_path: Path, source: str, told: str):
    file = tmp_path / "reward.py"
    file.write_text(source)
    with pytest.raises(NightsmithError, match=r"reward\.py cannot give the function 'reward'") as raised:
        Worker.of_file(file, "reward", sandbox, SPEC)
    assert told in str(raised.value)


def test_a_worker_that_used_up_its_processor_time_is_replaced_between_calls():
    source = "import time\ndef reward(until):\n  while time.process_time() < until: pass"
    with Worker(source, "reward", choose(), SandboxSpec(limits=Limits(cpu_s=1))) as worker:
        assert all(worker.call({"until": until}, 20.0).status is ReplyStatus.OK for until in (0.85, 0))
        assert worker.starts == 2
