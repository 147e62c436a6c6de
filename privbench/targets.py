"""Targets: trained once, stored, opened again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from privbench.contract import Net, Public, Samples, Stand, Topology, child_rng
from privbench.data.splits import Opened
from privbench.models.fits import check_fits
from privbench.plan import Plan
from privbench.regimes.base import Trained
from privbench.regimes.over_wire import followed
from privbench.report.report import Target
from privbench.scoring.rates import clopper_pearson
from privbench.seating import active_seat
from privbench.store import Store
from privbench.views import granted
from privbench.wire import codec
from privbench.wire.acting import Acting
from privbench.wire.capture import drawn_members
from privbench.wire.tap import Recorder
from privbench.wire.transcript import Transcript
from privbench.wire.wire import Wire


@dataclass(frozen=True, eq=False)
class Opening:
    """A target that can be attacked: what was trained, what was recorded, how good it is.

    ``notes`` is what an active attack learned while it was trained, ``audited`` what an auditor of every
    step may know of gradient canaries: all but their coins.
    """

    trained: Trained
    transcript: Transcript
    quality: Target
    notes: Mapping[str, Tensor] = field(default_factory=dict)
    audited: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def topology(self) -> Topology:
        """Who took part."""
        return self.trained.topology


def target_of(plan: Plan, opened: Opened, store: Store) -> Opening:
    """Load the target with the plan's fingerprint, or train it; the truth learns its batches."""
    made = store.get_or_make(
        "targets", plan.target_print(opened.digest), lambda folder: _make(plan, opened, folder)
    )
    trained, quality = codec.load(made / "trained")
    opened.truth.load(made / "truth")
    notes, audited = codec.load(made / "notes"), codec.load(made / "audited")
    transcript = Transcript(made / "transcript")
    return Opening(Trained(*trained), transcript, Target(*quality), notes, audited)


def _make(plan: Plan, opened: Opened, folder: Path) -> None:
    people = opened.population
    check_fits(plan.model, people.train.x.shape[1:], people.classes)
    (folder / "transcript").mkdir()
    rng = torch.Generator().manual_seed(plan.seed)
    tap = _recorder(plan, opened, folder / "transcript")
    acting = _acting(plan, opened)
    wire = Wire((tap,), plan.defenses, acting, child_rng(rng, "wire"))
    started = time.perf_counter()
    trained = followed(
        plan.regime.train(plan.model, people, wire, rng, plan.device), plan.regime, wire
    )
    seconds = time.perf_counter() - started
    tap.close()
    opened.truth.shuffle(tap.orders)
    opened.truth.observed = trained.observed
    opened.truth.save(folder / "truth")
    codec.save(acting.notes() if acting is not None else {}, folder / "notes")
    codec.save(_audited(trained), folder / "audited")
    quality = _quality(trained, opened, plan.device, seconds)
    parts = (trained.net, trained.recipe, trained.trainer, trained.topology)
    costs = (trained.bytes_per_sample, trained.flops_per_sample, trained.privacy)
    curve = (trained.losses, trained.passes)
    codec.save(((*parts, *costs, *curve), quality), folder / "trained")


def _audited(trained: Trained) -> dict[str, Tensor]:
    """What gradient canaries saw, without their coins."""
    seen = trained.observed
    return {} if seen is None else {"canaries_seen": seen.seen, "canaries_drawn": seen.drawn}


def _acting(plan: Plan, opened: Opened) -> Acting | None:
    """The active part of the plan's attack, to be seated once it is known who takes part."""
    actor = plan.attack.acting() if plan.acts else None
    if actor is None:
        return None
    people = opened.population

    def stand(topology: Topology) -> Stand:
        topology = replace(topology, encrypted=plan.encrypted)
        seat = active_seat(plan, topology, opened)
        recipe = plan.regime.recipe(plan.model, len(people.train))
        recipe = replace(recipe, net=without_weights(recipe.net))
        known = opened.candidates, people.auxiliary
        public = Public(*known, recipe=recipe, trainer=plan.regime.trainer)
        return Stand(seat, topology, granted(seat, public, plan.attack), plan.device)

    return Acting(actor, stand)


def _recorder(plan: Plan, opened: Opened, folder: Path) -> Recorder:
    """Keeps what the capture policy says; who was drawn is the truth's to know, not the recording's."""
    truth, count = opened.truth, plan.capture.samples
    members = drawn_members(count, len(truth.train), plan.seed)

    def chosen(step: int) -> Tensor:
        return torch.isin(truth.batch(step), members).to(torch.int64)

    return Recorder(folder, plan.capture, seed=plan.seed, chosen=chosen)


def _quality(
    trained: Trained, opened: Opened, device: str, seconds: float
) -> tuple[float | str | tuple[float, ...] | None, ...]:
    """The fields of ``Target``, in order."""
    privacy = trained.privacy
    people = opened.population
    held_out, low, high = accuracy(trained.net, people.held_out, device), None, None
    if held_out is not None:
        count = len(people.held_out)
        _, low, high, *_ = clopper_pearson(round(held_out * count), count)
    return (
        held_out,
        accuracy(trained.net, people.train, device),
        trained.bytes_per_sample,
        trained.flops_per_sample,
        privacy.epsilon if privacy else None,
        privacy.delta if privacy else None,
        privacy.covers if privacy else "",
        seconds,
        low,
        high,
        trained.losses,
        trained.passes,
    )


def accuracy(net: Net, samples: Samples, device: str = "cpu") -> float | None:
    """Share of records whose label the network gives; None without labels."""
    if samples.y is None or not len(samples):
        return None
    with torch.no_grad():
        guess = net.module().to(device)(samples.x.to(device)).argmax(dim=1).cpu()
    return float((guess == samples.y).double().mean())


def without_weights(net: Net) -> Net:
    """The architecture alone."""
    return replace(net, weights=None)
