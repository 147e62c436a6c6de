"""What crosses between devices: how much, who sees it, and that recording it changes nothing."""

from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
import torch
from crowds import EVERYTHING, Keeps, mlp, trained

from privbench.contract import HEADER_BYTES, MessageDefense, Seat, Spec
from privbench.regimes.slicenet import SliceNet
from privbench.regimes.training import train
from privbench.slicenet.crowd import Uniform
from privbench.slicenet.ledger import loads_of, traffic_of
from privbench.slicenet.links import OWNER, Links
from privbench.slicenet.problem import Slicing, volume
from privbench.slicenet.router import CrowdRouter
from privbench.slicenet.trace import trace
from privbench.wire.capture import Capture
from privbench.wire.tap import Recorder
from privbench.wire.transcript import Transcript
from privbench.wire.wire import Wire

CONV = Spec("nets.Chain", {"side": 8, "channels": [4, 6], "widths": [8, 7, 4]})
CASES = [
    pytest.param(tiling, spec, shape, id=f"{tiling}-{name}")
    for tiling in ("output", "input")
    for name, spec, shape in (("mlp", mlp(9, 12, 8, 6, 4), (1, 3, 3)), ("conv", CONV, (1, 8, 8)))
]
TRAFFIC = ("activation", "partial_sum", "gradient")


def regime(tiling="output", devices=5, epochs=1, **other):
    return SliceNet(
        crowd=Uniform(devices=devices),
        tiling=tiling,
        granularity=2,
        epochs=epochs,
        batch=12,
        **other,
    )


@pytest.mark.parametrize("tiling, spec, shape", CASES)
def test_the_volume_is_what_the_ledger_counts_in_an_epoch(tiling, spec, shape):
    told = trained(regime(tiling), spec, shape, dtype=torch.float32)
    graph = trace(told.trained.net.module(), shape)
    recipe, sizes = told.trained.recipe, [len(share) for share in told.population.shares]
    problem = regime(tiling).problem(graph, recipe, sizes)
    hosts = tuple(int(piece.party.split("-")[1]) for piece in told.trained.topology.slices)
    cut = [m for m in told.tap.cut() if m.kind in TRAFFIC]
    payload = sum(m.nbytes - HEADER_BYTES for m in cut)
    assert traffic_of(problem, Slicing(hosts)) == told.trained.topology.traffic
    for each in told.trained.topology.traffic:
        crossed = [m for m in cut if {m.sender, m.receiver} == {each.one, each.other}]
        bare = sum(m.nbytes - HEADER_BYTES for m in crossed)
        assert each.nbytes * sum(sizes) == pytest.approx(bare, rel=0.5)  # shares of rows are means
    total = sum(each.nbytes for each in told.trained.topology.traffic)
    assert total == pytest.approx(volume(problem, Slicing(hosts)), rel=1e-12)
    assert payload == volume(problem, Slicing(hosts)) * sum(sizes)
    headed = sum(told.wire.bytes[kind] for kind in TRAFFIC)
    assert headed == payload + HEADER_BYTES * len(cut)


@pytest.mark.parametrize("tiling, spec, shape", CASES)
def test_a_whole_message_takes_the_bytes_of_its_parts(tiling, spec, shape):
    told = trained(regime(tiling), spec, shape)
    router = CrowdRouter(told.trained.topology)
    for message in told.tap.messages:
        owners = told.tap.owners[message.step]
        router.begin(message.step, owners)
        parts = list(router.cut(message, owners, EVERYTHING))
        assert router.nbytes(message) == sum(part.nbytes for part in parts)


@pytest.mark.parametrize("tiling, spec, shape", CASES)
def test_weights_and_bytes_do_not_depend_on_who_listens_and_are_centralized(tiling, spec, shape):
    loud = trained(regime(tiling, epochs=3), spec, shape, dtype=torch.float32)
    still = trained(regime(tiling, epochs=3), spec, shape, dtype=torch.float32, taps=False)
    assert loud.wire.bytes == still.wire.bytes
    assert loud.wire.bytes["activation"] > 0
    central = train(loud.trained.recipe, loud.population.train, loud.rng).weights
    for name, tensor in central.items():
        assert torch.equal(loud.trained.net.weights[name], tensor)
        assert torch.equal(still.trained.net.weights[name], tensor)


def test_no_message_holds_samples_or_labels():
    told = trained(regime(), CONV, (1, 8, 8))
    assert {m.kind for m in told.tap.messages}.isdisjoint({"samples", "labels"})
    for message in told.tap.cut():
        if len(message.rows) and message.kind in TRAFFIC:
            x = told.population.train.x[told.population.noted[message.step][message.rows]]
            for sample, sent in zip(x, message.payload, strict=True):
                assert not torch.isin(sample.unique(), sent).any()


