"""Scores of a guess at private inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from privbench.contract import ReconstructionGuess, child_rng
from privbench.errors import PluginError
from privbench.scoring import images, rates, statistics
from privbench.scoring.assignment import Assigned, assign, matched
from privbench.scoring.bench import SWAPS, Bench
from privbench.scoring.evaluator import is_image
from privbench.scoring.prior import BlindImage, blind_images, nearest
from privbench.scoring.score import (
    LOWER_LEAKS,
    PSNR_RATE,
    RATES,
    SSIM_RATE,
    Measured,
    Score,
    SeatResult,
)

STRANGERS = "matched to strangers"
GOOD_PSNR, GOOD_SSIM = 20.0, 0.6  # dB, and no unit: from which on a rebuilt image is recognised


Values = dict[str, np.ndarray]
"""Of each metric that applies its value for each victim, headline first."""


def score_reconstruction(
    guess: ReconstructionGuess,
    seat: str,
    bench: Bench,
    victims: Int64[Tensor, "n 2"],
    seen: Int64[Tensor, "m 2"],
    owned: frozenset[int],
) -> SeatResult:
    """Compare rebuilt inputs with the true ones, over the victims alone.

    Args:
        victims: rows that the attack was asked for; one that it did not guess counts as guessed by
            the best blind image.
        seen: rows that the seat saw (guesses of unknown order can be for any of their group).
        owned: numbers of the seat's own places among the owners.

    Returns:
        ``identification`` (headline), ``psnr_db``, ``mse``; of images ``psnr_20db_rate``, from 11
        pixels a side ``ssim`` and ``ssim_0.6_rate``, from 12 ``perceptual``; of other records
        ``column_gain``. The nearest auxiliary record as a reference.

    Raises:
        PluginError: guesses of another shape than the records, of rows that never were, or twice.
    """
    groups = None if guess.groups is None else guess.groups.cpu()
    guess = ReconstructionGuess(guess.rows.cpu(), guess.x.float().cpu(), groups)
    shape = bench.truth.train.x.shape[1:]
    if len(guess.x) and guess.x.shape[1:] != shape:
        raise PluginError(
            f"expected guesses of shape {tuple(shape)}, got {tuple(guess.x.shape[1:])}"
        )
    if not len(victims):
        nothing = rates.clopper_pearson(0, 0)
        score = Score("reconstruction", "identification", seat, *nothing[:3], n=0, reliable=False)
        return SeatResult(seat, (replace(score, note="it saw no row of anybody else"),))
    sample = bench.truth.sample_of(victims)
    true = bench.truth.train[sample]
    labels = true.y if true.y is not None else torch.zeros(len(sample), dtype=torch.int64)
    blind = blind_images(bench.prior, labels)
    fallback = min(blind, key=lambda image: images.mse(image.x, true.x).mean())
    assigned = assign(
        guess.rows,
        guess.groups,
        lambda made, targets: matched(guess.x[made], bench.truth.train.x[targets]),
        victims,
        seen,
        owned,
        bench.truth,
    )
    x = fallback.x.clone()
    x[assigned.made] = guess.x[assigned.guess[assigned.made]]
    values = _measure(x, true.x, bench, sample)
    bars = _bars(blind, true.x, bench, sample)
    bars.append(_swapped(guess, assigned, fallback, bench, sample))
    note = _note(values, assigned.made, bench)
    scores = tuple(_score(seat, metric, v, bars, note, bench.rng) for metric, v in values.items())
    measured = tuple(Measured(metric, sample.numpy(), v) for metric, v in values.items())
    references = _references(seat, true.x, bench, sample, bars)
    first = sample.argsort()  # the same records for every seat that saw them; not the best ones
    shown = images.pictured(seat, true.x[first], x[first], fallback.x[first])
    return SeatResult(seat, scores, measured, references, shown)


@dataclass(frozen=True, eq=False)
class _Bar:
    """A blind guess and what it reaches."""

    name: str
    values: Values
    identification: float

    def of(self, metric: str) -> float:
        """Its mean value of a metric; NaN where it has none."""
        if metric == "identification":
            return self.identification
        values = self.values.get(metric)
        return float("nan") if values is None or not len(values) else float(values.mean())


def _measure(x: Tensor, true: Tensor, bench: Bench, sample: Tensor) -> Values:
    decoys, place = bench.line_up
    hits = images.identified(x, true, decoys, place[sample]).double().numpy()
    return {"identification": hits, **_likeness(x, true, bench)}


def _likeness(x: Tensor, true: Tensor, bench: Bench) -> Values:
    """Every metric that asks for a guess and the record it is for alone."""
    errors = images.mse(x, true)
    found = {"psnr_db": images.psnr(errors), "mse": errors}
    if not is_image(x.shape[1:]):
        return {**found, "column_gain": bench.columns.gain(x, true)}
    found[PSNR_RATE] = (found["psnr_db"] >= GOOD_PSNR).astype(np.float64)
    alike = images.ssim(x, true)
    if alike is not None:
        found |= {"ssim": alike, SSIM_RATE: (alike >= GOOD_SSIM).astype(np.float64)}
    if bench.perceive is not None and len(x):
        found["perceptual"] = bench.perceive(x, true)
    return found


def _bars(blind: tuple[BlindImage, ...], true: Tensor, bench: Bench, sample: Tensor) -> list[_Bar]:
    candidates = len(bench.line_up.x)
    return [_Bar(b.name, _measure(b.x, true, bench, sample), 1 / candidates) for b in blind]


def _swapped(
    guess: ReconstructionGuess,
    assigned: Assigned,
    fallback: BlindImage,
    bench: Bench,
    sample: Tensor,
) -> _Bar:
    """What matching in groups gives by itself: the same guesses matched to strangers.

    Where every guess names its row there is nothing to match, and nothing to add.
    """
    nothing = _Bar("", {}, float("nan"))
    if not any(len(group.targets) > 1 for group in assigned.groups):
        return nothing
    decoys = bench.line_up.x
    nowhere = torch.full((len(sample),), -1)
    hits: list[float] = []
    found: list[Values] = []
    for swap in range(SWAPS):
        rng = child_rng(bench.rng, "swap", swap)
        x, strangers = fallback.x.clone(), fallback.x.clone()
        for group in assigned.groups:
            drawn = torch.randint(len(bench.held_out), (len(group.targets),), generator=rng)
            targets = bench.held_out.x[drawn]
            chosen = matched(guess.x[group.guesses], targets)
            mine = group.victim >= 0
            strangers[group.victim[mine]] = targets[mine]
            good = mine & (chosen >= 0)
            x[group.victim[good]] = guess.x[group.guesses[chosen[good]]]
        made = assigned.made
        others = decoys[~_same(decoys, strangers)]
        hit = images.identified(x[made], strangers[made], others, nowhere[made])
        hits.append(float(hit.double().mean()))
        found.append(_likeness(x[made], strangers[made], bench))
    values = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    return _Bar(STRANGERS, values, float(np.mean(hits)))


def _same(decoys: Tensor, strangers: Tensor) -> Bool[Tensor, " m"]:
    """Decoys that are one of the strangers themselves."""
    return torch.cdist(decoys.flatten(1).double(), strangers.flatten(1).double()).amin(dim=1) == 0


def _best(metric: str, bars: list[_Bar]) -> tuple[float, str]:
    known = [bar for bar in bars if np.isfinite(bar.of(metric))]
    if not known:
        return float("nan"), ""
    sign = -1 if metric in LOWER_LEAKS else 1
    best = max(known, key=lambda bar: sign * bar.of(metric))
    name = "1/N" if metric == "identification" and best.name != STRANGERS else best.name
    return best.of(metric), name


def _score(
    seat: str,
    metric: str,
    values: np.ndarray,
    bars: list[_Bar],
    note: str,
    rng: torch.Generator,
    method: str = "",
) -> Score:
    if metric in RATES:
        interval = rates.clopper_pearson(int(values.sum()), len(values))
    else:
        drawn = statistics.numpy_rng(child_rng(rng, "bootstrap", seat, metric))
        interval = statistics.mean_interval(values, drawn)
    blind, name = _best(metric, bars)
    return Score(
        "reconstruction",
        metric,
        seat,
        *interval[:3],
        n=len(values),
        blind=blind,
        blind_name=name,
        reliable=interval.reliable,
        note=note,
        method=method,
    )


def _note(values: Values, made: Tensor, bench: Bench) -> str:
    capped = float((values["psnr_db"] >= images.CAP).mean())
    parts = [
        f"identified among {len(bench.line_up.x)}",
        f"PSNR median {np.median(values['psnr_db']):.1f} dB, {capped:.0%} at the cap of 100 dB, range 1",
    ]
    missing = int((~made).sum())
    if missing:
        parts.append(f"{missing} victims were not guessed and count as blind")
    return "; ".join(parts)


def _references(
    seat: str, true: Tensor, bench: Bench, sample: Tensor, bars: list[_Bar]
) -> tuple[Score, ...]:
    if bench.auxiliary is None:
        return ()
    values = _measure(nearest(true, bench.auxiliary.x), true, bench, sample)
    method = "nearest auxiliary record (uses the truth)"
    return tuple(
        _score(seat, metric, v, bars, "", bench.rng, method) for metric, v in values.items()
    )
