"""Messages that are derived from a recording against those that were worked out while training."""

from dataclasses import dataclass, replace

import pytest
import torch
from crowds import EVERYTHING, mlp, trained
from torch import nn

from privbench.contract import MessageDefense, Seat, Spec
from privbench.errors import StorageError
from privbench.regimes.slicenet import SliceNet
from privbench.slicenet import engine
from privbench.slicenet.crowd import Uniform
from privbench.slicenet.derive import MAP, PARTS
from privbench.slicenet.links import OWNER, Link, Links
from privbench.slicenet.owners import plain
from privbench.slicenet.router import CrowdRouter
from privbench.slicenet.trace import trace
from privbench.wire.capture import Capture
from privbench.wire.tap import Recorder
from privbench.wire.transcript import Transcript
from privbench.wire.wire import Wire

CONV = Spec("nets.Chain", {"side": 8, "channels": [4, 6, 5], "widths": [8, 7, 4]})


class Branches(nn.Module):
    """A skip, a concatenation and a flatten: layers with several sources and sources of several layers."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.one = nn.Conv2d(4, 4, 3, padding=1, stride=1, groups=2)
        self.two = nn.Conv2d(4, 6, 1)
        self.wide = nn.Conv2d(10, 5, 3, padding=2, dilation=2)
        self.hidden = nn.Linear(5 * 36, 6)
        self.tail = nn.Linear(6, 4)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        one = torch.relu(self.one(x)) + x
        both = torch.cat([one, torch.tanh(self.two(one))], 1)
        wide = torch.relu(self.wide(both))
        return self.tail(torch.relu(self.hidden(wide.flatten(1))))


NETS = {
    "mlp": (mlp(9, 12, 8, 6, 4), (1, 3, 3)),
    "conv": (CONV, (1, 8, 8)),
    "branches": (Spec("test_derived.Branches", {}), (1, 6, 6)),
}
EVERY = [
    pytest.param(tiling, name, id=f"{tiling}-{name}")
    for tiling in ("output", "input", "grid")
    for name in NETS
]
SOME = [("output", "conv"), ("input", "branches"), ("grid", "branches"), ("input", "mlp")]
REST = [each.values for each in EVERY if each.values not in SOME]
SLOW = pytest.mark.slow


def regime(tiling="output", devices=5):
    return SliceNet(
        crowd=Uniform(devices=devices), tiling=tiling, granularity=2, epochs=2, batch=12
    )


def both(tiling, name, folder, capture=None, dtype=torch.float64, **wire):
    """A crowd that was told eagerly, and a transcript of the same training."""
    spec, shape = NETS[name]
    told = trained(regime(tiling), spec, shape, count=24, dtype=dtype, **wire)
    line = Wire((Recorder(folder, capture or Capture()),), **wire)
    done = told.regime.train(told.net, told.population, line, told.rng, "cpu")
    line.taps[0].close()
    return told, done, line, Transcript(folder)


SEATS = [
    EVERYTHING,
    Seat("device-1", "peer", ("device-1",)),
    Seat("some", "peer", ("device-0", "device-3", "coordinator")),
    Seat("link", "network", links=(("device-2", "device-4"),)),
]


def same(found, expected, rtol=1e-12, atol=1e-15):
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        names = ("step", "kind", "sender", "receiver", "layer", "units")
        assert [getattr(one, n) for n in names] == [getattr(other, n) for n in names]
        assert torch.equal(one.rows, other.rows)
        torch.testing.assert_close(one.payload, other.payload, rtol=rtol, atol=atol)


@pytest.mark.parametrize("tiling, name", [*SOME, *(pytest.param(*e, marks=SLOW) for e in REST)])
def test_what_is_derived_is_what_was_sent(tiling, name, tmp_path):
    told, done, line, found = both(tiling, name, tmp_path)
    kinds = {m.kind for m in told.tap.messages}
    for seat in SEATS:
        same(list(found.seen_by(seat, found.steps, kinds)), list(told.tap.cut(seat)))
    assert line.bytes == told.wire.bytes
    for key, tensor in told.trained.net.weights.items():
        assert torch.equal(done.net.weights[key], tensor)


def test_a_recording_holds_each_map_once_and_not_once_a_host(tmp_path):
    told, _, _, found = both("output", "branches", tmp_path)
    last = [m for m in found.messages if m.step == 1 and m.kind == "gradient"]
    laid = {m.layer for m in last if m.receiver == MAP}
    assert laid == {"one", "two", "wide", "hidden"}
    eager = [m for m in told.tap.messages if m.step == 1 and m.kind == "gradient"]
    assert sum(m.payload.numel() for m in last) < sum(m.payload.numel() for m in eager)


def test_gradients_alone_are_derived_from_what_else_was_recorded(tmp_path):
    told, _, _, found = both("grid", "conv", tmp_path)
    read = list(found.seen_by(EVERYTHING, (1, 2), ("gradient",)))
    kept = [m for m in told.tap.cut() if m.kind == "gradient" and m.step in (1, 2)]
    same(read, kept)


def test_parameters_that_parts_are_derived_from_are_not_those_of_seats(tmp_path):
    told, _, _, found = both("output", "conv", tmp_path, Capture(every=2, first=1, last=False))
    assert told.trained.topology.steps == 4
    assert found.steps == (0, 2) and found.steps_with_state == (0,)
    assert found.state(2) is None
    kept = [m for m in told.tap.cut() if m.kind == "gradient" and m.step % 2 == 0]
    same(list(found.seen_by(EVERYTHING, found.steps, ("gradient",))), kept)


@dataclass(frozen=True, kw_only=True)
class Halved(MessageDefense):
    """Halves what is sent (a double)."""

    source = "none: a double"
    kinds: tuple[str, ...] = ()

    def send(self, message, rng):
        return replace(message, payload=message.payload * 0.5)


@pytest.mark.parametrize("kind", ["gradient", "activation", "partial_sum"])
def test_under_a_defense_what_is_recorded_is_what_was_sent(kind, tmp_path):
    told, done, _, found = both("grid", "conv", tmp_path, defenses=(Halved(kinds=(kind,)),))
    kinds = {m.kind for m in told.tap.messages}
    same(list(found.seen_by(EVERYTHING, found.steps, kinds)), list(told.tap.cut()))
    derived = {m.kind for m in found.messages if m.receiver == PARTS}
    assert derived == {"gradient", "partial_sum"} - {kind}
    for key, tensor in told.trained.net.weights.items():
        assert torch.equal(done.net.weights[key], tensor)


def test_a_router_without_a_recording_says_what_it_lacks(tmp_path):
    _, done, _, found = both("output", "mlp", tmp_path)
    router = CrowdRouter(done.topology)
    message = next(m for m in found.messages if m.receiver == PARTS)
    with pytest.raises(StorageError, match="Transcript"):
        list(router.cut(message, found.owners[message.step], EVERYTHING))


class Odd(nn.Module):
    """Operations between a value that two layers need and one of them; the last is used twice."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 6)
        self.one = nn.Linear(6, 6)
        self.two = nn.Linear(6, 6)
        self.tail = nn.Linear(6, 4)

    def forward(self, x):
        x = self.stem(x)
        one = self.one(torch.relu(x))
        return self.tail(torch.relu(self.two(torch.cat([one, one], 1)[:, :6] + x)))


