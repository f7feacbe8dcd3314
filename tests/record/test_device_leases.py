import os
import subprocess
import sys
from pathlib import Path

import pytest

from nightsmith.record import leases
from nightsmith.record.errors import NightsmithError, NoDevice
from nightsmith.record.settings_file import FILE
from nightsmith.record.workspace import Workspace


@pytest.fixture(autouse=True)
def three_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSMITH_DEVICES", "cpu:0,cpu:1,cuda:0")


def acquired(ws: Workspace, key: str, num: int, kind: leases.DeviceKind = "cpu") -> tuple[str, ...]:
    with ws.write() as db:
        return leases.acquire(db, key, num, kind)


def test_a_device_is_held_by_one_job_until_it_is_released(ws: Workspace) -> None:
    assert acquired(ws, "a", 1) == ("cpu:0",)
    assert acquired(ws, "b", 1) == ("cpu:1",)
    with pytest.raises(NoDevice, match=r"0 of 2 are free.*Wait"):
        acquired(ws, "c", 1)
    with ws.write() as db:
        leases.release(db, "a")
    assert leases.free(ws, "cpu") == ("cpu:0",)
    assert acquired(ws, "c", 1) == ("cpu:0",)


def test_kinds_of_device_are_leased_apart(ws: Workspace) -> None:
    acquired(ws, "a", 2)
    assert acquired(ws, "b", 1, "cuda") == ("cuda:0",)
    assert leases.free(ws, "cuda") == ()


def test_a_job_that_asks_again_gets_the_devices_it_holds(ws: Workspace) -> None:
    assert acquired(ws, "a", 2) == acquired(ws, "a", 2) == ("cpu:0", "cpu:1")
    with pytest.raises(NoDevice, match="holds cpu:0, cpu:1"):
        acquired(ws, "a", 1)


def test_more_devices_than_the_machine_has_are_refused_with_what_it_has(ws: Workspace) -> None:
    with pytest.raises(NoDevice, match="Ask for at most 2"):
        acquired(ws, "a", 3)
    with pytest.raises(ValueError, match="at least one"):
        acquired(ws, "a", 0)


def test_a_refused_request_leases_nothing(ws: Workspace) -> None:
    acquired(ws, "a", 1)
    with pytest.raises(NoDevice):
        acquired(ws, "b", 2)
    assert leases.free(ws) == ("cpu:1",)


def test_reserved_devices_are_given_to_nobody(ws: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / FILE).write_text('reserved_devices = ["cuda:0", "cpu:0"]\n')
    assert leases.devices() == ("cpu:1",)
    assert acquired(ws, "a", 1) == ("cpu:1",)
    with pytest.raises(NoDevice, match=r"jobs may have 0 \(cuda:0, cpu:0 reserved\)"):
        acquired(ws, "b", 1, "cuda")
    monkeypatch.setenv("NIGHTSMITH_RESERVED_DEVICES", "cpu:1")
    assert leases.devices() == ("cpu:0", "cuda:0")
    monkeypatch.setenv("NIGHTSMITH_RESERVED_DEVICES", "")
    assert leases.reserved() == ()
    monkeypatch.setenv("NIGHTSMITH_RESERVED_DEVICES", "cpu:0,cpu:1,cuda:0")
    with pytest.raises(NightsmithError, match="keeps every device from jobs"):
        leases.devices()
    monkeypatch.setenv("NIGHTSMITH_RESERVED_DEVICES", "gpu0")
    with pytest.raises(NightsmithError, match="reserved_devices has 'gpu0'"):
        leases.devices()


def test_the_variable_rules_the_devices_and_a_wrong_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTSMITH_DEVICES", " cuda:1, cpu:0 ,cuda:1")
    assert leases.devices() == ("cuda:1", "cpu:0")
    monkeypatch.setenv("NIGHTSMITH_DEVICES", "cpu:0,gpu")
    with pytest.raises(NightsmithError, match=r"'gpu'.*cpu:0,cuda:0"):
        leases.devices()


def test_without_the_variable_there_is_one_cpu_device_a_usable_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIGHTSMITH_DEVICES")
    cores = [device for device in leases.devices() if device.startswith("cpu:")]
    assert cores == [f"cpu:{index}" for index in range(len(cores))]
    assert 1 <= len(cores) <= len(os.sched_getaffinity(0))


def test_gpus_are_those_that_nvidia_smi_lists_and_cuda_visible_devices_allows(tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, GPU-aa'\necho '1, GPU-bb'\necho '2, GPU-cc'\n")
    smi.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": "0,GPU-cc"}
    del env["NIGHTSMITH_DEVICES"]
    script = "from nightsmith.record.leases import devices; print(*[d for d in devices() if d.startswith('cuda')])"
    listed = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True).stdout
    assert listed.split() == ["cuda:0", "cuda:2"]


CONTENDER = """
import random, sys, time
from pathlib import Path
from nightsmith.record import leases
from nightsmith.record.errors import NoDevice
from nightsmith.record.workspace import open_workspace
ws, held = open_workspace(Path(sys.argv[1])), 0
key = sys.argv[2]
while held < 20:
    try:
        with ws.write() as db:
            got = leases.acquire(db, key, random.choice([1, 2]))
    except NoDevice:
        time.sleep(0.001)
        continue
    markers = [Path(sys.argv[1]) / device for device in got]
    for marker in markers:
        marker.touch(exist_ok=False)
    for marker in markers:
        marker.unlink()
    with ws.write() as db:
        leases.release(db, key)
    held += 1
print(held)
"""


def test_contending_processes_never_hold_the_same_device(ws: Workspace) -> None:
    contenders = [
        subprocess.Popen(
            [sys.executable, "-c", CONTENDER, str(ws.root), str(number)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        for number in range(3)
    ]
    assert [contender.communicate(timeout=60)[0] for contender in contenders] == ["20\n"] * 3
    assert [contender.returncode for contender in contenders] == [0, 0, 0]
    assert leases.free(ws) == ("cpu:0", "cpu:1")
