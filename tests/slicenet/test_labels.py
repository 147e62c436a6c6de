"""Where the loss is computed: what crosses then, that training stays the same, and what labels tell."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import outages
import pytest
import torch
from crowds import EVERYTHING, Deals, mlp, records, trained
from device_nets import NETS
from devices import regime, walked
from failing import Plain
from replicated import cut as replicated_cut
from test_device import agree as devices_agree
from test_twin import agree as twin_agrees
from test_twin import furthest

from privbench.contract import HEADER_BYTES, MessageDefense, Net, Seat, Spec
from privbench.errors import NotApplicable, UsageError
from privbench.regimes.training import train
from privbench.slicenet.crowd import Uniform
from privbench.slicenet.places import LABELS
from privbench.slicenet.problem import Slicing, volume
from privbench.slicenet.router import CrowdRouter
from privbench.slicenet.slicers.exact import MixedInteger
from privbench.slicenet.slicers.greedy import Greedy
from privbench.slicenet.slicers.hypergraph import Hypergraph
from privbench.slicenet.slicers.layerwise import Layerwise
from privbench.slicenet.slicers.leakage_bounded import LeakageBounded
from privbench.slicenet.slicers.metis import Metis
from privbench.slicenet.slicers.random import Random
from privbench.slicenet.trace import trace
from privbench.threats.crowd import Host
from privbench.threats.network import Link
from privbench.wire.tap import Capture, Recorder
from privbench.wire.transcript import Transcript
from privbench.wire.wire import Wire

TRAFFIC = ("activation", "partial_sum", "gradient")
HOSTED = ("logits", "shared")
MLP, SHAPE = mlp(9, 8, 7, 6, 4), (1, 3, 3)
CONV = Spec("nets.Chain", {"side": 8, "channels": [3, 5, 4], "widths": [6, 4]})
TILINGS = ("output", "input", "grid")
SLOW = pytest.mark.slow
ACROSS = [("output", "tail"), ("input", "logits"), ("grid", "shared"), ("grid", "logits")]
TWINS = [(tiling, labels) for tiling in ("output", "input") for labels in HOSTED]
QUICKLY = ["shared", pytest.param("logits", marks=SLOW)]
SLICERS = [
    Layerwise(), Metis(), Hypergraph(effort=0.1), LeakageBounded(effort=0.1), MixedInteger()
]  # fmt: skip


def crowd(labels, tiling="output", devices=5, **settings):
    given = {"epochs": 1, "slicer": Random(seed=devices), **settings}
    return regime(devices, tiling, labels=labels, **given)


def central(told):
    return train(told.trained.recipe, told.population.train, told.rng).weights


@pytest.mark.slow
@pytest.mark.parametrize(
    "tiling, labels",
    [
        ("output", "shared"),
        *(pytest.param(*each, marks=SLOW) for each in TWINS if each != ("output", "shared")),
    ],
)
def test_twenty_steps_against_the_twin_and_centralized_training(tiling, labels):
    told = trained(crowd(labels, tiling, epochs=4, granularity=3), MLP, SHAPE)
    assert told.trained.topology.steps == 20
    twin_agrees(told)
    assert furthest(walked(told)[0].releaser.state, central(told)) < 1e-10


@SLOW
@pytest.mark.parametrize("labels", HOSTED)
@pytest.mark.parametrize("tiling", ["output", "input"])
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_convolutions_against_the_twin(tiling, labels, optimizer):
    settings = {"epochs": 4, "granularity": 3, "optimizer": optimizer}
    twin_agrees(trained(crowd(labels, tiling, 3, **settings), CONV, (1, 8, 8)))


@pytest.mark.parametrize("labels", HOSTED)
def test_devices_alone_train_and_send_as_the_simulated_crowd_does(labels):
    devices_agree(trained(crowd(labels, "grid"), *NETS["skips"]))


@SLOW
@pytest.mark.timeout(600)
@pytest.mark.parametrize("labels", HOSTED)
@pytest.mark.parametrize("tiling", TILINGS)
@pytest.mark.parametrize("net", sorted(NETS))
def test_twenty_steps_of_devices_alone(net, tiling, labels):
    devices_agree(trained(crowd(labels, tiling, epochs=4), *NETS[net]))


@pytest.mark.parametrize(
    "tiling, labels",
    [
        pytest.param(*each, marks=() if each in ACROSS else SLOW)
        for each in product(TILINGS, LABELS)
    ],
)
def test_payload_is_the_volume_and_bytes_are_told_without_messages(labels, tiling):
    spec, shape = NETS["skips"]
    told = trained(crowd(labels, tiling), spec, shape, dtype=torch.float32)
    still = trained(crowd(labels, tiling), spec, shape, dtype=torch.float32, taps=False)
    for name, tensor in central(told).items():
        assert torch.equal(told.trained.net.weights[name], tensor)
        assert torch.equal(still.trained.net.weights[name], tensor)
    cut, topology = list(told.tap.cut()), told.trained.topology
    assert told.wire.bytes == still.wire.bytes
    for kind, total in told.wire.bytes.items():
        assert total == sum(m.nbytes for m in cut if m.kind == kind), kind
    graph = trace(told.trained.net.module(), shape, labels=labels)
    sizes = [len(share) for share in told.population.shares]
    problem = told.regime.problem(graph, told.trained.recipe, sizes)
    hosts = Slicing(tuple(int(piece.party.split("-")[1]) for piece in topology.slices))
    payload = sum(m.nbytes - HEADER_BYTES for m in cut if m.kind in TRAFFIC)
    assert payload == volume(problem, hosts) * sum(sizes)
    assert sum(each.nbytes for each in topology.traffic) == pytest.approx(volume(problem, hosts))
    bill = {each.kind: each.nbytes for each in topology.bills[0].kinds}
    assert ("labels" in bill) == ("labels" in told.wire.bytes) == (labels == "shared")
    assert ("tail_gradient" in told.wire.bytes) == (labels == "tail")


def test_the_exit_counts_the_logits_of_rows_that_others_own():
    """Logits of one host go to two owners, of 3/4 and 1/4 of the rows; a sum of both ways."""
    told = trained(crowd("logits", devices=2), MLP, SHAPE, taps=False)
    graph = trace(told.trained.net.module(), SHAPE, labels="logits")
    problem = told.regime.problem(graph, told.trained.recipe, [45, 15])
    all_on_one = Slicing((1,) * len(problem.vertices))
    assert volume(problem, all_on_one) == 2 * 0.75 * (8 + 4) * problem.element
    shared = trace(told.trained.net.module(), SHAPE, labels="shared")
    problem = replace(told.regime, labels="shared").problem(shared, told.trained.recipe, [45, 15])
    apart = Slicing((1,) * (len(problem.vertices) - 1) + (0,))  # the loss on the other device
    assert volume(problem, apart) == 2 * (0.75 * 8 + 4) * problem.element


@pytest.mark.parametrize("labels", HOSTED)
def test_the_gradient_of_logits_tells_every_label(labels):
    """500 of 500, to a host of the last layer that owns none of the rows: the only negative entry."""
    apart = Uniform(devices=8, owners=5, hosts=3)
    base = crowd(labels, granularity=4, slicer=Greedy())
    told = trained(replace(base, crowd=apart, batch=100), MLP, SHAPE, count=500)
    topology = told.trained.topology
    (host,) = {piece.party for piece in topology.slices if piece.layer == "linear3"}
    right = count = 0
    for m in told.tap.cut(Seat(host, "peer", (host,))):
        if (m.kind, m.layer, m.receiver) == ("gradient", "linear3", host):
            assert host not in topology.owners and ((m.payload < 0).sum(1) == 1).all()
            true = told.population.train.y[told.population.noted[m.step][m.rows]]
            right, count = right + int((m.payload.argmin(1) == true).sum()), count + len(true)
    assert (right, count) == (500, 500)


def test_labels_go_to_one_host_alone_and_that_host_is_known_to_have_them():
    told = trained(crowd("shared"), MLP, SHAPE)
    topology = told.trained.topology
    scorer = topology.slices[-1].party
    sent = [m for m in told.tap.cut() if m.kind == "labels"]
    assert {m.receiver for m in sent} == {scorer} and scorer not in {m.sender for m in sent}
    for m in sent:
        positions = told.population.noted[m.step][m.rows]
        assert torch.equal(m.payload, told.population.train.y[positions])
        assert set(told.tap.owners[m.step][m.rows].tolist()) == {int(m.sender.split("-")[1])}
    kinds = Host().kinds
    assert "labels" in kinds
    granted = {seat.name for seat in Host().seats(topology) if "labels" in seat.grants}
    assert granted == {scorer}
    for labels in ("tail", "logits"):
        other = trained(crowd(labels), MLP, SHAPE)
        assert "labels" not in {m.kind for m in other.tap.messages}
        assert not any("labels" in s.grants for s in Host().seats(other.trained.topology))


def test_a_link_that_carries_labels_shows_them():
    told = trained(crowd("shared"), MLP, SHAPE)
    scorer = told.trained.topology.slices[-1].party
    owner = next(p for p in told.trained.topology.owners if p != scorer)
    seen = list(told.tap.cut(Seat("link", "network", links=((owner, scorer),))))
    assert {m.sender for m in seen if m.kind == "labels"} == {owner}


@pytest.mark.parametrize("replicas", [1, 2])
def test_every_link_that_carries_something_is_a_seat(replicas):
    """Greedy hosts the loss apart from all that owners would send it anything but labels."""
    apart = crowd("shared", slicer=Greedy(), replicas=replicas)
    told = trained(replace(apart, crowd=Uniform(devices=10, owners=4, hosts=7)), MLP, SHAPE)
    kinds = (*TRAFFIC, "labels")
    cut = told.tap.cut() if replicas == 1 else replicated_cut(told)
    crossed = {frozenset((m.sender, m.receiver)) for m in cut if m.kind in kinds}
    seats = [frozenset(seat.links[0]) for seat in Link().seats(told.trained.topology)]
    assert len(seats) == len(set(seats)) and set(seats) == crossed
    usual = {frozenset((each.one, each.other)) for each in told.trained.topology.traffic}
    assert crossed - usual


@pytest.mark.parametrize(
    "tiling, labels",
    [
        ("output", "shared"),
        ("grid", "logits"),
        pytest.param("output", "logits", marks=SLOW),
        pytest.param("grid", "shared", marks=SLOW),
    ],
)
def test_a_recording_is_cut_like_what_was_sent(tiling, labels, tmp_path):
    told = trained(crowd(labels, tiling), *NETS["mlp"])
    wire = Wire((Recorder(tmp_path, Capture()),))
    told.regime.train(told.net, told.population, wire, told.rng, "cpu")
    wire.taps[0].close()
    found, kinds = Transcript(tmp_path), {m.kind for m in told.tap.messages}
    seats = EVERYTHING, Seat("device-1", "peer", ("device-1",))
    for seat in seats:
        read, kept = list(found.seen_by(seat, found.steps, kinds)), list(told.tap.cut(seat))
        assert len(read) == len(kept) > 0
        for one, other in zip(read, kept, strict=True):
            named = ("step", "kind", "sender", "receiver", "layer", "units")
            assert [getattr(one, n) for n in named] == [getattr(other, n) for n in named]
            torch.testing.assert_close(one.payload, other.payload, rtol=1e-12, atol=1e-15)
    router = CrowdRouter(told.trained.topology)
    for message in told.tap.messages:
        owners = told.tap.owners[message.step]
        router.begin(message.step, owners)
        parts = router.cut(message, owners, EVERYTHING)
        assert router.nbytes(message) == sum(part.nbytes for part in parts)


@dataclass(frozen=True, kw_only=True)
class Flipped(MessageDefense):
    """Sends the next class (a test double)."""

    kinds = ("labels",)
    source = "none: a double"

    def send(self, message, rng):
        return replace(message, payload=(message.payload + 1) % 4)


def test_labels_are_learned_as_they_arrive():
    told = trained(crowd("shared"), MLP, SHAPE, defenses=(Flipped(),))
    people = Deals(records(60, SHAPE, 4, 1))
    people.train = replace(people.train, y=(people.train.y + 1) % 4)
    wire, rng = Wire(), torch.Generator().manual_seed(1)
    done = told.regime.train(Net(MLP), people, wire, rng, "cpu")
    for name, tensor in done.net.weights.items():
        torch.testing.assert_close(told.trained.net.weights[name], tensor, rtol=1e-10, atol=1e-13)


def lost(labels, **faults):
    """Ten devices in turn: device 8 hosts the ninth vertex, which computes the loss where one does."""
    settings = {"labels": labels, "devices": 10, "hosts": 9, "faults": faults}
    return outages.run(**settings), outages.run(taps=False, **settings)


def test_a_buddy_computes_the_loss_while_its_host_is_away():
    away = {"schedule": [[8, 8, "drop"], [13, 8, "return"]], "copy_every": 3}
    told, still = lost("shared", **away)
    topology = told.trained.topology
    assert topology.hosted("device-8") == ("loss",)
    buddy = next(each.receiver for each in topology.handovers if each.reason == "take_over")
    sent = {m.step: m.receiver for m in told.tap.cut() if m.kind == "labels"}
    assert {sent[step] for step in range(8, 13)} == {buddy}
    assert {sent[step] for step in (7, 13)} == {"device-8"}
    twin = Plain(told, away=dict.fromkeys(range(8, 13), (8,))).train(lambda step: None)
    assert outages.near(outages.weights(told), twin.copy())
    assert told.wire.bytes == still.wire.bytes
    granted = {seat.name for seat in Host().seats(topology) if "labels" in seat.grants}
    assert granted == {"device-8", buddy}
    tapped = {frozenset(seat.links[0]) for seat in Link().seats(topology)}
    assert {
        frozenset((m.sender, m.receiver)) for m in told.tap.cut() if m.kind == "labels"
    } <= tapped


@pytest.mark.parametrize("labels", QUICKLY)
def test_lost_labels_and_logits_are_sent_again_or_end_the_step(labels):
    told, still = lost(labels, loss_rate=0.05, retries=1, seed=3)
    losses = told.trained.topology.losses
    assert losses.messages_lost > 0 and losses.steps_unheard > 0
    assert told.wire.bytes == still.wire.bytes
    assert outages.same(outages.weights(told), outages.weights(still))


@pytest.mark.slow
@pytest.mark.parametrize("labels", QUICKLY)
def test_replicas_that_average_at_every_step_are_one_machine(labels):
    told = trained(crowd(labels, "grid", devices=6, replicas=2), MLP, SHAPE)
    still = trained(crowd(labels, "grid", devices=6, replicas=2), MLP, SHAPE, taps=False)
    assert furthest(told.trained.net.weights, central(told)) < 1e-10
    assert told.wire.bytes == still.wire.bytes
    if labels == "shared":
        scorers = [s.party for s in told.trained.topology.slices if s.layer == "loss"]
        granted = {s.name for s in Host().seats(told.trained.topology) if "labels" in s.grants}
        assert set(scorers) == granted and len(scorers) == 2


@pytest.mark.parametrize("labels", QUICKLY)
@pytest.mark.parametrize(
    "slicer",
    [Greedy(), *(pytest.param(slicer, marks=SLOW) for slicer in SLICERS)],
    ids=lambda slicer: type(slicer).__name__,
)
def test_every_slicer_places_the_last_layer_and_the_loss(slicer, labels):
    told = trained(crowd(labels, slicer=slicer), MLP, SHAPE, taps=False, count=12)
    hosted = [piece.layer for piece in told.trained.topology.slices]
    assert "linear3" in hosted and hosted.count("loss") == (labels == "shared")


def test_the_last_layer_is_cut_and_nothing_is_left_to_a_tail():
    module = mlp(9, 8, 4).build()
    for labels, places in (
        ("logits", ["stem", "body", "tail"]),
        ("shared", ["stem", "body", "body"]),
    ):
        graph = trace(module, SHAPE, labels=labels)
        assert [stage.layer.place for stage in graph.stages] == places
        assert graph.stages[-1].layer.parameters == () and not graph.stages[-1].flops
        x = torch.rand(5, *SHAPE)
        assert torch.equal(graph(x), module(x))


@pytest.mark.parametrize("labels", HOSTED)
def test_an_operation_over_all_classes_is_one_piece_behind_a_last_layer_that_is_cut(labels):
    graph = trace(NETS["skips"][0].build(), (9,), labels=labels)
    assert [stage.sort for stage in graph.stages[-3:]] == ["layer", "whole", "loss"]


def test_an_unknown_mode_is_refused_with_the_right_ones():
    with pytest.raises(UsageError, match=r"regime.labels=hidden.*tail, logits, shared"):
        trained(crowd("hidden"), MLP, SHAPE)


def test_a_last_layer_that_nobody_can_host_is_refused():
    with pytest.raises(NotApplicable, match=r"at least 2 layers \(stem, body\).*has 1"):
        trained(crowd("logits"), mlp(9, 4), SHAPE)
    with pytest.raises(NotApplicable, match=r"at least 3 layers \(stem, body\)"):
        trained(crowd("shared", stem=2), mlp(9, 8, 4), SHAPE)


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("wrong", [-1, 4])
def test_labels_out_of_range_are_refused(labels, wrong):
    people = Deals(records(60, SHAPE, 4, 1))
    people.train.y[17] = wrong
    with pytest.raises(UsageError, match=rf"record 17 has label {wrong}.*0 to 3"):
        crowd(labels).train(Net(MLP), people, Wire(), torch.Generator(), "cpu")
