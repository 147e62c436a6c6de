"""What happens in a failing crowd, before anything is trained: settings, stand-ins, budgets, draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from instances import drawn
from omegaconf import OmegaConf

from privbench.compose.building import build
from privbench.errors import UsageError
from privbench.slicenet.buddies import Buddies
from privbench.slicenet.course import course_of
from privbench.slicenet.faults import Faults
from privbench.slicenet.problem import gap_of
from privbench.slicenet.waves import Missed, Wave, missed

CONF = Path(__file__).parents[2] / "conf" / "faults"


def spare(seed, factor=3.0, kind="mlp-output"):
    """A feasible problem whose devices could do more, and its slicing."""
    made = drawn(np.random.default_rng(seed), kind, "unequal", 40, 8)
    devices = tuple(
        replace(d, compute=factor * d.compute, memory=factor * d.memory)
        for d in made.problem.devices
    )
    return replace(made.problem, devices=devices), made.planted


def hosts_by_step(course, problem, slicing, steps):
    """Who hosts each vertex in each step, told by the handovers alone."""
    number = {party: n for n, party in enumerate(problem.parties)}
    now = {home: home for home in set(slicing.hosts)}
    for step in range(steps):
        for each in course.turns[step].handovers:
            if each.reason != "copy":
                now[number[each.home]] = number[each.receiver]
        yield step, tuple(now[home] for home in slicing.hosts)


@pytest.mark.parametrize("name", ["none", "flaky", "schedule"])
def test_every_choice_can_be_built(name):
    made = build(OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml")), "faults")
    assert isinstance(made, Faults) and made.quiet == (name == "none")


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"drop_rate": 1.0}, r"drop_rate=1.0; expected a probability"),
        ({"loss_rate": -0.1}, r"loss_rate=-0.1; expected a probability"),
        ({"straggle_rate": float("nan")}, r"straggle_rate=nan; expected a probability"),
        ({"return_after": -1}, r"return_after=-1; expected a whole number"),
        ({"retries": 1.5}, r"retries=1.5; expected a whole number"),
        ({"copy_every": True}, r"copy_every=True; expected a whole number"),
        ({"buddies": 0}, r"buddies=0; expected at least 1"),
        ({"slowdown": 0.5}, r"slowdown=0.5; expected a factor of at least 1"),
        ({"deadline": -1.0}, r"deadline=-1.0; expected seconds"),
        ({"on_drop": "wait"}, r"on_drop='wait'; expected take_over or skip"),
        ({"on_drop": "skip", "copy_every": 3}, r"nobody would use the copies"),
        ({"schedule": ((1, 2),)}, r"schedule holds \(1, 2\); expected \[step, device"),
        ({"schedule": 3}, r"schedule=3; expected \[step.*in a list"),
        ({"schedule": ("drop",)}, r"schedule holds 'drop'"),
        ({"schedule": ((1, -2, "drop"),)}, r"schedule holds \[1, -2, 'drop'\]"),
        ({"schedule": ((1, 2, "vanish"),)}, r"schedule holds \[1, 2, 'vanish'\]"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        Faults(**settings)


@pytest.mark.parametrize("event", [(9, 0, "drop"), (1, 8, "drop")])
def test_a_schedule_beyond_the_crowd_or_the_run_is_refused(event):
    problem, slicing = spare(0)
    with pytest.raises(UsageError, match=r"expected devices 0 to 7 and steps 0 to 8"):
        course_of(Faults(schedule=(event,)), problem, slicing, 9)


@pytest.mark.parametrize("kind", ["mlp-output", "mlp-input", "conv-grid", "residual"])
@pytest.mark.parametrize("factor", [1.1, 1.6, 3.0])
def test_whoever_is_away_no_budget_is_broken(kind, factor):
    faults = Faults(drop_rate=0.08, return_after=3, copy_every=4)
    moved = 0
    for seed in range(4):
        problem, slicing = spare(seed, factor, kind)
        course = course_of(replace(faults, seed=seed), problem, slicing, 60)
        checked = set()
        for step, hosts in hosts_by_step(course, problem, slicing, 60):
            moved += hosts != slicing.hosts
            if course.turns[step].hosted:
                assert not set(hosts) & course.turns[step].away
            for device in set(hosts) if hosts not in checked else ():
                mine = [v for v, host in enumerate(hosts) if host == device]
                assert gap_of(problem, device, mine) is None
            checked.add(hosts)
    assert moved or factor < 3


def test_stand_ins_are_found_where_the_simple_bound_sees_none():
    """Two devices that make what the other needs: together they need less than the sum."""
    found = 0
    for seed in range(40):
        problem, slicing = spare(seed, 1.0)
        groups = {h: slicing.hosted(h) for h in sorted(set(slicing.hosts))}
        for home in groups:
            for device in set(range(8)) - {home}:
                if not problem.devices[device].hosts:
                    continue
                both = {*groups[home], *slicing.hosted(device)}
                needs = (problem.flops(device, both), problem.memory(device, both))
                crowd = list(problem.devices)
                crowd[device] = replace(crowd[device], compute=needs[0], memory=needs[1])
                exact = replace(problem, devices=tuple(crowd))
                barred = set(range(8)) - {device}
                found += Buddies(exact, groups).choose(home, barred) == device
                less = replace(crowd[device], memory=needs[1] * 0.999)
                crowd[device] = less
                none = Buddies(replace(problem, devices=tuple(crowd)), groups)
                assert none.choose(home, barred) is None
        if found:
            break
    assert found


def test_a_device_that_stands_in_for_many_affords_all_of_them_at_once():
    problem, slicing = spare(1, 2.0)
    groups = {h: slicing.hosted(h) for h in sorted(set(slicing.hosts))}
    buddies, wards = Buddies(problem, groups), {}
    for home in groups:
        wards.setdefault(buddies.choose(home, {home}), []).append(home)
    assert set(wards) - {None}
    for device, homes in wards.items():
        if device is not None:
            mine = {v for home in {device, *homes} for v in groups.get(home, ())}
            assert gap_of(problem, device, mine) is None


def test_if_nobody_can_afford_it_steps_are_skipped_until_the_return():
    problem, slicing = spare(2, 1.0)
    tight = tuple(
        replace(d, compute=problem.flops(n, slicing.hosted(n)), memory=d.memory)
        for n, d in enumerate(problem.devices)
    )
    problem = replace(problem, devices=tight)
    host = slicing.hosts[0]
    plan = ((3, host, "drop"), (6, host, "return"))
    course = course_of(Faults(schedule=plan, copy_every=1), problem, slicing, 9)
    assert [turn.hosted for turn in course.turns] == [True] * 3 + [False] * 3 + [True] * 3
    assert course.handovers == () and course.ending == ()


def test_draws_are_repeated_and_have_the_rates_that_were_asked_for():
    problem, slicing = spare(3)
    faults = Faults(drop_rate=0.05, return_after=4, straggle_rate=0.2, seed=5)
    one, two = (course_of(faults, problem, slicing, 400) for _ in range(2))
    assert one == two != course_of(replace(faults, seed=6), problem, slicing, 400)
    devices = len(problem.devices)
    away = sum(len(turn.away) for turn in one.turns) / (400 * devices)
    assert abs(away - 0.2 / 1.15) < 0.03  # 4 steps away of every 19 + 4 on average
    slow = sum(len(turn.slow) for turn in one.turns) / (400 * devices)
    assert abs(slow - 0.2 * (1 - away)) < 0.03
    prefix = course_of(faults, problem, slicing, 100)
    assert prefix.turns == one.turns[:100]


def test_a_home_that_returns_while_its_stand_in_is_away_goes_on_from_what_it_had():
    problem, slicing = spare(4)
    host = slicing.hosts[0]
    first = course_of(Faults(schedule=((5, host, "drop"),), copy_every=2), problem, slicing, 9)
    buddy = next(h.receiver for h in first.handovers if h.reason == "take_over")
    other = problem.parties.index(buddy)
    plan = ((5, host, "drop"), (7, host, "return"), (7, other, "drop"), (8, other, "return"))
    course = course_of(Faults(schedule=plan, copy_every=2), problem, slicing, 12)
    name = problem.parties[host]
    moves = [h for h in course.handovers if h.reason != "copy" and h.home == name]
    assert [(h.step, h.receiver, h.reason) for h in moves] == [
        (5, buddy, "take_over"),
        (7, name, "take_over"),
    ]


def test_with_two_buddies_the_second_goes_on_where_home_and_first_are_away():
    problem, slicing = spare(4, 8.0)
    host = slicing.hosts[0]
    faults = Faults(schedule=((5, host, "drop"),), copy_every=2, buddies=2)
    first = course_of(faults, problem, slicing, 9)
    name = problem.parties[host]
    keepers = {h.receiver for h in first.handovers if h.home == name and h.step < 5}
    buddy = next(h.receiver for h in first.handovers if h.reason == "take_over")
    (second,) = keepers - {buddy}
    other = problem.parties.index(buddy)
    plan = ((5, host, "drop"), (5, other, "drop"), (7, host, "return"), (8, other, "return"))
    course = course_of(replace(faults, schedule=plan), problem, slicing, 9)
    assert all(turn.hosted for turn in course.turns)
    moves = [h for h in course.handovers if h.home == name and h.reason != "copy"]
    assert [(h.step, h.sender, h.receiver, h.reason) for h in moves] == [
        (5, name, second, "take_over"),
        (7, second, name, "return"),
    ]
    alone = course_of(replace(faults, schedule=plan, buddies=1), problem, slicing, 9)
    assert [turn.hosted for turn in alone.turns] == [True] * 5 + [False] * 2 + [True] * 2


def test_slices_wait_for_a_copy_that_may_return():
    """The home leaves for good while its stand-in is away with the copy: nobody starts anew."""
    problem, slicing = spare(5)
    host = slicing.hosts[0]
    first = course_of(Faults(schedule=((5, host, "drop"),), copy_every=2), problem, slicing, 9)
    buddy = next(h.receiver for h in first.handovers if h.reason == "take_over")
    other = problem.parties.index(buddy)
    plan = ((5, host, "drop"), (5, other, "drop"), (8, other, "return"))
    course = course_of(Faults(schedule=plan, copy_every=2), problem, slicing, 12)
    assert [turn.hosted for turn in course.turns[4:9]] == [True, False, False, False, True]
    moves = [h for h in course.handovers if h.home == problem.parties[host] and h.reason != "copy"]
    assert [(h.step, h.receiver, h.reason) for h in moves] == [(8, buddy, "take_over")]


def test_losses_of_messages_follow_their_law():
    wave = Wave("activation", "x", ((100, 3000), (200, 1000)))
    rng = torch.Generator().manual_seed(0)
    assert missed(wave, 0.0, 3, rng) == Missed()
    found = missed(wave, 0.25, None, rng)
    assert abs(found.messages - 4000 / 3) < 5 * (4000 * 0.25) ** 0.5 / 0.75
    assert abs(found.resent - 500_000 / 3) < 5 * 130 * 4000**0.5
    assert found.rounds > 3 and not found.failed
    once = missed(wave, 0.25, 0, rng)
    assert once.failed and once.resent == 0 and abs(once.messages - 1000) < 5 * 750**0.5
    tries = [missed(Wave("a", "", ((1, 10),)), 0.3, 1, rng).failed for _ in range(2000)]
    law = 1 - (1 - 0.3**2) ** 10
    assert abs(sum(tries) / 2000 - law) < 5 * (law * (1 - law) / 2000) ** 0.5
