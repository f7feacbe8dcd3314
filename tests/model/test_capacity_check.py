"""A run is compared with the memory and the disk that it would have."""

import pytest

from nightsmith.model.capacity.check import machine, refusals
from nightsmith.model.capacity.devices import GPUS
from nightsmith.model.capacity.families import shape_of
from nightsmith.model.capacity.memory import memory_of
from nightsmith.model.capacity.published import PUBLISHED
from nightsmith.model.capacity.shapes import ModelShape
from nightsmith.model.capacity.sharding import ParallelPlan
from nightsmith.model.capacity.units import GIB
from nightsmith.model.capacity.workload import Workload

HERE = Workload(precision="fp32", recompute=False, logits_chunk=None, micro_batch=8, seq_len=256)


def shape(name: str) -> ModelShape:
    found = shape_of(PUBLISHED[name].config, name)
    assert found is not None
    return found


@pytest.mark.parametrize("preset", ["nano", "micro", "mini"])
def test_presets_train_on_a_small_machine(preset):
    assert refusals(shape(preset), HERE, machine(8 * GIB, runs_at_once=2), disk_bytes=GIB) == ()


def test_a_batch_that_is_too_large_is_answered_with_the_largest_half_of_it_that_fits():
    work = HERE.model_copy(update={"micro_batch": 4096})
    device = machine(8 * GIB)
    (refusal,) = refusals(shape("micro"), work, device)
    assert refusal.resource == "memory"
    assert refusal.needed_bytes > refusal.available_bytes == 7 * GIB
    batch = refusal.remedies[0].workload.micro_batch
    assert refusal.remedies[0].needed_bytes <= device.usable_bytes
    twice = work.model_copy(update={"micro_batch": 2 * batch})
    assert memory_of(shape("micro"), ParallelPlan(), twice).total > device.usable_bytes
    assert f"a batch of {batch}" in refusal.text


def test_weights_alone_can_be_too_large_and_then_adapters_are_offered_where_they_fit():
    (refusal,) = refusals(shape("qwen3-30b-a3b"), HERE, machine(256 * GIB))
    assert [each.change for each in refusal.remedies] == ["LoRA"]
    (refusal,) = refusals(shape("small4"), HERE, machine(16 * GIB))
    assert refusal.remedies == ()
    assert "No change" in refusal.text


def test_runs_at_once_share_the_memory():
    needed = memory_of(shape("mini"), ParallelPlan(), HERE).total
    alone = machine(needed + 1.5 * GIB)
    assert refusals(shape("mini"), HERE, alone) == ()
    assert refusals(shape("mini"), HERE, machine(needed + 1.5 * GIB, runs_at_once=2))[0].resource == "memory"


def test_files_that_do_not_fit_on_the_disk_are_refused_too():
    (refusal,) = refusals(shape("mini"), HERE, machine(64 * GIB), disk_bytes=GIB // 4)
    assert refusal.resource == "disk"
    assert refusal.remedies[0].workload.method == "lora"
    assert refusals(shape("mini"), HERE, machine(64 * GIB), disk_bytes=GIB) == ()


def test_a_layout_over_gpus_is_checked_as_it_is():
    work = Workload(optimizer="adamw8bit")
    layout = ParallelPlan(fsdp=16, ep=16)
    assert refusals(shape("small4"), work, GPUS["H100"], plan=layout) == ()
    assert refusals(shape("small4"), work, GPUS["H100"], plan=ParallelPlan(fsdp=8, ep=8))[0].resource == "memory"
