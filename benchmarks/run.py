"""Measure what privbench promises: ``make bench``, or ``python benchmarks/run.py [names …]``.

Writes results.json and results.md beside this file and prints the table. With names, only those are
measured; the others keep what was found earlier, with its date. A figure that is missed says so, and
a measurement that breaks is a row that says how. Exit code 0 = all promises kept, 1 = not, 2 = an
unknown name.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import compare
import decoder
import engine
import gradients
import inversion
import membership
import pages
import scoring
import seal
import shadows
import slicing
from figure import Circumstances, Figure, Group, Measurement

HERE = Path(__file__).resolve().parent
FORMAT = 1
"""Version of results.json."""


def measurements(folder: Path) -> tuple[Measurement, ...]:
    """All there are, in the table's order.

    Args:
        folder: empty; what is launched runs and writes in it.
    """
    whole = compare.Comparison(folder)
    shown = pages.Pages(whole, folder)
    return (
        Measurement(
            name="cold", what="`privbench` cold", asked="under 150 s, under 3 GiB", run=whole.cold
        ),
        Measurement(
            name="again", what="`privbench again=true`", asked="under 30 s", run=whole.again
        ),
        Measurement(
            name="help",
            what="`privbench --help`",
            asked="under 1 s, no torch",
            run=lambda: compare.help_text(folder),
        ),
        Measurement(
            name="seal",
            what="sealed against inline, view of 50 MB",
            asked="under 0.3 s more",
            run=seal_figures,
        ),
        Measurement(
            name="shadows",
            what="shadow models, together or side by side, against one after another",
            asked="at least 5 times faster, aim 8; convolutions never slower, 1.7 times on two cores",
            run=shadows.figures,
        ),
        Measurement(
            name="scoring",
            what="likelihood ratios of 60,000 records against 256 shadow models",
            asked="under 2 s",
            run=scoring.figures,
        ),
        Measurement(
            name="membership",
            what="membership on the bench configuration",
            asked="mean AUC at least 0.600, mean TPR at 1 % FPR at least 5.5 %",
            run=membership_figures,
        ),
        Measurement(
            name="page",
            what="`privbench report` over the compare study",
            asked="under 3 s, page under 3 MiB",
            run=shown.page,
        ),
        Measurement(
            name="many",
            what="`privbench report` over 5,000 stored runs",
            asked="under 5 s, page under 10 MiB",
            run=shown.many,
        ),
        Measurement(
            name="dashboard",
            what="`sink=wandb` on the compare study",
            asked="under 5 % more",
            run=shown.dashboard,
        ),
        Measurement(
            name="inversion",
            what="activation_inversion, 16 images together, 300 steps, against a plain loop",
            asked="at most 1.00 of its time",
            run=inversion_figures,
        ),
        Measurement(
            name="slicing-optimum",
            what="hypergraph over the proven optimum",
            asked="median within 2 %, worst within 10 %",
            run=slicing.optimum,
        ),
        Measurement(
            name="slicing-volume",
            what="hypergraph against METIS, layerwise and Mt-KaHyPar",
            asked="at least 15 % less on average, never more; at most 1.05",
            run=slicing.baselines,
        ),
        Measurement(
            name="slicing-alexnet",
            what="slicers on the AlexNet-style network",
            asked="at most the best of the others",
            run=slicing.table,
        ),
        Measurement(
            name="slicing-speed",
            what="slicing for 1,000 devices; 20,000 vertices",
            asked="under 10 s; under 60 s",
            run=slicing.speed,
        ),
        Measurement(
            name="engine",
            what="simulated step of the AlexNet-style network against plain PyTorch's",
            asked="at most 1.10; 1.25 recorded; flat in devices within 15 %",
            run=lambda: engine.steps(folder),
        ),
        Measurement(
            name="engine-memory",
            what="memory of a recorded run, 10 times longer",
            asked="flat within 10 %",
            run=lambda: engine.longer(folder),
        ),
        Measurement(
            name="decoder",
            what="ridge_decoder for every one of 100 hosts",
            asked="under 5 s together",
            run=lambda: decoder.hosts(folder),
        ),
        Measurement(
            name="gradients",
            what="gradient_inversion of 64 victims together against one by one",
            asked="at least 3 times less per image; aim 5",
            run=gradients.figures,
        ),
        Measurement(
            name="coalitions",
            what="worst, median, best and the coalition curve of 1,000 devices",
            asked="under 10 minutes",
            run=lambda: decoder.curve(folder),
        ),
    )


def seal_figures() -> tuple[Figure, ...]:
    """What the seal adds to an attack."""
    cost = seal.measure()
    return (
        Figure(
            what=f"sealed against inline, view of {cost.megabytes:.0f} MB",
            asked=f"under {seal.LIMIT} s more",
            value=cost.more,
            unit="s",
            met=cost.kept,
            note=f"medians of {cost.runs}: {cost.sealed:.3f} s and {cost.inline:.3f} s",
            digits=3,
        ),
    )


def inversion_figures() -> tuple[Figure, ...]:
    """What inverting activations costs beside the loop that anyone would write."""
    return tuple(
        Figure(
            what=f"activation_inversion, {inversion.IMAGES} images together, {inversion.STEPS} steps, "
            f"{speed.cut}, against a plain loop",
            asked="at most 1.00 of its time",
            value=speed.ratio,
            met=speed.ratio <= 1,
            note=f"one thread, medians of {inversion.TURNS} turns: {speed.ours:.2f} s against "
            f"{speed.plain:.2f} s",
            digits=2,
        )
        for speed in inversion.measure()
    )


def membership_figures() -> tuple[Figure, ...]:
    """How strong the membership attack is, and the baseline beside it."""
    found = membership.measure()
    return (
        Figure(
            what="membership, bench configuration: mean AUC",
            asked="at least 0.600",
            value=found.auc,
            met=found.auc >= 0.6,
            note=f"{found.targets} targets, {found.shadow_models} shadow models each, standard "
            f"deviation over targets {found.auc_sd:.3f}",
            digits=4,
        ),
        Figure(
            what="membership, bench configuration: mean TPR at 1 % FPR",
            asked="at least 5.5 %",
            value=found.tpr_at_1pct_fpr,
            unit="%",
            met=found.tpr_at_1pct_fpr >= 0.055,
            digits=2,
        ),
        Figure(
            what="membership, bench configuration: AUC of the loss alone",
            asked="0.52 +- 0.01",
            value=found.loss_auc,
            met=abs(found.loss_auc - 0.52) <= 0.01,
            digits=4,
        ),
    )


def earlier(file: Path) -> dict[str, Group]:
    """Groups of an earlier results.json, by name; none where there is no such file.

    Raises:
        SystemExit: the file is damaged or of another format.
    """
    if not file.exists():
        return {}
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']}, expected {FORMAT}")
        return {group["name"]: _group(group) for group in facts["groups"]}
    except (ValueError, KeyError, TypeError) as cause:
        raise SystemExit(f"{file.name} is no whole list of results ({cause}): remove it") from cause


def _group(facts: Mapping[str, Any]) -> Group:
    return Group(
        name=facts["name"],
        circumstances=Circumstances(**facts["circumstances"]),
        figures=tuple(Figure(**figure) for figure in facts["figures"]),
    )


def save(groups: Sequence[Group], folder: Path) -> None:
    """Write results.json and results.md."""
    text = json.dumps({"format": FORMAT, "groups": [asdict(group) for group in groups]}, indent=1)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    (folder / "results.md").write_text(rendered(groups) + "\n", encoding="utf-8")


def rendered(groups: Sequence[Group]) -> str:
    """The table and where each group was measured, in Markdown that is legible as it is."""
    lines = [("figure", "asked", "measured", "met?", "note")]
    lines += [
        (figure.what, figure.asked, figure.words(), figure.verdict(), figure.note)
        for group in groups
        for figure in group.figures
    ]
    widths = [max(len(line[place]) for line in lines) for place in range(4)]
    text = []
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=False)]
        text.append("| " + " | ".join([*cells, line[-1].replace("|", "/")]) + " |")
    text.insert(1, "|" + "|".join(["---"] * len(lines[0])) + "|")
    return "\n".join([*text, "", *_where(groups)])


def _where(groups: Sequence[Group]) -> list[str]:
    """A line for all groups that were measured on the same machine with the same versions."""
    lines: dict[tuple[str, str], list[str]] = {}
    for group in groups:
        around = group.circumstances
        place = lines.setdefault((around.machine, around.versions), [])
        place.append(f"{group.name} ({around.date}, load before {around.load:.2f})")
    return [
        f"- {machine}; {versions}: {', '.join(names)}"
        for (machine, versions), names in lines.items()
    ]


def main(names: Sequence[str], folder: Path = HERE) -> int:
    """Measure, save after each, print.

    Args:
        names: of measurements; none = all.
        folder: where results.json and results.md lie.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as workspace:
        every = measurements(Path(workspace))
        order = [one.name for one in every]
        unknown = [name for name in names if name not in order]
        if unknown:
            print(f"unknown: {', '.join(unknown)}; there are: {', '.join(order)}", file=sys.stderr)
            return 2
        found = earlier(folder / "results.json")
        chosen = [one for one in every if one.name in (names or order)]
        for one in chosen:
            print(f"measuring {one.name} …", file=sys.stderr, flush=True)
            found[one.name] = one.group(f"python benchmarks/run.py {one.name}")
            save([found[name] for name in order if name in found], folder)
    groups = [found[name] for name in order if name in found]
    print(rendered(groups))
    return 0 if all(figure.met for group in groups for figure in group.figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
