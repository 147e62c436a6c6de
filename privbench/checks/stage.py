"""Tiny targets on which plug-ins are checked: real digits, small networks, seconds at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import torch
from scipy.stats import binom

from privbench.attacking import attack_seed
from privbench.compose.launch import one
from privbench.compose.plans import Given
from privbench.compose.words import Words
from privbench.contract import Attack, Guess, Net, Samples, Spec, View, child_rng, spec_of
from privbench.data.arrays import arrays
from privbench.data.digits import Digits
from privbench.data.splits import Opened, open_population
from privbench.data.truth import Truth
from privbench.errors import NotApplicable, PluginError
from privbench.experiment import claim_of, cut, fitted, oracle_of, scored
from privbench.plan import Plan
from privbench.scoring.score import Score
from privbench.scoring.scorer import Scorer
from privbench.seal import Seal
from privbench.seating import seats_of, with_victims
from privbench.store import Store
from privbench.targets import Opening, target_of

RECORDS = 540  # digits: 180 members, 180 non-members, 120 auxiliary, 60 for the evaluator
NETWORK = Net(Spec("privbench.models.mlp.Mlp", {"widths": [64, 48, 24, 16, 10]}))
WIDE = Net(Spec("privbench.models.mlp.Mlp", {"widths": [64, 96, 48, 10]}))
"""Learns by heart what has no structure: a narrow network hardly does, and an attack on it that is
sound would miss a signal that is barely there."""

BY_HEART = ("++regime.epochs=120",)
"""How long it does: members' answers then differ from others' by the entropy alone."""

MAPS = Net(
    Spec(
        "privbench.models.alexnet.AlexNet",
        {"channels": 1, "size": 8, "convolutions": [8, 16, 16, 16, 16], "widths": [32, 16]},
    )
)
"""Convolutions, whose values tell where in the image they come from."""

PLACES = (
    ("regime=centralized", "threat=released"),
    ("regime=centralized", "threat=trainer"),
    ("regime=slicenet", "threat=host", "crowd.devices=4"),
    ("regime=fedavg_one_sample", "regime.rounds=12", "threat=server"),
    ("regime=slicenet", "threat=host", "++threat.steps=first:1", "crowd.devices=4"),
    ("regime=slicenet", "threat=host", "++threat.steps=all", "crowd.devices=4"),
    (
        "regime=dpsgd_audited",
        "++regime.epochs=10",
        "++regime.learning.noise=1.0",
        "threat=iterates",
    ),
)
"""Where an attack may find what it needs, tried in this order."""

ACTIVE_PLACES = (
    (
        *("regime=fedavg_one_sample", "++regime.batch=10", "++regime.clients=4", "regime.rounds=4"),
        "threat=server_active",
    ),
    (
        *("regime=split", "++regime.epochs=60", "++regime.lr=0.002"),
        *("++regime.optimizer=torch.optim.Adam", "++regime.optimizer_args={betas: [0.5, 0.999]}"),
        "threat=split_server_active",
    ),
    ("regime=slicenet", "threat=host_active", "++threat.steps=all", "crowd.devices=4"),
    ("regime=slicenet", "threat=owner_active", "crowd.devices=4"),
)
"""The same for attacks that act while the model is trained: each trains a target of its own."""


class Kind(Enum):
    """What the labels of a tiny target say."""

    REAL = "real"
    RANDOM = "random"  # no structure: only memory explains a right answer


@dataclass(frozen=True, eq=False)
class Stage:
    """A tiny target, and what an attack is given of it."""

    plan: Plan
    opened: Opened
    target: Opening
    views: tuple[View, ...]

    def guesses(self, seal: str = "inline") -> list[Guess]:
        """The attack's answers, through a seal."""
        oracle = oracle_of(self.plan, self.target, self.views[0].seat)
        with Seal(seal, self.plan.threads, self.plan.device) as one_seal:
            spec, seed = spec_of(self.plan.attack), attack_seed(self.plan)
            return one_seal.attack(spec, self.views, seed, oracle)

    def under(self, opened: Opened) -> Stage:
        """The same seats, cut and fitted anew under another truth; own samples stay what they are."""
        cut_anew = cut(self.plan, opened, self.target, [view.seat for view in self.views])
        kept = [
            replace(
                new,
                own=old.own,
                # which rows are paired depends on labels, that is on the truth
                victims=old.victims if self.plan.attack.goal == "recurrence" else new.victims,
            )
            for new, old in zip(cut_anew, self.views, strict=True)
        ]
        return replace(self, opened=opened, views=_fitted(self.plan, kept))

    def scores(self, guesses: Sequence[Guess], opened: Opened | None = None) -> list[Score]:
        """The headline score of each seat, against this truth or another."""
        return self.judged(guesses, self.scorer(opened or self.opened))

    def scorer(self, opened: Opened) -> Scorer:
        """Who holds that truth."""
        plan, claim = self.plan, claim_of(self.plan, self.target)
        return Scorer(opened, plan.seed, plan.device, claim=claim, guesses=plan.guesses)

    def judged(self, guesses: Sequence[Guess], scorer: Scorer) -> list[Score]:
        """The headline score of each seat, of a scorer."""
        results = scored(self.plan, scorer.opened, self.views, guesses, scorer=scorer)
        return [result.scores[0] for result in results]


