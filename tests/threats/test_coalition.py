"""The worst coalition is found in the slicing alone."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch

from privbench.contract import Need, Slice, Topology
from privbench.errors import UsageError
from privbench.threats.coalition import worst_of
from privbench.threats.crowd import Hosts


def spread(crowd: Topology, *needs: tuple[str, tuple[int, ...]]) -> Topology:
    """Device i is sent some channels of one layer."""
    devices = [f"device-{i}" for i in range(len(needs))]
    slices = tuple(
        Slice(device, "net.3" if name == "net.1" else "net.5", (0,), needs=(Need(name, units),))
        for device, (name, units) in zip(devices, needs, strict=True)
    )
    parties = (*devices, "coordinator", "releaser")
    return replace(crowd, parties=parties, owners=tuple(devices), slices=slices)


def share(topology: Topology, parties: tuple[str, ...]) -> tuple[int, int]:
    """Channels of the first and of the second layer that some parties are sent."""
    seen: dict[str, set[int]] = {"net.1": set(), "net.3": set()}
    for piece in topology.slices:
        if piece.party in parties:
            for need in piece.needs:
                seen[need.layer] |= set(need.units or range(4))
    return len(seen["net.1"]), len(seen["net.3"])


def test_shallow_channels_come_first_and_none_twice(crowd: Topology) -> None:
    needs = (("net.3", (0, 1, 2, 3)), ("net.1", (0, 1)), ("net.1", (1, 0)), ("net.1", (3,)))
    topology = spread(crowd, *needs)
    hosts = topology.hosts()
    assert worst_of(topology, hosts, 1) == ("device-1",)
    assert worst_of(topology, hosts, 2) == ("device-1", "device-3")
    assert worst_of(topology, hosts, 3) == ("device-0", "device-1", "device-3")
    assert worst_of(topology, hosts, 9) == hosts


def test_the_greedy_choice_is_nearly_the_best_one(crowd: Topology) -> None:
    rng = torch.Generator().manual_seed(0)
    for _ in range(20):
        needs = []
        for _ in range(7):
            units = torch.randperm(4, generator=rng)[: int(torch.randint(1, 4, (), generator=rng))]
            needs.append((("net.1", "net.3")[int(units[0]) % 2], tuple(units.tolist())))
        topology = spread(crowd, *needs)
        found = share(topology, worst_of(topology, topology.hosts(), 3))
        best = max(share(topology, each) for each in combinations(topology.hosts(), 3))
        assert found[0] >= (1 - 1 / 2.718) * best[0]


def test_who_owns_samples_comes_first_of_equals(crowd: Topology) -> None:
    topology = replace(
        spread(crowd, ("net.1", (0,)), ("net.1", (0,)), ("net.1", (0,))), owners=("device-2",)
    )
    assert worst_of(topology, topology.hosts(), 1) == ("device-2",)


def test_the_worst_coalition_is_a_seat_with_a_name_of_its_own(crowd: Topology) -> None:
    topology = spread(crowd, ("net.3", (0,)), ("net.1", (0, 1)), ("net.1", (2,)))
    (seat,) = Hosts(fraction=0.5, draw="worst").seats(topology)
    assert seat.parties == ("device-1", "device-2") and seat.name == "worst 2 of 3 hosts"
    assert seat.pairs == "prefix"


def test_no_other_word_draws(crowd: Topology) -> None:
    with pytest.raises(UsageError, match=r"threat.draw=best; expected a seed.*or worst"):
        Hosts(draw="best").seats(crowd)
