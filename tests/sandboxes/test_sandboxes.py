"""What a sandbox gives, what it refuses to be asked for, and which one is chosen."""

import os
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nightsmith.record.errors import NightsmithError, Refused
from nightsmith.sandboxes import choice, seccomp
from nightsmith.sandboxes.base import MIB, Ending, Limits, Sandbox, SandboxSpec
from nightsmith.sandboxes.canary import TOLD, probe
from nightsmith.sandboxes.child import run
from nightsmith.sandboxes.landlock import Landlock, abi
from nightsmith.sandboxes.process import PlainProcess
from nightsmith.sandboxes.runtime import ISOLATED
from nightsmith.sandboxes.worker import Worker


def ran(sandbox: Sandbox, program: str, spec: SandboxSpec | None = None, given: bytes = b""):
    return run(sandbox, spec or SandboxSpec(), (*ISOLATED, "-c", textwrap.dedent(program)), given)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that any user id can read; pytest's own is for its user alone."""
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    return folder


def test_the_standard_library_works_inside(sandbox: Sandbox):
    done = ran(
        sandbox,
        """
        import asyncio, ctypes, decimal, hashlib, json, random, sqlite3, ssl, sys, tempfile, time, unicodedata, zlib
        async def three():
            await asyncio.sleep(0.01)
            return 3
        assert sqlite3.connect(":memory:").execute("select 2").fetchone() == (2,)
        print(asyncio.run(three()), time.localtime().tm_zone, sys.stdin.read(), random.SystemRandom().random() < 1)
        """,
        given=b"given",
    )
    assert (done.ending, done.exit_status, done.output) == (Ending.EXITED, 0, b"3 UTC given True\n")
    assert done.sandbox == sandbox.name


@pytest.mark.parametrize(
    ("program", "ending", "status"),
    [
        ("raise SystemExit(3)", Ending.EXITED, 3),
        ("import time; time.sleep(60)", Ending.TIMED_OUT, None),
        ("while True: print('x' * 9999)", Ending.OUTPUT_LIMIT, None),
        ("import os; os.closerange(0, 9)\nwhile True: pass", Ending.TIMED_OUT, None),
    ],
)
def test_a_program_ends_in_one_of_three_ways(sandbox: Sandbox, program: str, ending: Ending, status: int | None):
    spec = SandboxSpec(limits=Limits(wall_s=1.0, output_bytes=100_000))
    done = ran(sandbox, program, spec)
    assert (done.ending, done.exit_status) == (ending, status)
    assert len(done.output) <= 100_000


def test_what_a_late_program_wrote_is_kept(sandbox: Sandbox):
    program = "import time; print('so far', flush=True); time.sleep(60)"
    assert ran(sandbox, program, SandboxSpec(limits=Limits(wall_s=1.0))).output == b"so far\n"


def test_a_program_ends_with_its_processor_time(sandbox: Sandbox):
    done = ran(sandbox, "while True: pass", SandboxSpec(limits=Limits(cpu_s=1, wall_s=60)))
    assert (done.ending, done.exit_status in (-9, 137)) == (Ending.EXITED, True)


def test_named_files_can_be_read_and_named_folders_written_and_nothing_beside_them(sandbox: Sandbox, shared: Path):
    (shared / "given").write_text("given")
    (shared / "secret").write_text("secret")
    (shared / "out").mkdir()
    spec = SandboxSpec(read_only=(str(shared / "given"),), read_write=(str(shared / "out"),))
    done = ran(
        sandbox,
        f"""
        import os
        print(open({str(shared / "given")!r}).read())
        open({str(shared / "out" / "made")!r}, "w").write("made")
        for path, mode in (("secret", "r"), ("given", "w"), ("new", "w")):
            try:
                open({str(shared)!r} + "/" + path, mode)
                print("opened", path)
            except OSError:
                pass
        """,
        spec,
    )
    assert done.output == b"given\n"
    assert (shared / "out" / "made").read_text() == "made"
    assert sorted(path.name for path in shared.iterdir()) == ["given", "out", "secret"]


def test_chosen_packages_can_be_imported_but_nightsmith_within_them_is_hidden(sandbox: Sandbox, shared: Path):
    for name, text in (("helpful", "three = 3"), ("nightsmith", ""), ("nightsmith/evals", "answer = 'secret'")):
        (shared / name).mkdir()
        (shared / name / "__init__.py").write_text(text)
    source = """
import helpful
def peek():
    try:
        import nightsmith.evals
        return nightsmith.evals.answer
    except Exception:
        return helpful.three
"""
    with Worker(source, "peek", sandbox, SandboxSpec(python_path=(str(shared),))) as worker:
        assert worker.call({}, 30.0).value == 3


def test_the_network_is_there_only_where_it_is_asked_for(sandbox: Sandbox):
    program = "import socket; print(socket.create_server(('127.0.0.1', 0)).getsockname()[0])"
    assert ran(sandbox, program, SandboxSpec(network=True)).output == b"127.0.0.1\n"
    assert b"127.0.0.1\n" not in ran(sandbox, program).output.splitlines(keepends=True)


def test_the_network_is_not_a_way_to_the_machine_s_own_sockets(sandbox: Sandbox):
    program = """
        import socket
        for family, kind in ((socket.AF_UNIX, socket.SOCK_STREAM), (socket.AF_NETLINK, socket.SOCK_RAW)):
            try:
                socket.socket(family, kind)
                print("made", family)
            except PermissionError:
                pass
        try:
            socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            print("made a pair")
        except PermissionError:
            pass
    """
    assert ran(sandbox, program, SandboxSpec(network=True)).output == b""