@dataclass(frozen=True, eq=False)
class _Place:
    """A tiny target before anybody attacks it."""

    plan: Plan
    opened: Opened
    target: Opening


class Workshop:
    """Where plug-ins are tried: a tiny target is trained once, and attacked once for all rules.

    Args:
        folder: where targets and fits lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[tuple[tuple[str, ...], int, Kind], _Place] = {}
        self._stages: dict[tuple[str, int, Kind], Stage] = {}
        self._guesses: dict[tuple[str, int, Kind], list[Guess]] = {}
        self._swapped: dict[tuple[Opened, float, int], Scorer] = {}

    def stage(self, attack: Attack, seed: int, kind: Kind) -> Stage:
        """The first place where the attack has a seat, trained and cut.

        Raises:
            PluginError: it has a seat nowhere.
        """
        asked = str(spec_of(attack)), seed, kind
        if asked not in self._stages:
            self._stages[asked] = self._staged(attack, seed, kind)
        return self._stages[asked]

    def guesses(self, attack: Attack, seed: int, kind: Kind) -> list[Guess]:
        """What the attack answers there, through an inline seal."""
        asked = str(spec_of(attack)), seed, kind
        if asked not in self._guesses:
            self._guesses[asked] = self.stage(attack, seed, kind).guesses()
        return self._guesses[asked]

    def swapped(self, stage: Stage, draw: int) -> Scorer:
        """Who holds another truth of a stage: one for all attacks there, as what a blind guess finds
        takes longer than the rest of a score."""
        asked = stage.opened, stage.plan.guesses, draw
        if asked not in self._swapped:
            self._swapped[asked] = stage.scorer(swapped(stage.opened, draw))
        return self._swapped[asked]

    def _staged(self, attack: Attack, seed: int, kind: Kind) -> Stage:
        settings, refused = spec_of(attack), []
        quick = replace(settings, kwargs={**settings.kwargs, **type(attack).conformance}).build()
        for words in PLACES if attack.actor is None else ACTIVE_PLACES:
            try:
                place = self._place(words, seed, kind, quick)
            except NotApplicable as why:
                refused.append(f"{_named(words)}: {why}")
                continue
            plan = replace(place.plan, attack=quick)
            seats, refusals = seats_of(plan, place.target.topology, place.opened)
            views, idle = with_victims(quick, cut(plan, place.opened, place.target, seats))
            if views:
                return Stage(plan, place.opened, place.target, _fitted(plan, views))
            every = (*refusals, *idle)
            refused += [f"{_named(words)}: {refusal.reason}" for refusal in every]
        raise PluginError(f"{type(attack).__name__} has a seat nowhere; {'; '.join(refused)}")

    def _place(self, words: tuple[str, ...], seed: int, kind: Kind, attack: Attack) -> _Place:
        """A target, trained under the attack where this acts.

        Raises:
            NotApplicable: it cannot act there.
        """
        asked = words, seed, kind
        if attack.actor is None and asked in self._places:
            return self._places[asked]
        plan = _plan(words, seed, kind, self.folder)
        plan = plan if attack.actor is None else replace(plan, attack=attack)
        opened = open_population(plan.data, plan.seed)
        place = _Place(plan, opened, target_of(plan, opened, Store(plan.out)))
        if attack.actor is None:
            self._places[asked] = place
        return place


def _named(words: Sequence[str]) -> str:
    """Regime and threat of a place."""
    return " ".join(word for word in words if word.startswith(("regime=", "threat=")))


def _fitted(plan: Plan, views: Sequence[View]) -> tuple[View, ...]:
    store = Store(plan.out)
    with Seal("inline") as seal:
        return tuple(fitted(plan, view, seal, store) for view in views)


def swapped(opened: Opened, draw: int) -> Opened:
    """The same rows and candidates with another truth: bits permuted, rows of other samples."""
    rng = child_rng(torch.Generator().manual_seed(draw), "swap")
    truth = opened.truth
    order = torch.randperm(len(truth.train), generator=rng)
    places = truth.places
    if places is not None:
        places = places[torch.randperm(len(places), generator=rng)]
    other = Truth(truth.train[order], places)
    other.take(truth)
    if truth.observed is not None:
        coins = torch.rand(truth.observed.coins.shape, generator=rng) < 0.5
        other.observed = truth.observed._replace(coins=coins)
    return replace(opened, truth=other)


def repaired(stage: Stage, draw: int) -> Opened:
    """The same rows, and other pairs of them that are one sample: half of the first seat's, drawn anew."""
    truth, rng = stage.opened.truth, child_rng(torch.Generator().manual_seed(draw), "pairs")
    other = Truth(truth.train, truth.places)
    other.take(truth)
    pairs = stage.views[0].victims.reshape(-1, 2, 2)
    same = torch.randperm(len(pairs), generator=rng) < len(pairs) // 2
    for (first, second), alike in zip(pairs, same.tolist(), strict=True):
        step, row = second.tolist()
        batch = other.batch(step).clone()
        mine = int(other.sample_of(first[None]))
        batch[row] = mine if alike else (mine + 1) % len(truth.train)
        other.note(step, batch)
    return replace(stage.opened, truth=other)


