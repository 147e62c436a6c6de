"""Topologies by hand: who takes part in each regime, and a crowd whose slices are known."""

from __future__ import annotations

import pytest

from privbench.contract import Layer, Net, Slice, Spec, Topology, Traffic

NET = Net(Spec("privbench.models.mlp.Mlp", {"widths": [4, 4, 4, 4, 2]}))


def _layer(number: int, place: str, inputs: tuple[str, ...]) -> Layer:
    name = f"net.{number}"
    parameters = (f"{name}.weight", f"{name}.bias")
    return Layer(name, f"cut{number}", place, 2 if place == "tail" else 4, (4,), parameters, inputs)


@pytest.fixture(scope="session")
def crowd() -> Topology:
    """A chain stem, two body layers, tail. Device 0 hosts the shallow body layer, device 1 the deep
    one, device 2 hosts nothing, device 3 hosts a part of the shallow one and owns no sample."""
    layers = (
        _layer(1, "stem", ()),
        _layer(3, "body", ("net.1",)),
        _layer(5, "body", ("net.3",)),
        _layer(7, "tail", ("net.5",)),
    )
    slices = (
        Slice("device-0", "net.3", (0, 1)),
        Slice("device-1", "net.5", (0, 1, 2, 3)),
        Slice("device-3", "net.3", (2, 3)),
    )
    devices = tuple(f"device-{i}" for i in range(4))
    parties = (*devices, "coordinator", "releaser")
    pairs = (("device-0", "device-1"), ("device-1", "device-3"))
    traffic = tuple(Traffic(*pair, 8.0) for pair in pairs)
    return Topology(
        "slicenet", parties, devices[:3], NET, 8, 4, layers=layers, slices=slices, traffic=traffic
    )


@pytest.fixture(scope="session")
def centralized() -> Topology:
    return Topology("centralized", ("owner", "trainer"), ("owner",), NET, 8, 4)


@pytest.fixture(scope="session")
def fedavg() -> Topology:
    clients = ("client-0", "client-1", "client-2")
    return Topology("fedavg", ("server", *clients), clients, NET, 8, 4)


@pytest.fixture(scope="session")
def split() -> Topology:
    held = (Slice("split_server", "net.3", (0, 1, 2)),)
    return Topology("split", ("client", "split_server"), ("client",), NET, 8, 4, slices=held)


@pytest.fixture(scope="session")
def every(
    crowd: Topology, centralized: Topology, fedavg: Topology, split: Topology
) -> dict[str, Topology]:
    """All of them, by regime."""
    return {one.regime: one for one in (crowd, centralized, fedavg, split)}