def test_a_seat_sees_its_own_messages_alone_and_all_of_them():
    told = trained(regime(), mlp(9, 12, 8, 6, 4), (1, 3, 3))
    everything = list(told.tap.cut())
    for name in told.trained.topology.parties:
        seen = list(told.tap.cut(Seat(name, "peer", (name,))))
        assert all(name in (m.sender, m.receiver) for m in seen)
        assert len(seen) == sum(name in (m.sender, m.receiver) for m in everything)
    assert all(m.sender != m.receiver for m in everything)


def test_under_input_tiling_a_host_gets_only_the_channels_whose_weights_it_holds():
    told = trained(regime("input", devices=4), CONV, (1, 8, 8))
    links = Links(told.trained.topology.layers, told.trained.topology.slices)
    for layer in links.travelling:
        for need in links.consumers(layer.name):
            if need.party == OWNER:
                continue
            seat = Seat(need.party, "peer", (need.party,))
            got = {
                unit
                for m in told.tap.cut(seat)
                if m.kind == "activation" and m.layer == layer.name and m.receiver == need.party
                for unit in m.units
            }
            assert got <= set(need.units)


def test_only_owners_of_a_batch_get_its_broadcast_and_their_own_gradients_back():
    told = trained(regime(devices=20), mlp(9, 12, 8, 6, 4), (1, 3, 3))
    for step, owners in told.tap.owners.items():
        present = {f"device-{k}" for k in owners.tolist()}
        cut = [m for m in told.tap.cut() if m.step == step]
        for kind in ("stem_weights", "tail_weights"):
            assert {m.receiver for m in cut if m.kind == kind} == present
        for message in cut:
            if message.kind == "stem_gradient":
                mine = owners == int(message.sender.split("-")[1])
                assert torch.equal(message.rows, mine.nonzero().flatten())
    assert len(present) < 20


def test_parts_of_the_stem_gradient_add_up_to_the_step():
    told = trained(regime(lr=0.5), mlp(9, 12, 8, 6, 4), (1, 3, 3))
    name, states = "linear0.weight", told.tap.states
    sent = [m for m in told.tap.messages if m.kind == "stem_gradient" and m.layer == name]
    total = sum(m.payload for m in sent if m.step == 1)
    torch.testing.assert_close(states[1][name] - states[2][name], 0.5 * total)


def test_a_recording_is_cut_like_what_was_sent(tmp_path):
    wire = Wire((Keeps(), Recorder(tmp_path, Capture())))
    told = trained(regime("input", epochs=2), CONV, (1, 8, 8), taps=False)
    told.regime.train(told.net, told.population, wire, told.rng, "cpu")
    for tap in wire.taps:
        tap.close()
    found, topology = Transcript(tmp_path), told.trained.topology
    assert found.steps == tuple(range(topology.steps))
    seat = Seat("device-1", "peer", ("device-1",))
    kinds = {m.kind for m in wire.taps[0].messages}
    read = list(found.seen_by(seat, found.steps, tuple(kinds)))
    kept = list(wire.taps[0].cut(seat))
    assert len(read) == len(kept) > 0
    for one, other in zip(read, kept, strict=True):
        assert (one.kind, one.sender, one.units) == (other.kind, other.sender, other.units)
        assert torch.equal(one.payload, other.payload)


def test_slices_pass_from_the_releaser_and_back_to_it_whole():
    told = trained(regime("input"), CONV, (1, 8, 8))
    last = told.trained.topology.steps - 1
    sent = [m for m in told.tap.messages if m.kind == "slice_weights"]
    assert {m.step for m in sent} == {0, last}
    handed_in = [m for m in sent if m.receiver == "releaser"]
    size = sum(t.numel() for t in told.trained.net.weights.values())
    assert sum(m.payload.numel() for m in handed_in) == size
    weights = told.trained.net.weights
    for piece in told.trained.topology.slices:
        for name in told.trained.topology.layer(piece.layer).parameters:
            part = piece.part(weights[name])
            if part is not None:
                assert any(
                    m.sender == piece.party and m.layer == name and torch.equal(m.payload, part)
                    for m in handed_in
                )


@dataclass(frozen=True, kw_only=True)
class Scaled(MessageDefense):
    """Multiplies what is sent (a test double)."""

    kinds = TRAFFIC
    source = "none: a double"
    factor: float = 1.0

    def send(self, message, rng):
        return replace(message, payload=message.payload * self.factor)


