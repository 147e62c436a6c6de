"""A step computed some rows at a time: the same gradients, the same payloads, less memory."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

import pytest
import torch
from crowds import EVERYTHING, Deals, Keeps, mlp, records, trained
from device_nets import NETS
from devices import furthest, regime

from privbench.contract import ROW_KINDS, Net
from privbench.errors import BudgetError, UsageError
from privbench.regimes.training import train
from privbench.slicenet.crowd import Device, Uniform
from privbench.slicenet.engines import Distributed
from privbench.slicenet.faults import Faults
from privbench.slicenet.problem import Slicing
from privbench.slicenet.slicers.base import Slicer
from privbench.wire.capture import Capture
from privbench.wire.tap import Recorder
from privbench.wire.transcript import Transcript
from privbench.wire.wire import Wire

MICRO = 5  # rows, of batches of 12


@dataclass(frozen=True, kw_only=True)
class InTurn(Slicer):
    """Deals blocks in turn, whatever memory says: the same slicing for every micro-batch."""

    def slice(self, problem):
        return Slicing(tuple(n % len(problem.devices) for n in range(len(problem.vertices))))


def _joined(messages):
    """Messages with rows, put together over the parts of a step: kind, ends, layer, units to rows."""
    found = defaultdict(dict)
    for m in messages:
        key = (m.step, m.kind, m.sender, m.receiver, m.layer, m.units)
        if m.kind in ROW_KINDS:
            for row, payload in zip(m.rows.tolist(), m.payload, strict=True):
                assert row not in found[key]
                found[key][row] = payload
        else:
            found[key][-1] = m.payload
    return found


@pytest.mark.parametrize(
    ("net", "tiling", "labels", "epochs"),
    [
        ("mlp", "output", "tail", 1),
        ("tied", "output", "tail", 1),
        pytest.param("mlp", "grid", "shared", 1, marks=pytest.mark.slow),
        pytest.param("residual", "input", "logits", 1, marks=pytest.mark.slow),
        pytest.param("mlp", "grid", "tail", 4, marks=pytest.mark.slow),
        pytest.param("resnet", "grid", "tail", 4, marks=pytest.mark.slow),
        pytest.param("alexnet", "grid", "tail", 4, marks=pytest.mark.slow),
    ],
)
def test_gradients_add_up_and_payloads_are_those_of_the_whole(net, tiling, labels, epochs):
    settings = {
        "tiling": tiling,
        "labels": labels,
        "slicer": InTurn(),
        "epochs": epochs,
    }
    told = trained(regime(4, micro_batch=MICRO, **settings), *_without_batch_norm(net))
    whole = trained(regime(4, **settings), *_without_batch_norm(net))
    central = train(told.trained.recipe, told.population.train, told.rng).weights
    assert furthest(told.trained.net.weights, central) < 1e-10
    some, every = _joined(told.tap.cut()), _joined(whole.tap.cut())
    assert some.keys() == every.keys()
    for key, rows in every.items():
        assert some[key].keys() == rows.keys(), key
        for row, payload in rows.items():
            torch.testing.assert_close(some[key][row], payload, rtol=1e-8, atol=1e-11)
    for kind, total in told.wire.bytes.items():
        assert total == sum(m.nbytes for m in told.tap.cut() if m.kind == kind), kind
    assert told.wire.bytes["activation"] > whole.wire.bytes["activation"]  # headers alone
    silent = trained(
        regime(4, micro_batch=MICRO, **settings), *_without_batch_norm(net), taps=False
    )
    assert silent.wire.bytes == told.wire.bytes


def _without_batch_norm(net):
    return NETS[net] if net != "residual" else (mlp(16, 12, 10, 8, 4), (1, 4, 4))


def test_a_recording_holds_each_owners_rows(tmp_path):
    """Owners' rows of a part of a step are found again when a view is cut."""
    tap = Recorder(tmp_path, Capture())
    keeps = Keeps()
    crowd = regime(4, "grid", epochs=1, micro_batch=MICRO)
    population = Deals(records(60, (1, 4, 4), 4, 1))
    wire = Wire((tap, keeps))
    crowd.train(Net(mlp(16, 12, 8, 4)), population, wire, torch.Generator().manual_seed(1), "cpu")
    tap.close()
    transcript = Transcript(tmp_path)
    read = list(transcript.seen_by(EVERYTHING, transcript.steps, ROW_KINDS))
    kept = [m for m in keeps.cut() if m.kind in ROW_KINDS]
    assert len(read) == len(kept)
    for one, other in zip(read, kept, strict=True):
        assert (one.kind, one.sender, one.receiver) == (other.kind, other.sender, other.receiver)
        assert torch.equal(one.rows, other.rows)
        assert torch.equal(one.payload, other.payload)


def test_dropout_masks_are_those_of_the_whole_batch():
    told = trained(regime(3, epochs=1, micro_batch=4), *NETS["alexnet"])
    central = train(told.trained.recipe, told.population.train, told.rng).weights
    assert furthest(told.trained.net.weights, central) < 1e-10


def test_small_devices_manage_with_few_rows_at_a_time():
    """Memory that holds no whole batch holds a part of one."""

    def crowd(micro):
        small = Uniform(devices=3, device=Device(memory=12e3))
        return replace(regime(3, epochs=1, micro_batch=micro), crowd=small)

    with pytest.raises(BudgetError, match="memory"):
        trained(crowd(None), mlp(16, 24, 24, 4), (1, 4, 4))
    told = trained(crowd(1), mlp(16, 24, 24, 4), (1, 4, 4))
    assert all(load.memory <= load.memory_budget for load in told.trained.topology.loads)


def test_what_cannot_be_parted_is_refused():
    for settings, reason in (
        ({"micro_batch": 0}, "at least 1 row"),
        ({"replicas": 2}, "replicas"),
        ({"faults": Faults(loss_rate=0.1)}, "faults"),
        ({"engine": Distributed()}, "distributed"),
    ):
        with pytest.raises(UsageError, match=reason):
            trained(regime(4, epochs=1, **{"micro_batch": 4, **settings}), *NETS["mlp"])
    with pytest.raises(UsageError, match=r"batch norm.*micro_batch"):
        trained(regime(4, epochs=1, micro_batch=4), *NETS["residual"])