def least(draws: int, coverage: float = 0.95, level: float = 0.001) -> int:
    """Fewest of ``draws`` intervals that must hold, by a one-sided exact binomial test."""
    return int(binom.ppf(level, draws, coverage))


def _plan(words: Sequence[str], seed: int, kind: Kind, folder: Path) -> Plan:
    fixed = ("victims=12", "device=cpu", f"seed={seed}", f"out={folder}")
    longer = BY_HEART if kind is Kind.RANDOM and "regime=centralized" in words else ()
    network = NETWORK if kind is Kind.REAL else WIDE
    plan, _ = one(
        Words((*words, *longer, *fixed, "++threat.budget.shadow_models=8")),
        Given(
            model=MAPS if "regime=split" in words else network, data=arrays(*_records(seed, kind))
        ),
    )
    return replace(plan, others=dict)


def _records(seed: int, kind: Kind) -> tuple[torch.Tensor, torch.Tensor]:
    samples: Samples = Digits().load().samples
    rng = child_rng(torch.Generator().manual_seed(seed), "records")
    chosen = samples[torch.randperm(len(samples), generator=rng)[:RECORDS]]
    if chosen.y is None:
        raise PluginError("digits have labels")
    if kind is Kind.RANDOM:
        return chosen.x, chosen.y[torch.randperm(RECORDS, generator=rng)]
    return chosen.x, chosen.y
