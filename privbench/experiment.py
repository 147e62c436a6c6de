"""One experiment, told in order."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import cast

import torch

from privbench.attacking import attack_seed, attacked
from privbench.contract import (
    Fitted,
    Guess,
    Knowledge,
    LearningDefense,
    Net,
    Pairs,
    Public,
    Seat,
    Spec,
    View,
    child_rng,
    counted,
    spec_of,
    stage,
)
from privbench.data.splits import Opened, open_population
from privbench.equality import as_reference
from privbench.errors import NotApplicable, PrivbenchError
from privbench.likeness import softened, unlike
from privbench.oracle import CountingOracle
from privbench.plan import Plan, source_of
from privbench.positions import position_of
from privbench.report.crowd import CrowdFacts
from privbench.report.report import Report, Run, SeatFacts
from privbench.scoring.audit import NOTHING, Claim
from privbench.scoring.roc import curves
from privbench.scoring.score import Pictures, SeatResult
from privbench.scoring.scorer import Scorer
from privbench.scoring.seats import summarise
from privbench.seal import Seal
from privbench.seating import seats_of, with_victims
from privbench.store import Store, check_writable, digest_of_rooms, fingerprint
from privbench.targets import Opening, target_of, without_weights
from privbench.views import Facts, Rows, owned_by, rows_of, unprotected, views_of
from privbench.wire import codec

PICTURED = 64  # seats whose pictures a report keeps
MARGIN = 0.02  # of accuracy above the commonest class, below which nothing was learned


def run(plan: Plan) -> Report:
    """Carry out a plan and store its report; a finished one is returned as it is, unless ``again``.

    Raises:
        PrivbenchError: what went wrong, for whoever started a single run. Studies call
            ``run_row``, which never raises.
    """
    torch.set_num_threads(plan.threads)
    opened = open_population(plan.data, plan.seed)
    folder = Store(plan.out).folder("runs", plan.row_print(opened.digest))
    if (folder / "report.json").exists() and not plan.again:
        return Report.load(folder / "report.json")
    check_writable(plan.out)
    try:
        report = carry_out(plan, opened)
    except NotApplicable as error:
        run = circumstances(plan, opened)
        return Report(plan.names, "not_applicable", str(error), run=run)
    report.save(folder)
    return report


def run_row(plan: Plan) -> Report:
    """As ``run``, for a row of a study: what goes wrong is a report with ``status=failed``.

    A failed report is not stored, so that the next start of the study tries the row again.
    """
    try:
        return run(plan)
    except PrivbenchError as error:
        if plan.debug:
            raise
        return Report(plan.names, "failed", str(error), run=circumstances(plan))


def carry_out(plan: Plan, opened: Opened | None = None) -> Report:
    """Train over the wire, cut views, attack them sealed, score, report.

    Args:
        opened: the plan's data, split by its seed; None = open them here.
    """
    with Seal(plan.seal, plan.threads, plan.device) as seal:
        seal.start()
        return _carried_out(plan, opened or open_population(plan.data, plan.seed), seal)


def _carried_out(plan: Plan, opened: Opened, seal: Seal) -> Report:
    store = Store(plan.out)
    with stage("training"):
        target = target_of(plan, opened, store)
    seats, refusals = seats_of(plan, target.topology, opened)
    run = circumstances(plan, opened)
    report = Report(
        plan.names,
        refusals=refusals,
        target=target.quality,
        run=replace(run, warnings=_warned(target, opened)),
        crowd=CrowdFacts.of(target.topology),
    )
    if not seats:
        return replace(report, status="not_applicable", reason=refusals[0].reason)
    shared = as_reference(plan, target, opened, store, carry_out)
    if shared is not None:
        return replace(
            shared,
            target=target.quality,
            run=replace(circumstances(plan, opened, shared.run), warnings=report.run.warnings),
            crowd=report.crowd,
        )

    bare, idle = with_victims(plan.attack, cut(plan, opened, target, seats))
    report = replace(report, refusals=refusals + idle)
    if not bare:
        return replace(report, status="not_applicable", reason=idle[0].reason)
    started = time.perf_counter()
    with stage("fits"):
        views = tuple(fitted(plan, view, seal, store) for view in bare)
    oracle = oracle_of(plan, target, seats[0])
    with stage("attack"):
        views, guesses, refused = attacked(plan, views, seal, oracle)
    report = replace(report, refusals=report.refusals + refused)
    seconds = time.perf_counter() - started
    guess_hash = fingerprint(tuple(guesses))  # before the truth is opened
    with stage("scoring"):
        results = scored(plan, opened, views, guesses, store, claim_of(plan, target))
    models = [int(fit.facts.get("models", 0)) for view in views for fit in view.fitted]
    return replace(
        report,
        scores=summarise(results, plan.seed),
        curves=curves(results, plan.seed),
        pictures=_shown(results) if plan.images else (),
        references=tuple(score for result in results for score in result.references),
        seats=tuple(seat_facts(plan, view) for view in views),
        run=replace(
            report.run,
            warnings=report.run.warnings
            + unprotected(views, target.transcript.owners)
            + _doubtful(plan, opened, target, views),
            sealed=seal.sealed,
            guess_hash=guess_hash,
            queries=oracle.count if oracle else None,
            shadow_models=max(models, default=0) or None,
            attack_seconds=seconds,
        ),
    )


def cut(plan: Plan, opened: Opened, target: Opening, seats: Sequence[Seat]) -> list[View]:
    """One view a seat, fits aside."""
    topology = replace(target.topology, encrypted=plan.encrypted)
    facts = _facts(plan, opened, target)
    return views_of(target.transcript, topology, plan.threat, seats, plan.attack, facts)


def fitted(plan: Plan, view: View, seal: Seal, store: Store) -> View:
    """The view with the results of the attack's fits, stored by what they were given."""
    found = []
    for fit in plan.attack.fits():
        knowledge = Knowledge(
            public=view.public,
            budget=view.budget,
            weights=view.weights if "weights" in fit.gets else (),
            own=view.own if "own" in fit.gets else None,
            device=plan.device,
        )
        found.append(_learned(plan, spec_of(fit), knowledge, seal, store))
    return replace(view, fitted=tuple(found))


