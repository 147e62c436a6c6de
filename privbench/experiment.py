"""One experiment, told in order."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version

import torch

from privbench.contract import (
    Attack,
    Fitted,
    Knowledge,
    Public,
    Seat,
    View,
    child_rng,
    spec_of,
)
from privbench.data.splits import Opened, open_population
from privbench.equality import as_reference
from privbench.errors import NotApplicable, PrivbenchError, UsageError
from privbench.oracle import CountingOracle
from privbench.plan import Plan
from privbench.report.report import Refusal, Report, Run, SeatFacts
from privbench.scoring.scorer import Scorer
from privbench.scoring.seats import SeatResult, summarise
from privbench.seal import Seal
from privbench.store import Store, fingerprint
from privbench.targets import Opening, target_of, without_weights
from privbench.views import Facts, rows_of, views_of
from privbench.wire import codec


def run(plan: Plan) -> Report:
    """Carry out a plan and store its report; a finished one is returned as it is, unless ``again``.

    Raises:
        PrivbenchError: what went wrong, for whoever started a single run. Studies call
            ``run_row``, which never raises.
    """
    torch.set_num_threads(plan.threads)
    store = Store(plan.out)
    folder = store.folder("runs", plan.row_print(open_population(plan.data, plan.seed).digest))
    if (folder / "report.json").exists() and not plan.again:
        return Report.load(folder / "report.json")
    report = carry_out(plan)
    report.save(folder)
    return report


def carry_out(plan: Plan) -> Report:
    """Train over the wire, cut views, attack them sealed, score, report."""
    store = Store(plan.out)
    opened = open_population(plan.data, plan.seed)
    target = target_of(plan, opened, store)
    seats, refusals = _seats(plan, target)
    report = Report(
        names=plan.names,
        refusals=refusals,
        target=target.quality,
        run=_circumstances(plan, opened),
    )
    if not seats:
        return replace(report, status="not_applicable", reason=refusals[0].reason)
    shared = as_reference(plan, target, opened, store, carry_out)
    if shared is not None:
        return replace(shared, target=target.quality, run=_circumstances(plan, opened, shared.run))
    started = time.perf_counter()
    report = _attacked(plan, opened, target, seats, store, report)
    seconds = time.perf_counter() - started
    return replace(report, run=replace(report.run, attack_seconds=seconds))


def run_row(plan: Plan) -> Report:
    """As ``run``, for a row of a study: what goes wrong is a report with ``status=failed``.

    A failed report is not stored, so that the next start of the study tries the row again.
    """
    try:
        return run(plan)
    except NotApplicable as error:
        return Report(plan.names, "not_applicable", str(error), run=_bare(plan))
    except PrivbenchError as error:
        if plan.debug:
            raise
        return Report(plan.names, "failed", str(error), run=_bare(plan))


def _seats(plan: Plan, target: Opening) -> tuple[tuple[Seat, ...], tuple[Refusal, ...]]:
    """The seats that the attack can use, and one refusal for each reason why others cannot."""
    threat, attack = plan.threat, plan.attack
    if attack.actor is not None and not threat.tampers:
        raise NotApplicable(
            f"attack={plan.names.attack} is active, threat={plan.names.threat} only listens; "
            "choose a threat that tampers"
        )
    topology = replace(target.topology, encrypted=plan.encrypted)
    seats = threat.seats(topology)
    if not seats:
        reason = f"regime={topology.regime} has no seat for threat={threat.name}"
        return (), (Refusal(reason, 0),)
    seats = _chosen(plan, seats)
    able, reasons = [], {}
    for seat in seats:
        reason = why_not(attack, seat, threat.kinds, plan.encrypted)
        if reason:
            reasons.setdefault((reason, seat.column), []).append(seat)
        else:
            able.append(seat)
    refusals = tuple(Refusal(reason, len(s), column) for (reason, column), s in reasons.items())
    return tuple(able), refusals


def _chosen(plan: Plan, seats: tuple[Seat, ...]) -> tuple[Seat, ...]:
    """All seats, one by its number, or a random sample."""
    threat = plan.threat
    if threat.seat is not None:
        if not 0 <= threat.seat < len(seats):
            raise UsageError(
                f"threat.seat={threat.seat}: threat={threat.name} has seats 0 to {len(seats) - 1}"
            )
        return (seats[threat.seat],)
    if threat.sample is not None and threat.sample < len(seats):
        rng = child_rng(torch.Generator().manual_seed(plan.seed), "seats")
        drawn = torch.randperm(len(seats), generator=rng)[: threat.sample].sort().values
        return tuple(seats[i] for i in drawn.tolist())
    return seats


def why_not(attack: Attack, seat: Seat, kinds: Sequence[str], encrypted: bool) -> str:
    """One sentence that says what the seat lacks; empty if it has all that the attack needs."""
    if attack.reads and encrypted and not seat.parties:
        return "the wire is encrypted: whoever taps links sees sizes and times only"
    if attack.reads and not set(attack.reads) & set(kinds):
        return f"it reads {' or '.join(attack.reads)}, and this seat sees {', '.join(kinds) or 'no traffic'}"
    for need in attack.needs:
        if need == "pairs":
            if seat.pairs == "none":
                return "it needs pairs of input and activation, and this seat has no way to get any"
        elif not set(need.split("|")) & seat.grants:
            wanted = " or ".join(need.split("|")).replace("_", " ")
            return f"it needs {wanted}, which this seat does not have"
    return ""


def _attacked(
    plan: Plan,
    opened: Opened,
    target: Opening,
    seats: tuple[Seat, ...],
    store: Store,
    report: Report,
) -> Report:
    """Views, fits, sealed guesses, scores."""
    topology = replace(target.topology, encrypted=plan.encrypted)
    views = views_of(
        target.transcript, topology, plan.threat, seats, plan.attack, _facts(plan, opened, target)
    )
    oracle = CountingOracle(target.trained.net, plan.threat.budget.queries, seats[0], plan.device)
    seed = child_rng(torch.Generator().manual_seed(plan.seed), "attack").initial_seed()
    with Seal(plan.seal, plan.threads, plan.device) as seal:
        views = [replace(view, fitted=_fitted(plan, view, seed, seal, store)) for view in views]
        guesses = seal.attack(spec_of(plan.attack), views, seed, oracle if oracle.granted else None)
        sealed = seal.sealed
    guess_hash = fingerprint(codec.encode(guesses))
    results = _scored(plan, opened, views, guesses)
    fitted = [fit.facts.get("models") for view in views for fit in view.fitted]
    return replace(
        report,
        scores=summarise(results, plan.seed),
        references=tuple(score for result in results for score in result.references),
        seats=tuple(_seat_facts(view, plan.attack) for view in views),
        run=replace(
            report.run,
            sealed=sealed,
            guess_hash=guess_hash,
            queries=oracle.count if oracle.granted else None,
            shadow_models=max((int(n) for n in fitted if n is not None), default=None),
        ),
    )


def _facts(plan: Plan, opened: Opened, target: Opening) -> Facts:
    """What may be granted, and how the harness finds samples behind rows."""
    trained, truth = target.trained, opened.truth
    recipe = replace(trained.recipe, net=without_weights(trained.recipe.net))
    public = Public(
        opened.candidates, opened.population.auxiliary, recipe, trained.trainer, trained.net
    )

    def pairs(steps: Sequence[int]) -> tuple:
        states = {step: target.transcript.state(step) for step in steps}
        known = {step: state for step, state in states.items() if state}
        auxiliary = opened.population.auxiliary
        if auxiliary is None:
            return ()
        return plan.regime.query_pairs(trained, known, auxiliary.x)

    return Facts(
        public=public,
        own=truth.samples,
        victims=lambda rows, owned: truth.victims(rows, owned, plan.victims, plan.seed),
        pairs=pairs,
        device=plan.device,
    )


def _fitted(plan: Plan, view: View, seed: int, seal: Seal, store: Store) -> tuple[Fitted, ...]:
    """Results of the attack's fits for this view, stored by what they were given."""
    found = []
    for fit in plan.attack.fits():
        knowledge = Knowledge(
            public=view.public,
            budget=view.budget,
            weights=view.weights if "weights" in fit.gets else (),
            own=view.own if "own" in fit.gets else None,
            device=plan.device,
        )
        spec = spec_of(fit)
        name = fingerprint(spec.target, codec.encode((spec.kwargs, knowledge)), seed, plan.threads)
        folder = store.get_or_make(
            "fits", name, lambda f, s=spec, k=knowledge: codec.save(seal.fit(s, k, seed), f / "fitted")
        )
        found.append(codec.load(folder / "fitted"))
    return tuple(found)


