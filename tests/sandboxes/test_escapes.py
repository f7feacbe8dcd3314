"""Nothing gets out of a sandbox: each attempt is made in each backend that works here; then the world is as before.

The same attempts are made by an ordinary user where root runs the tests, and, to prove that they are real, without a
sandbox.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Generator
from pathlib import Path

import attempts
import psutil
import pydantic
import pytest
from world import SECRET, World, world

import nightsmith
from nightsmith.sandboxes.base import MIB, Limits, Sandbox, SandboxSpec
from nightsmith.sandboxes.choice import SANDBOXES, unusable
from nightsmith.sandboxes.runtime import PYTHON
from nightsmith.sandboxes.worker import ReplyStatus, Worker

NOBODY = 65534
SPEC = SandboxSpec(limits=Limits(memory_bytes=512 * MIB, file_bytes=8 * MIB, tmp_bytes=32 * MIB))


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    with world(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(scope="module")
def attacker(sandbox: Sandbox) -> Generator[Worker]:
    with Worker(attempts.source(), "attempt", sandbox, SPEC, filename="attempts.py") as worker:
        yield worker


@pytest.mark.parametrize("name", attempts.ATTEMPTS)
def test_it_cannot(around: World, attacker: Worker, name: str):
    reply = attacker.call({"name": name, "given": around.given}, 20.0)
    assert reply.status is not ReplyStatus.OK or not reply.value
    assert SECRET not in str(reply)
    assert around.touched() == []


@pytest.mark.parametrize("name", ["touch a fork bomb", "touch a daemon that outlives it", "touch a thread"])
def test_with_leave_to_start_a_few_tasks_it_gets_only_a_few_and_none_outlives_it(around: World, name: str):
    if (reason := unusable("bubblewrap")) is not None:
        warnings.warn(f"UNTESTED: tasks in bubblewrap: {reason}", stacklevel=1)
        pytest.skip(reason)
    spec = SPEC.model_copy(update={"limits": SPEC.limits.model_copy(update={"tasks": 8})})
    with Worker(attempts.source(), "attempt", SANDBOXES["bubblewrap"], spec) as worker:
        reply = worker.call({"name": name, "given": around.given}, 20.0)
    assert reply.value == "True" or 0 < int(reply.value) < 8
    _, alive = psutil.wait_procs([process for process in psutil.process_iter() if _is_daemon(process)], timeout=5)
    assert alive == []


def test_the_sandbox_dies_with_the_process_that_started_it(sandbox: Sandbox):
    program = f"""if True:
        import time
        from nightsmith.sandboxes.base import SandboxSpec
        from nightsmith.sandboxes.choice import SANDBOXES
        from nightsmith.sandboxes.worker import Worker
        source = "import time\\ndef sleep(): time.sleep(60)  # orphan {os.getpid()}"
        worker = Worker(source, "sleep", SANDBOXES[{sandbox.name!r}], SandboxSpec())
        print(worker._child._process.pid, flush=True)
        worker.call({{}}, 60)
    """
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        inner = psutil.Process(int(parent.stdout.readline()))
        everything = [inner, *inner.children(recursive=True)]
        parent.kill()
    gone, alive = psutil.wait_procs(everything, timeout=10)
    assert (len(gone), alive) == (len(everything), [])


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_without_a_sandbox_the_attempts_succeed(tmp_path: Path):
    spec = SPEC.model_copy(update={"env": {"TMPDIR": str(tmp_path)}})
    held = [name for number, name in enumerate(attempts.HARMLESS) if not _succeeds(name, spec, tmp_path / str(number))]
    assert len(attempts.HARMLESS) - len(held) >= 60, held


def _succeeds(name: str, spec: SandboxSpec, folder: Path) -> bool:
    with world(folder) as around, Worker(attempts.source(), "attempt", SANDBOXES["process"], spec) as worker:
        reply = worker.call({"name": name, "given": around.given}, 2.0)
        return bool(reply.value or around.touched())


def _is_daemon(process: psutil.Process) -> bool:
    try:
        return any("# outlives" in argument for argument in process.cmdline())
    except psutil.Error:
        return False


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(os.geteuid() != 0, reason="the tests above are an ordinary user's already")
def test_an_ordinary_user_gets_no_further():
    """Attempts of `nobody`, with a copy of what they need, since nobody cannot read root's folders."""
    python = next((path for path in (PYTHON, "/usr/bin/python3") if _is_usable_by_nobody(path)), None)
    if python is None:
        warnings.warn("UNTESTED: sandboxes of an ordinary user: nobody can run no Python like this one", stacklevel=1)
        pytest.skip("no Python for nobody")
    with tempfile.TemporaryDirectory(prefix="nightsmith-nobody-") as name:
        folder = _copied(Path(name))
        done = subprocess.run(
            [python, "-B", str(folder / "as_user.py"), str(folder)],
            user=NOBODY, group=NOBODY, extra_groups=[], env={"PATH": os.environ["PATH"], "PYTHONPATH": str(folder)},
            cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for backend, reason in told["unusable"].items():
        warnings.warn(f"UNTESTED: the sandbox {backend} for an ordinary user: {reason}", stacklevel=1)
    assert told["attempts"] == len(attempts.ATTEMPTS) * (len(told["escapes"]))
    assert told["escapes"]
    assert not any(told["escapes"].values()), told["escapes"]


def _is_usable_by_nobody(python: str) -> bool:
    program = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
    try:
        asked = subprocess.run([python, "-c", program], user=NOBODY, group=NOBODY, cwd="/", check=False)
    except OSError:
        return False
    return asked.returncode == 0


def _copied(folder: Path) -> Path:
    """Our packages and pydantic's, owned by nobody."""
    sources, packages = Path(nightsmith.__file__).parent, Path(pydantic.__file__).parents[1]
    for name in ("__init__.py", "record", "sandboxes", "evals"):
        _copy(sources / name, folder / "nightsmith" / name)
    for name in ("agent", "tools", "trainer", "model"):
        (folder / "nightsmith" / name).mkdir()
    for name in ("pydantic", "pydantic_core", "annotated_types", "typing_inspection", "typing_extensions.py"):
        _copy(packages / name, folder / name)
    for name in ("attempts.py", "world.py", "as_user.py"):
        _copy(Path(__file__).with_name(name), folder / name)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    return folder


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)