def test_what_cannot_be_derived_is_sent_at_once(tmp_path):
    NETS["odd"] = (Spec("test_derived.Odd", {}), (6,))
    told, _, _, found = both("output", "odd", tmp_path)
    kinds = {m.kind for m in told.tap.messages}
    same(list(found.seen_by(EVERYTHING, found.steps, kinds)), list(told.tap.cut()))


def slow_links(links, layer):
    """Every block with every party that needs some of it."""
    for need in links.consumers(layer):
        for made in links.makers(layer):
            if made.units is None:
                units = need.units
            else:
                units = tuple(u for u in made.units if need.units is None or u in need.units)
            if units != () and made.party != need.party:
                yield Link(made.party, need.party, units)


@pytest.mark.parametrize("tiling, name", [*SOME, *(pytest.param(*e, marks=SLOW) for e in REST)])
def test_links_near_some_parties_are_those_of_all_that_touch_them(tiling, name):
    spec, shape = NETS[name]
    topology = trained(regime(tiling, 7), spec, shape, count=24, taps=False).trained.topology
    links = Links(topology.layers, topology.slices)
    for layer in links.layers:
        every = list(slow_links(links, layer))
        assert list(links.links(layer)) == every
        for near in ({"device-2"}, {"device-0", "device-5"}, {OWNER}, set()):
            few = [each for each in every if near & {each.sender, each.receiver}]
            assert list(links.links(layer, near=near)) == few
        one = [each for each in every if each.receiver == "device-3"]
        assert list(links.links(layer, "device-3")) == one


@pytest.mark.parametrize("name", ["mlp", "conv", "branches"])
def test_gradients_of_owners_are_those_that_they_would_find_themselves(name, monkeypatch):
    spec, shape = NETS[name]
    told = trained(regime(), spec, shape, count=24)
    monkeypatch.setattr(engine, "plain", lambda stages: False)
    slow = trained(regime(), spec, shape, count=24)
    kinds = ("stem_gradient", "tail_gradient")
    found, expected = ([m for m in each.tap.messages if m.kind in kinds] for each in (told, slow))
    same(found, expected)


def test_stems_with_more_than_weights_and_biases_are_run_again():
    for changed, quick in ((nn.Identity(), True), (nn.GroupNorm(2, 4), False)):
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3), changed, nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 2)
        )
        assert plain(trace(net, (1, 6, 6)).placed("stem")) == quick


def test_in_single_precision_parts_agree_to_rounding(tmp_path):
    told, _, _, found = both("output", "conv", tmp_path, dtype=torch.float32)
    read = list(found.seen_by(EVERYTHING, found.steps, ("gradient",)))
    same(read, [m for m in told.tap.cut() if m.kind == "gradient"], rtol=1e-6, atol=1e-8)
