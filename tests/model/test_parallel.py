"""One process against two: every parallel plan takes the steps that one process takes on the whole batch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import parallel_steps
import pytest
import torch

from nightsmith.model.presets import PRESETS
from nightsmith.model.small4 import build

torch.set_num_threads(1)
NANO = PRESETS["nano"]
BALANCED = {
    "balance_mode": "bias", "router_aux_loss_coef": 0.5, "router_z_loss_coef": 0.1, "router_bias_update_rate": 0.01,
}  # fmt: skip
"""Everything that looks at the global batch, strong enough to be seen in a gradient norm."""


@pytest.fixture(scope="module")
def on_two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("parallel")
    build(NANO, seed=0, **BALANCED).save_pretrained(folder / "model")
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    script = [parallel_steps.__file__, str(folder / "model"), str(folder / "results.json")]
    done = subprocess.run([*launch, *script], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(Path(script[-1]).read_text())


@pytest.fixture(scope="module")
def on_one_process() -> dict[str, Any]:
    return parallel_steps.steps(build(NANO, seed=0, **BALANCED))


@pytest.mark.slow
@pytest.mark.parametrize("plan", parallel_steps.PLANS)
def test_two_ranks_take_the_steps_of_one_process_with_every_balancing_on(
    plan: str, on_two_ranks: dict[str, Any], on_one_process: dict[str, Any]
) -> None:
    assert on_two_ranks[plan]["loss"] == pytest.approx(on_one_process["loss"], rel=1e-5)
    assert on_two_ranks[plan]["norm"] == pytest.approx(on_one_process["norm"], rel=1e-5)
    assert on_two_ranks[plan]["loads"] == on_one_process["loads"]
    for found, reference in zip(on_two_ranks[plan]["biases"], on_one_process["biases"], strict=True):
        assert any(reference)
        assert found == pytest.approx(reference, abs=1e-7)


@pytest.mark.slow
def test_the_balancing_losses_are_large_enough_to_show_in_the_comparison(on_one_process: dict[str, Any]) -> None:
    plain = parallel_steps.steps(build(NANO, seed=0, balance_mode="bias"))
    assert plain["loss"][0] == on_one_process["loss"][0]
    assert abs(plain["norm"][0] / on_one_process["norm"][0] - 1) > 1e-3
