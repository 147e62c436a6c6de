"""Each regime in outline: as much of it as says who would have a seat there, and what it would see.

A sentence that refuses an attack names the regimes that would do, and those are not trained for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from privbench.contract import Layer, Net, Party, Slice, Spec, Topology, Traffic

NET = Net(Spec("torch.nn.Flatten"))


@dataclass(frozen=True)
class Sketch:
    """A regime in outline.

    Args:
        topology: its parties, and the smallest network that it can cut.
        kinds: messages that its wire carries.
    """

    topology: Topology
    kinds: tuple[str, ...]


def _bare(regime: str, parties: tuple[Party, ...], owners: tuple[Party, ...]) -> Topology:
    return Topology(regime, parties, owners, NET, steps=1, steps_per_epoch=1)


def _chain(*places: str) -> tuple[Layer, ...]:
    names = [str(number) for number in range(len(places))]
    return tuple(
        Layer(name, name, place, 1, (1,), (f"{name}.weight",), tuple(names[:number][-1:]))
        for number, (name, place) in enumerate(zip(names, places, strict=True))
    )


def _cut(topology: Topology, layers: tuple[Layer, ...], *hosts: Party) -> Topology:
    """The same parties around a network whose layers behind the stem the hosts share out."""
    slices = tuple(
        Slice(host, layer.name, (0,))
        for host, layer in zip(hosts, (x for x in layers if x.place == "body"), strict=True)
    )
    traffic = (Traffic(hosts[0], hosts[-1], 1.0),) if len(set(hosts)) == 2 else ()
    return Topology(
        topology.regime,
        topology.parties,
        topology.owners,
        NET,
        1,
        1,
        layers,
        slices,
        traffic=traffic,
    )


DEVICES = ("device-0", "device-1")
CLIENTS = ("client-0", "client-1")

SKETCHES: Mapping[str, Sketch] = MappingProxyType(
    {
        "centralized": Sketch(
            _bare("centralized", ("owners", "trainer"), ("owners",)), ("samples", "labels")
        ),
        "fedavg": Sketch(
            _bare("fedavg", ("server", *CLIENTS), CLIENTS), ("update", "global_weights")
        ),
        "split": Sketch(
            _cut(
                _bare("split", ("client", "split_server"), ("client",)),
                _chain("stem", "body", "body"),
                "split_server",
                "split_server",
            ),
            ("activation", "labels", "gradient"),
        ),
        "slicenet": Sketch(
            _cut(
                _bare("slicenet", (*DEVICES, "coordinator", "releaser"), DEVICES),
                _chain("stem", "body", "body", "tail"),
                *DEVICES,
            ),
            (
                "activation",
                "partial_sum",
                "gradient",
                "stem_gradient",
                "tail_gradient",
                "stem_weights",
                "tail_weights",
                "slice_weights",
            ),
        ),
        "given": Sketch(_bare("given", ("world",), ()), ()),
    }
)
"""Ours, by name. Of a stranger's regime nothing is known before it has trained."""


def carried(regime: str, kinds: tuple[str, ...], labels: str = "") -> tuple[str, ...]:
    """Those of some kinds that a regime's wire carries; all of them where that is not known.

    Args:
        labels: what becomes of labels in a crowd, as its topology says it.
    """
    known = SKETCHES.get(regime)
    if known is None:
        return kinds
    sent = {*known.kinds, "labels"} if labels == "shared" else set(known.kinds)
    return tuple(kind for kind in kinds if kind in sent)