def _scored(plan: Plan, opened: Opened, views: list[View], guesses: list) -> list[SeatResult]:
    """Compare each guess, and the blind one, with the truth."""
    scorer = Scorer(opened, plan.seed, plan.device)
    results = []
    for view, guess in zip(views, guesses, strict=True):
        owned = frozenset(
            i for i, owner in enumerate(view.topology.owners) if owner in view.seat.parties
        )
        seen = rows_of(view.messages, plan.attack.reads)
        results.append(
            scorer.score(
                plan.attack.goal,
                view.seat.name,
                guess,
                owned=owned if view.own is not None else frozenset(),
                by_construction=plan.attack.by_construction,
                victims=view.victims,
                seen=seen,
            )
        )
    return results


def _seat_facts(view: View, attack: Attack) -> SeatFacts:
    """What the seat had to go on, for the table."""
    seat = view.seat
    pairs = seat.pairs if "pairs" in attack.needs else ""
    n_pairs = 0
    if pairs == "own" and view.own is not None:
        n_pairs = len(view.own.rows)
    elif pairs == "query" and view.pairs:
        n_pairs = len(view.pairs[0].x)
    elif pairs == "prefix" and view.public.auxiliary is not None:
        n_pairs = len(view.public.auxiliary)
    rows = rows_of(view.messages, attack.reads)
    return SeatFacts(seat.name, seat.column, pairs, n_pairs, len(rows), len(view.steps()))


def _circumstances(plan: Plan, opened: Opened, taken_over: Run | None = None) -> Run:
    packages = ("torch", "opacus", "scikit-learn", "numpy", "hydra-core", "privbench")
    versions = {package: version(package) for package in packages}
    return replace(
        taken_over or _bare(plan),
        fingerprint=plan.row_print(opened.digest),
        versions={"python": platform.python_version(), **versions},
        config=plan.config,
        notices=tuple(opened.notices),
    )


def _bare(plan: Plan) -> Run:
    return Run(
        seed=plan.seed,
        threads=plan.threads,
        device=plan.device,
        worst_column="infrastructure" if plan.threat.name == "host" else "",
    )