def test_a_drip_of_output_does_not_put_off_the_deadline(sandbox: Sandbox):
    done = ran(sandbox, "import os\nwhile True: os.write(1, b'x')", SandboxSpec(limits=Limits(wall_s=1.0)))
    assert done.ending in (Ending.TIMED_OUT, Ending.OUTPUT_LIMIT)


def test_nothing_is_inherited_from_the_environment(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NIGHTSMITH_PLANNER_TOKEN", "secret")
    program = "import os; print(sorted(os.environ))"
    names = ran(sandbox, program, SandboxSpec(env={"GIVEN": "1"})).output.decode()
    assert "GIVEN" in names
    assert "NIGHTSMITH" not in names
    assert "PATH" not in names


def test_the_landlock_jail_says_that_it_runs_one_process():
    with pytest.raises(NightsmithError, match=r"one process with one thread, not 4 tasks.*apt install bubblewrap"):
        Landlock().command(SandboxSpec(limits=Limits(tasks=4)), ISOLATED)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("relative", "absolute path"),
        ("/tmp/../etc", "absolute path"),
        ("/", "a whole home"),
        (str(Path.home()), "a whole home"),
        ("WORKSPACE", "a workspace"),
        ("WORKSPACE/.nightsmith/sealed", "a workspace"),
        ("LINK", "a workspace"),
        (str(Path(choice.__file__).resolve().parent), "the code that judges"),
    ],
)
def test_a_spec_that_would_show_what_nobody_s_code_may_see_is_refused(tmp_path: Path, given: str, told: str):
    (tmp_path / "w" / ".nightsmith" / "sealed").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "w" / ".nightsmith")
    path = given.replace("WORKSPACE", str(tmp_path / "w")).replace("LINK", str(tmp_path / "link"))
    for field in ("read_only", "read_write"):
        with pytest.raises(ValidationError, match=told):
            SandboxSpec.model_validate({field: (path,)})


def test_the_canary_gets_out_of_the_plain_process_and_says_how():
    result = probe(PlainProcess())
    assert set(result.let_through) == set(TOLD)
    assert not result.holds
    assert "it killed a process of its user" in result.told()


def test_the_canary_holds_in_what_is_chosen():
    sandbox = choice.choose()
    assert sandbox.isolates
    assert probe(sandbox).holds


@dataclass(frozen=True)
class Unstartable:
    """A backend whose program is missing, or that ends at once."""

    argv: tuple[str, ...]
    name: str = "unstartable"
    isolates: bool = True
    mend: str = ""

    def lacking(self) -> None:
        return None

    def command(self, spec: SandboxSpec, argv: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG002
        return self.argv


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("/nowhere/bwrap",), "cannot be started"),
        ((sys.executable, "-c", "import sys; sys.exit('bwrap: no namespaces')"), "bwrap: no namespaces"),
        ((sys.executable, "-c", ""), "no output, exit status 0"),
        ((sys.executable, "-c", "print('garbled')"), "garbled"),
    ],
)
def test_a_backend_that_cannot_run_the_canary_is_unusable_and_says_why(argv: tuple[str, ...], told: str):
    result = probe(Unstartable(argv))
    assert not result.holds
    assert told in result.told()


def test_without_a_sandbox_code_is_refused_with_what_to_do_and_allowed_by_permission_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    broken = Unstartable((sys.executable, "-c", "import sys; sys.exit('not here')"))
    monkeypatch.setattr(choice, "SANDBOXES", {"unstartable": broken, "process": PlainProcess()})
    with pytest.raises(Refused, match=r"unstartable: .*not here.*apt install bubblewrap.*allow_plain_process"):
        choice.choose()
    chosen = choice.choose(allow_process=True)
    assert (chosen.name, chosen.isolates) == ("process", False)
    assert "can do all that its user can" in caplog.text


def test_asking_for_landlock_restricts_nothing(tmp_path: Path):
    assert abi() >= 0
    (tmp_path / "still").write_text("writable")


@given(st.booleans(), st.booleans(), st.booleans(), st.sampled_from(["x86_64", "aarch64"]))
def test_every_filter_fits_the_kernel_and_jumps_within_itself(
    new_tasks: bool, network: bool, shared_system: bool, machine: str
):
    program = seccomp.build(new_tasks=new_tasks, network=network, shared_system=shared_system, machine=machine)
    steps = seccomp.read(program)
    assert len(steps) < 4096
    assert all(number + 1 + max(step[1], step[2]) < len(steps) for number, step in enumerate(steps) if step[0] & 7 == 5)
    assert steps[-1][0] & 7 == 6


def test_memory_is_limited_beside_what_python_itself_needs(sandbox: Sandbox):
    spec = SandboxSpec(limits=Limits(memory_bytes=64 * MIB))
    done = ran(sandbox, "import json\ntry: bytearray(60 << 20)\nexcept MemoryError: print('full')", spec)
    assert done.output == b"full\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user id to give")
def test_root_s_code_runs_as_nobody_in_bubblewrap():
    if (reason := choice.unusable("bubblewrap")) is not None:
        pytest.skip(reason)
    user = int(ran(choice.SANDBOXES["bubblewrap"], "import os; print(os.getuid())").output)
    assert user > 2**30
