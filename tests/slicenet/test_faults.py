"""Crowds whose devices fail: against training by hand, counts by hand, and what is seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod

import pytest
import torch
from crowds import Deals, mlp
from failing import Plain
from outages import NET, near, part, regime, run, same, topology, weights

from privbench.contract import HEADER_BYTES, Handover, Losses, Net, Samples, Spec
from privbench.regimes.slicenet import SliceNet
from privbench.slicenet.faults import Faults
from privbench.slicenet.links import Links
from privbench.slicenet.problem import Slicing
from privbench.slicenet.slicers.base import Slicer
from privbench.slicenet.waves import waves
from privbench.wire.wire import Wire


def test_nothing_fails_by_default_and_then_nothing_changes():
    plain = run()
    quiet = run(faults={"seed": 7, "retries": 9, "on_drop": "skip"})
    assert same(weights(plain), weights(quiet)) and plain.wire.bytes == quiet.wire.bytes
    assert topology(quiet) == topology(plain)
    assert quiet.trained.topology.losses is None and quiet.trained.topology.handovers == ()
    twin = Plain(plain).train(lambda step: None)
    assert near(weights(plain), twin.copy())


def test_copies_alone_change_no_bit_and_cost_their_bytes():
    plain, copied = run(), run(faults={"copy_every": 4})
    assert same(weights(plain), weights(copied))
    losses = copied.trained.topology.losses
    steps, numbers = copied.trained.topology.steps, 6 * 8 + 8 + 8 * 8 + 8
    copies = len(range(4, steps, 4))
    messages = sum(2 for _ in copied.trained.topology.slices)  # weight and bias
    assert losses == Losses(
        bytes_copied=copies * (8 * numbers + HEADER_BYTES * messages), seconds=losses.seconds
    )
    extra = copied.wire.bytes - plain.wire.bytes
    assert extra == Counter(slice_weights=losses.bytes_copied)


SGD, MOMENTUM = {}, {"optimizer_args": {"momentum": 0.9}}
ADAM = {"optimizer": "torch.optim.Adam", "lr": 0.01}


@pytest.mark.parametrize(
    "args, tiling",
    [
        pytest.param(SGD, "output", id="sgd-output"),
        pytest.param(MOMENTUM, "output", id="momentum-output"),
        pytest.param(ADAM, "input", id="adam-input"),
        pytest.param(SGD, "input", id="sgd-input", marks=pytest.mark.slow),
        pytest.param(MOMENTUM, "input", id="momentum-input", marks=pytest.mark.slow),
        pytest.param(ADAM, "output", id="adam-output", marks=pytest.mark.slow),
    ],
)
def test_take_over_goes_on_from_the_copy_and_the_return_from_there(tiling, args):
    """Device 1 is away in steps 8 to 12; its buddy has what was sent at step 6."""
    plan = [[8, 1, "drop"], [13, 1, "return"]]
    told = run(tiling=tiling, faults={"schedule": plan, "copy_every": 3}, **args)
    topology, losses = told.trained.topology, told.trained.topology.losses
    twin = Plain(told, away=dict.fromkeys(range(8, 13), (1,)))
    held = {}

    def before(step):
        if step in (3, 6):
            held.update(weights=twin.copy(), states=twin.states())
        if step == 8:
            twin.set_back("device-1", held["weights"], held["states"])

    twin.train(before)
    assert near(weights(told), twin.copy())
    assert {step: len(rows) for step, rows in told.population.noted.items()} == {
        step: len(rows) for step, rows in twin.kept.items()
    }
    numbers = len(part(told, "device-1", twin.copy()))
    lost = sum(6 - len(rows) for rows in twin.kept.values())
    assert lost > 0
    assert (losses.take_overs, losses.returns, losses.parameters_stale) == (1, 1, numbers)
    assert (losses.rows_lost, losses.steps_lost, losses.parameters_reset) == (lost, 0, 0)
    moves = [each for each in topology.handovers if each.reason != "copy"]
    buddy = moves[0].receiver
    assert moves == [
        Handover(8, "device-1", "device-1", buddy, "take_over"),
        Handover(13, "device-1", buddy, "device-1", "return"),
    ]
    copies = [each for each in topology.handovers if each.reason == "copy"]
    assert {each.step for each in copies if each.home == "device-1"} == {3, 6, 15, 18}
    assert {each.receiver for each in copies if each.home == "device-1"} == {buddy}
    states = told.tap.states
    assert torch.equal(part(told, "device-1", states[8]), part(told, "device-1", states[6]))
    assert not torch.equal(part(told, "device-1", states[8]), part(told, "device-1", states[7]))


def test_copies_and_returns_are_messages_with_the_numbers_in_force():
    plan = [[8, 1, "drop"], [13, 1, "return"]]
    settings = {"optimizer_args": {"momentum": 0.9}}
    told = run(faults={"schedule": plan, "copy_every": 3}, **settings)
    losses, handovers = told.trained.topology.losses, told.trained.topology.handovers
    steps = told.trained.topology.steps
    sent = [m for m in told.tap.messages if m.kind == "slice_weights" and 0 < m.step < steps - 1]
    assert sum(m.nbytes for m in sent) == losses.bytes_copied
    told_of = {(h.step, h.sender, h.receiver) for h in handovers if h.reason != "take_over"}
    assert {(m.step, m.sender, m.receiver) for m in sent} == told_of
    for m in sent:
        if not m.layer.endswith("momentum_buffer"):
            assert torch.equal(m.payload, told.tap.states[m.step][m.layer][list(m.units)])
    assert sum(m.layer.endswith("momentum_buffer") for m in sent) == len(sent) / 2
    untapped = run(taps=False, faults={"schedule": plan, "copy_every": 3}, **settings)
    assert untapped.wire.bytes == told.wire.bytes and same(weights(untapped), weights(told))


def test_without_copies_slices_start_anew_from_their_initial_weights():
    told = run(
        optimizer_args={"momentum": 0.9},
        faults={"schedule": [[8, 1, "drop"], [10, 1, "return"]]},
    )
    twin = Plain(told, away=dict.fromkeys(range(8, 10), (1,)))
    twin.train(lambda s: twin.set_back("device-1", twin.initial, {}) if s == 8 else None)
    assert near(weights(told), twin.copy())
    losses = told.trained.topology.losses
    assert losses.parameters_reset == len(part(told, "device-1", twin.copy()))
    assert (losses.take_overs, losses.returns) == (0, 1)
    (first, _) = told.trained.topology.handovers
    assert (first.sender, first.reason) == ("releaser", "restart")


@pytest.mark.parametrize("decay", ["constant", "linear"])
def test_steps_are_skipped_until_the_host_is_back(decay):
    plan = [[4, 2, "drop"], [9, 2, "return"]]
    told = run(decay=decay, faults={"schedule": plan, "on_drop": "skip"})
    twin = Plain(told, away=dict.fromkeys(range(4, 9), (2,)), skipped=range(4, 9))
    twin.train(lambda step: None)
    assert near(weights(told), twin.copy())
    losses = told.trained.topology.losses
    assert losses.steps_without_host == losses.steps_lost == 5
    assert losses.rows_lost == 5 * 6
    step = losses.seconds / told.trained.topology.steps
    assert losses.seconds_lost == pytest.approx(5 * step)
    assert not [m for m in told.tap.messages if 4 <= m.step < 9]
    assert all(len(told.population.noted[step]) == 0 for step in range(4, 9))


@pytest.mark.parametrize("on_drop", ["take_over", "skip"])
def test_a_crowd_whose_only_host_leaves_for_good_ends_and_hands_in_what_it_has(on_drop):
    """Nobody else may host: nothing is learned after step 5, and its slices are lost."""
    slicer = OnlyLast()
    told = run(only=1, slicer=slicer, faults={"schedule": [[5, 3, "drop"]], "on_drop": on_drop})
    topology = told.trained.topology
    losses = topology.losses
    assert losses.steps_without_host == topology.steps - 5
    assert losses.rows_lost == 6 * (topology.steps - 5)
    twin = Plain(told, skipped=range(5, topology.steps)).train(lambda step: None)
    twin.set_back("device-3", twin.initial, {})
    assert near(weights(told), twin.copy())
    assert losses.parameters_reset == len(part(told, "device-3", twin.copy()))
    handed = [m for m in told.tap.messages if m.receiver == "releaser"]
    assert {m.sender for m in handed} == {"coordinator"}


@dataclass(frozen=True, kw_only=True)
class OnlyLast(Slicer):
    """The last device hosts everything."""

    def slice(self, problem):
        return Slicing((len(problem.devices) - 1,) * len(problem.vertices))


def test_whoever_leaves_for_good_is_followed_by_its_buddy():
    told = run(faults={"schedule": [[8, 1, "drop"]], "copy_every": 3})
    topology = told.trained.topology
    away = dict.fromkeys(range(8, topology.steps), (1,))
    twin, held = Plain(told, away=away), {}

    def before(step):
        if step == 6:
            held.update(twin.copy())
        if step == 8:
            twin.set_back("device-1", held, {})

    assert near(weights(told), twin.train(before).copy())
    (move,) = [each for each in topology.handovers if each.reason != "copy"]
    later = [each for each in topology.handovers if each.home == "device-1" and each.step > 8]
    assert later and {each.sender for each in later} == {move.receiver}
    assert not {"device-1", move.receiver} & {each.receiver for each in later}
    handed = [m for m in told.tap.messages if m.receiver == "releaser"]
    assert "device-1" not in {m.sender for m in handed}


def test_rows_of_owners_that_host_nothing_are_left_out_and_nothing_else_changes():
    told = run(faults={"schedule": [[2, 3, "drop"], [5, 3, "return"]]})
    twin = Plain(told, away=dict.fromkeys(range(2, 5), (3,))).train(lambda step: None)
    assert near(weights(told), twin.copy())
    losses = told.trained.topology.losses
    assert losses.rows_lost == sum(6 - len(rows) for rows in twin.kept.values()) > 0
    assert told.trained.topology.handovers == ()


def test_a_step_without_any_row_is_skipped():
    """Only the last device hosts; with one row a step and the other owners away, most steps are empty."""
    away = [[3, device, "drop"] for device in range(3)]
    told = run(only=1, batch=1, slicer=OnlyLast(), taps=False, faults={"schedule": away})
    losses, noted = told.trained.topology.losses, told.population.noted
    empty = sum(len(positions) == 0 for positions in noted.values())
    assert losses.steps_without_rows == losses.steps_lost == losses.rows_lost == empty > 0
    mine = set(told.population.shares[3].tolist())
    assert {int(p) for step, each in noted.items() if step >= 3 for p in each} == mine


@pytest.mark.parametrize(
    "tiling", ["grid", *(pytest.param(t, marks=pytest.mark.slow) for t in ("output", "input"))]
)
def test_draws_depend_on_the_seed_alone_not_on_who_listens(tiling):
    faults = {
        "drop_rate": 0.1,
        "return_after": 2,
        "straggle_rate": 0.2,
        "loss_rate": 0.01,
        "retries": 1,
        "copy_every": 4,
    }
    one, other = (run(tiling=tiling, faults=faults, taps=taps) for taps in (True, False))
    assert same(weights(one), weights(other))
    assert one.wire.bytes == other.wire.bytes
    assert topology(one) == topology(other)
    assert one.trained.topology.losses.messages_lost > 0
    another = run(tiling=tiling, faults={**faults, "seed": 1}, taps=False)
    assert another.trained.topology.handovers != one.trained.topology.handovers


def test_messages_are_sent_again_until_they_arrive():
    plain = run()
    told = run(faults={"loss_rate": 0.2, "retries": 50})
    losses = told.trained.topology.losses
    assert same(weights(told), weights(plain))
    extra = sum(told.wire.bytes.values()) - sum(plain.wire.bytes.values())
    assert extra == losses.bytes_resent > 0
    crossed = [m for m in told.tap.cut() if m.kind != "slice_weights"]
    mean = len(crossed) * 0.2 / 0.8
    assert abs(losses.messages_lost - mean) < 5 * (mean / 0.8) ** 0.5
    assert losses.steps_lost == losses.rows_lost == 0
    assert losses.seconds_lost > 0


def test_a_step_whose_message_never_arrives_changes_nothing_but_was_seen():
    told = run(faults={"loss_rate": 0.02, "retries": 0})
    losses, steps = told.trained.topology.losses, told.trained.topology.steps
    assert 0 < losses.steps_unheard < steps and losses.bytes_resent == 0
    assert losses.rows_lost == 6 * losses.steps_unheard
    assert losses.messages_lost >= losses.steps_unheard
    states, given_up = told.tap.states, []
    for step in range(steps - 1):
        if same(states[step], states[step + 1]):
            given_up.append(step)
    assert losses.steps_unheard - 1 <= len(given_up) <= losses.steps_unheard
    twin = Plain(
        told, skipped=given_up if len(given_up) == losses.steps_unheard else [*given_up, steps - 1]
    )
    assert near(weights(told), twin.train(lambda step: None).copy())
    whole = {
        m.kind
        for m in told.tap.messages
        if m.step == next(s for s in range(steps) if s not in given_up)
    }
    order = ["stem_weights", "activation", "gradient", "tail_gradient", "stem_gradient"]
    reached = []
    for step in given_up:
        kinds = {m.kind for m in told.tap.messages if m.step == step} - {
            "slice_weights",
            "tail_weights",
        }
        assert kinds <= whole
        assert kinds == set(order[: len(kinds)]), "a later message was seen, an earlier one not"
        reached.append(len(kinds))
    assert min(reached) < len(order)
    crossed = Counter()
    for message in told.tap.cut():
        crossed[message.kind] += message.nbytes
    assert crossed == told.wire.bytes


def test_a_straggler_costs_seconds_and_a_deadline_the_step():
    usual = run(faults={"copy_every": 1000}).trained.topology.losses
    slow = run(faults={"schedule": [[4, 0, "straggle"]], "slowdown": 3.0})
    losses = slow.trained.topology.losses
    assert losses.seconds_lost == pytest.approx(losses.seconds - usual.seconds)
    assert 0 < losses.seconds_lost and losses.steps_lost == 0
    assert same(weights(slow), weights(run()))
    steps = slow.trained.topology.steps
    deadline = 1.5 * usual.seconds / steps
    late = run(faults={"schedule": [[4, 0, "straggle"]], "slowdown": 100.0, "deadline": deadline})
    twin = Plain(late, skipped=[4]).train(lambda step: None)
    assert near(weights(late), twin.copy())
    losses = late.trained.topology.losses
    assert (losses.steps_late, losses.rows_lost) == (1, 6)
    assert losses.seconds == pytest.approx(usual.seconds * (steps - 1) / steps + deadline)
    assert losses.seconds_lost == pytest.approx(deadline)
    assert {m.kind for m in late.tap.messages if m.step == 4} >= {"activation", "stem_gradient"}


def test_a_given_up_step_leaves_running_statistics_alone():
    told = run(
        net=Spec("failing_nets.normed", {}),
        faults={"schedule": [[4, 0, "straggle"]], "slowdown": 1e6, "deadline": 1e3},
    )
    assert told.trained.topology.losses.steps_late == 1
    assert same(told.tap.states[4], told.tap.states[5])
    assert any("running_mean" in name for name in told.tap.states[4])


def test_failing_crowds_equal_no_other_regime():
    assert SliceNet().equivalent() is not None
    assert SliceNet(faults=Faults(loss_rate=0.01)).equivalent() is None
    assert SliceNet(faults=Faults(schedule=((1, 0, "drop"),))).equivalent() is None


def test_a_fifth_of_the_devices_away_at_any_time_still_learns():
    rng = torch.Generator().manual_seed(3)
    y = torch.arange(120) % 4
    x = 3 * torch.randn(4, 6, generator=rng)[y] + torch.randn(120, 6, generator=rng)
    faults = {"drop_rate": 0.2, "return_after": 1, "copy_every": 2}
    regimen = regime(devices=6, faults=faults, epochs=6, granularity=8)
    people = Deals(Samples(x, y))
    done = regimen.train(
        Net(mlp(6, 16, 16, 16, 4)), people, Wire(), torch.Generator().manual_seed(0), "cpu"
    )
    losses = done.topology.losses
    share = losses.rows_lost / (done.topology.steps * 6)
    assert 0.1 < share < 0.6
    assert losses.take_overs > 10 and losses.steps_without_host > 0
    guess = done.net.module()(x).argmax(1)
    assert float((guess == y).double().mean()) > 0.9


def test_numbers_of_messages_by_hand():
    """One row of each of two owners, one host, no loss: what a step sends."""
    told = run(devices=2, hosts=1, net=NET, granularity=8, faults={"loss_rate": 0.3, "retries": 99})
    topology = told.trained.topology
    links = Links(topology.layers, topology.slices)
    rows = {"device-0": 4, "device-1": 2}
    owned = {"stem": [6 * 8 * 8, 8 * 8], "tail": [8 * 4 * 8, 4 * 8]}
    found = waves(links, [layer.name for layer in topology.layers], rows, 8, owned)
    h = HEADER_BYTES
    both = tuple(sorted({384 + h: 2, 64 + h: 2}.items()))
    ends = tuple(sorted({256 + h: 2, 32 + h: 2}.items()))
    one = ((2 * 8 * 8 + h, 1),)  # the host is the other owner
    assert [(wave.kind, wave.layer, wave.sizes) for wave in found] == [
        ("stem_weights", "", both),
        ("tail_weights", "", ends),
        ("activation", topology.layers[0].name, one),
        ("activation", topology.layers[1].name, one),
        ("gradient", topology.layers[1].name, one),
        ("gradient", topology.layers[0].name, one),
        ("tail_gradient", "", ends),
        ("stem_gradient", "", both),
    ]
    assert prod(topology.layers[0].shape) == 8