def _learned(plan: Plan, fit: Spec, knowledge: Knowledge, seal: Seal, store: Store) -> Fitted:
    seed = attack_seed(plan)
    given = (fit.target, dict(fit.kwargs), knowledge)

    def make(folder: Path) -> None:
        granted = replace(knowledge, workers=plan.workers)
        codec.save(seal.fit(fit, granted, seed), folder / "fitted")

    code = (digest_of_rooms("toolkit"), source_of(fit.target))
    name = fingerprint(given, seed, plan.threads, str(torch.__version__), *code)
    result: Fitted = codec.load(store.get_or_make("fits", name, make) / "fitted")
    return result


def oracle_of(plan: Plan, target: Opening, seat: Seat) -> CountingOracle | None:
    """Answers queries, where the seat may ask."""
    if not {"oracle_probabilities", "oracle_labels"} & seat.grants:
        return None
    return CountingOracle(target.trained.net, plan.threat.budget.queries, seat, plan.device)


def scored(
    plan: Plan,
    opened: Opened,
    views: Sequence[View],
    guesses: Sequence[Guess],
    store: Store | None = None,
    claim: Claim | None = None,
    scorer: Scorer | None = None,
) -> list[SeatResult]:
    """Compare each guess, and the blind one, with the truth; a store keeps the evaluator."""

    def kept(make: Callable[[], Net]) -> Net:
        if store is None:
            return make()
        place = (plan.threads, plan.device, str(torch.__version__), digest_of_rooms("scoring"))
        name = fingerprint(opened.evaluator, plan.seed, *place)
        folder = store.get_or_make("evaluators", name, lambda at: codec.save(make(), at / "net"))
        return cast(Net, codec.load(folder / "net"))

    scorer = scorer or Scorer(opened, plan.seed, plan.device, kept, claim or NOTHING, plan.guesses)
    return [
        scorer.score(
            plan.attack.goal,
            view.seat.name,
            guess,
            owned=owned_by(view.seat, view.topology),
            by_construction=plan.attack.by_construction and not _guarded(plan),
            victims=view.victims,
            seen=rows_of(view.messages, plan.attack.reads),
        )
        for view, guess in counted(list(zip(views, guesses, strict=True)))
    ]


def _guarded(plan: Plan) -> bool:
    """Do defenses change what the attack reads? Then nothing is handed over as it is."""
    reads = set(plan.attack.reads)
    return any(reads & set(defense.kinds) for defense in plan.defenses if not defense.double)