def only(*kinds):
    return type(f"Only{''.join(kinds)}", (Scaled,), {"kinds": kinds})


@pytest.mark.parametrize("tiling, spec, shape", CASES)
def test_what_arrives_is_what_is_computed_with(tiling, spec, shape):
    everything = only(*TRAFFIC, "stem_gradient", "tail_gradient")()
    told = trained(regime(tiling, epochs=2), spec, shape, defenses=(everything,))
    plain = trained(regime(tiling, epochs=2), spec, shape, taps=False)
    for name, tensor in plain.trained.net.weights.items():
        torch.testing.assert_close(told.trained.net.weights[name], tensor, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    "kind, still",
    [
        ("stem_gradient", ("conv0",)),
        ("tail_gradient", ("linear2",)),
        ("gradient", ("conv0", "conv1", "linear0", "linear1")),
    ],
)
def test_what_a_defense_wipes_out_trains_nothing(kind, still):
    told = trained(regime(), CONV, (1, 8, 8), defenses=(only(kind)(factor=0.0),))
    first = told.tap.states[0]
    for name, tensor in told.trained.net.weights.items():
        assert torch.equal(tensor, first[name]) == name.startswith(still), name


@pytest.mark.parametrize("kind", ["partial_sum", "activation"])
def test_a_defense_of_the_forward_pass_changes_what_is_learned(kind):
    told = trained(regime("input"), CONV, (1, 8, 8), defenses=(only(kind)(factor=0.5),))
    plain = trained(regime("input"), CONV, (1, 8, 8), taps=False)
    weights = told.trained.net.weights
    assert any(not torch.equal(t, weights[n]) for n, t in plain.trained.net.weights.items())
    assert told.trained.topology.defenses


def test_shares_of_the_volume_count_the_rows_of_others():
    spec = mlp(9, 12, 8, 6, 4)
    told = trained(regime(devices=1), spec, (1, 3, 3))
    assert sum(told.wire.bytes[kind] for kind in TRAFFIC) == 0
    graph = trace(told.trained.net.module(), (1, 3, 3))
    problem = regime(devices=2).problem(graph, told.trained.recipe, [45, 15])
    assert problem.shares == (Fraction(3, 4), Fraction(1, 4))
    all_on_one = Slicing((1,) * len(problem.vertices))
    assert volume(problem, all_on_one) == 2 * 0.75 * (12 + 6) * problem.element


def test_traffic_counts_each_owner_for_its_share_of_rows():
    told = trained(regime(devices=2), mlp(9, 12, 8, 6, 4), (1, 3, 3), taps=False)
    graph = trace(told.trained.net.module(), (1, 3, 3))
    problem = regime(devices=3).problem(graph, told.trained.recipe, [30, 20, 10])
    all_on_one = Slicing((1,) * len(problem.vertices))
    found = {(each.one, each.other): each.nbytes for each in traffic_of(problem, all_on_one)}
    both_ways = 2 * (12 + 6) * problem.element
    assert found == {
        ("device-0", "device-1"): pytest.approx(both_ways / 2),
        ("device-1", "device-2"): pytest.approx(both_ways / 6),
    }


def test_loads_are_what_budgets_are_checked_against():
    told = trained(regime(), CONV, (1, 8, 8), taps=False, dtype=torch.float32)
    graph = trace(told.trained.net.module(), (1, 8, 8))
    sizes = [len(share) for share in told.population.shares]
    problem = regime().problem(graph, told.trained.recipe, sizes)
    hosts = tuple(int(piece.party.split("-")[1]) for piece in told.trained.topology.slices)
    loads = told.trained.topology.loads
    assert loads == loads_of(problem, Slicing(hosts))
    assert [load.party for load in loads] == list(problem.parties)
    for number, load in enumerate(loads):
        hosted = Slicing(hosts).hosted(number)
        assert load.flops == problem.flops(number, hosted) <= load.flops_budget
        assert load.memory == problem.memory(number, hosted) <= load.memory_budget


def test_owners_send_the_gradient_of_a_stem_layer_that_the_tail_alone_needs():
    side = regime(stem=2, lr=0.5)
    told = trained(side, Spec("nets.Side", {}), (1, 4, 4), count=12)
    before, after = told.tap.states[0], told.trained.net.weights
    for name in ("a.weight", "a.bias", "norm.weight", "norm.bias", "b.weight"):
        sent = [
            m.payload for m in told.tap.messages if (m.kind, m.layer) == ("stem_gradient", name)
        ]
        torch.testing.assert_close(sum(sent), (before[name] - after[name].double()) / 0.5)
