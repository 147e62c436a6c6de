"""No victim is lost on whoever sees other units of other rows: over replicas, and after a take-over."""

from dataclasses import replace

import torch
from crowds import Deals, records
from outages import DEEP, SHAPE, regime

from attacks.membership.activation_match import ActivationMatch
from attacks.reconstruction.activation_inversion import ActivationInversion
from attacks.reconstruction.ridge_decoder import RidgeDecoder
from privbench.contract import Net, Public, Samples
from privbench.slicenet.slicers.random import Random
from privbench.threats.crowd import Hosts
from privbench.toolkit.traffic import seen_of_victims
from privbench.views import Facts, rows_of, views_of
from privbench.wire.capture import Capture
from privbench.wire.tap import Recorder
from privbench.wire.transcript import Transcript
from privbench.wire.wire import Wire


def run(folder, choose, tiling="output", **settings):
    """The view of a coalition over all steps of a small crowd, each row seen a victim."""
    made = regime(tiling=tiling, **settings)
    tap = Recorder(folder, Capture(first=1000))
    people = Deals(records(60, SHAPE, 4, 1, torch.float32))
    done = made.train(Net(DEEP), people, Wire((tap,)), torch.Generator().manual_seed(1), "cpu")
    tap.close()
    samples = Samples(people.train.x.float(), people.train.y)
    public = Public(auxiliary=samples, candidates=samples)
    facts = Facts(public, lambda rows: samples[: len(rows)], lambda rows, owned: rows, lambda s: ())
    threat = Hosts(devices=choose(done.topology), steps="all")
    (seat,) = threat.seats(done.topology)
    transcript = Transcript(folder)
    return views_of(transcript, done.topology, threat, [seat], ActivationInversion(), facts)[
        0
    ], done


def victims_of(view):
    return sum(len(part.victims) for part in seen_of_victims(view, ("activation",)))


def test_a_coalition_over_two_replicas_sees_victims_of_both(tmp_path):
    view, done = run(
        tmp_path,
        lambda t: (t.replicas[0][0], t.replicas[1][-1]),
        replicas=2,
        slicer=Random(),
        tiling="input",
    )
    rows = rows_of(view.messages, ("activation",))
    assert victims_of(view) == len(rows)
    owner = {name: number for number, group in enumerate(done.topology.replicas) for name in group}
    senders = {
        owner[m.sender] for m in view.messages if m.sender in owner and m.kind == "activation"
    }
    assert senders == {0, 1}
    parts = seen_of_victims(view, ("activation",))
    assert len({part.seen.units for part in parts}) > 1
    places = torch.cat([part.victims for part in parts]).sort().values
    assert torch.equal(places, torch.arange(len(view.victims)))
    known = replace(view.public, candidates=view.public.auxiliary)
    view = replace(view, public=known)
    for attack in (RidgeDecoder(), ActivationInversion(steps=2), ActivationMatch()):
        attack.run(view, torch.Generator().manual_seed(0))


def test_a_take_over_loses_no_victim(tmp_path):
    plan = {"schedule": [[8, 1, "drop"], [13, 1, "return"]], "copy_every": 3}
    for tiling in ("output", "input"):
        folder = tmp_path / tiling
        folder.mkdir()
        view, done = run(folder, _buddies, tiling=tiling, faults=plan)
        assert any(each.reason == "take_over" for each in done.topology.handovers)
        rows = rows_of(view.messages, ("activation",))
        assert victims_of(view) == len(rows) > 0
        guess = RidgeDecoder().run(view, torch.Generator().manual_seed(0))
        mean = view.public.auxiliary.x.mean(dim=0)
        decoded = (guess.x - mean).abs().flatten(1).sum(1) > 1e-3
        assert bool(decoded.all())


def _buddies(topology):
    return (next(each.receiver for each in topology.handovers if each.reason == "take_over"),)