def claim_of(plan: Plan, target: Opening) -> Claim:
    """What the target's accountant claims of what this threat sees, and how it counts."""
    learning = target.trained.recipe.learning
    if learning is None:
        return NOTHING
    defense: LearningDefense = learning.build()
    cost, mechanism = target.trained.privacy, defense.mechanism()
    covered = cost is not None and cost.holds_for(plan.threat.name)
    counted = Claim(noise=mechanism.noise if mechanism else None, bill=defense.bill)
    if cost is None:
        return counted
    return replace(counted, epsilon=cost.epsilon if covered else math.inf, delta=cost.delta)


def _warned(target: Opening, opened: Opened) -> tuple[str, ...]:
    """A sentence where the target learned nothing that an attack could find."""
    labels, reached = opened.population.train.y, target.quality.train_accuracy
    if labels is None or reached is None:
        return ()
    commonest = float(torch.bincount(labels).max()) / len(labels)
    if reached > commonest + MARGIN:
        return ()
    return (
        f"the target learned nothing: it is right on {reached:.3f} of its training records, always "
        f"saying the commonest class on {commonest:.3f}; attacks on it say little (another regime.lr, "
        "regime.batch or seed?)",
    )


def _doubtful(
    plan: Plan, opened: Opened, target: Opening, views: Sequence[View]
) -> tuple[str, ...]:
    """Sentences about a target that was trained elsewhere."""
    if plan.names.regime != "given":
        return ()
    quality, some = target.quality, opened.population.held_out.x[:64]
    alike = unlike(views, quality.train_accuracy, quality.accuracy)
    return softened(target.trained.net, some) + alike


def _shown(results: Sequence[SeatResult]) -> tuple[Pictures, ...]:
    """Pictures of the first seats that have any."""
    found = [result.pictures for result in results if result.pictures is not None]
    return tuple(found[:PICTURED])


def seat_facts(plan: Plan, view: View) -> SeatFacts:
    """What the seat had to go on, for the table."""
    seat = view.seat
    pairs = seat.pairs if "pairs" in plan.attack.needs else ""
    n_pairs = 0
    if pairs == "own" and view.own is not None:
        n_pairs = len(view.own.rows)
    elif pairs == "query" and view.pairs:
        n_pairs = len(view.pairs[0].x)
    elif pairs == "prefix" and view.public.auxiliary is not None:
        n_pairs = len(view.public.auxiliary)
    rows = rows_of(view.messages, plan.attack.reads)
    where = asdict(position_of(view))
    return SeatFacts(seat.name, seat.column, pairs, n_pairs, len(rows), len(view.steps()), **where)


def circumstances(plan: Plan, opened: Opened | None = None, taken_over: Run | None = None) -> Run:
    """Versions, seeds and configuration of a run."""
    run = replace(
        taken_over or Run(),
        seed=plan.seed,
        threads=plan.threads,
        device=plan.device,
        worst_column="infrastructure" if plan.threat.name == "host" else "",
        command=plan.command,
        config=plan.config,
        recorded=str(plan.capture),
    )
    if opened is None:
        return run
    packages = ("torch", "opacus", "scikit-learn", "numpy", "hydra-core", "privbench")
    versions = {package: version(package) for package in packages}
    return replace(
        run,
        fingerprint=plan.row_print(opened.digest),
        versions={"python": platform.python_version(), **versions},
        splits=opened.sizes,
        notices=tuple(opened.notices),
    )


def _facts(plan: Plan, opened: Opened, target: Opening) -> Facts:
    """What may be granted, and how samples behind rows are found."""
    trained, truth = target.trained, opened.truth
    auxiliary = opened.population.auxiliary
    recipe = replace(trained.recipe, net=without_weights(trained.recipe.net))
    noise = child_rng(torch.Generator().manual_seed(plan.seed), "noise")

    def victims(rows: Rows, owned: frozenset[int]) -> Rows:
        asked = rows, owned, plan.victims, plan.seed
        if plan.attack.goal == "recurrence":
            return truth.pairs(*asked, target.topology.steps_per_epoch)
        return truth.victims(*asked)

    def pairs(steps: Sequence[int]) -> tuple[Pairs, ...]:
        states = {step: target.transcript.state(step) for step in steps}
        known = {step: state for step, state in states.items() if state}
        return () if auxiliary is None else plan.regime.query_pairs(trained, known, auxiliary.x)

    return Facts(
        public=Public(opened.candidates, auxiliary, recipe, trained.trainer, trained.net),
        own=lambda rows: truth.learned(rows, recipe, noise),
        victims=victims,
        pairs=pairs,
        notes=target.notes,
        audited=target.audited,
        device=plan.device,
    )
