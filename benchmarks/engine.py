"""What the simulated crowd costs beside plain training, whoever listens and however many devices.

``python benchmarks/engine.py``: the AlexNet-style network on random 3x32x32 images, batch 64, float32,
SGD, one thread. Steps are taken in turn, one of plain PyTorch, one of each crowd, and ratios are those
of neighbours, so that what else the machine does touches both alike; the median is reported, and
beside it the same of processor time, in which the thread that writes counts fully.

``python benchmarks/engine.py record STEPS FOLDER`` records a run, for its peak memory.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from figure import Figure
from launch import launch
from torch import Tensor
from torch.nn import functional as F

from privbench.contract import Net, Samples, Spec, Topology, child_rng
from privbench.models.alexnet import AlexNet
from privbench.regimes.slicenet import SliceNet
from privbench.slicenet.crowd import Device, Uniform
from privbench.slicenet.engine import Simulated
from privbench.slicenet.parcels import COORDINATOR, RELEASER
from privbench.slicenet.slicers.greedy import Greedy
from privbench.slicenet.tiles import slices_of, tiles_of
from privbench.slicenet.trace import trace
from privbench.wire.capture import Capture
from privbench.wire.tap import Recorder
from privbench.wire.wire import Wire

SHAPE, CLASSES, BATCH = (3, 32, 32), 10, 64
CROWDS = (10, 100, 1_000, 10_000)  # devices
REPEATS = 15  # steps of each, after one that is not timed
PLENTY = Device(compute=1e15, memory=1e15)  # nobody is refused: slicing is measured elsewhere
SHORT, TIMES, SMALL_BATCH = 10, 10, 16  # steps of the short recording, longer by, rows a step
EVERYTHING = Capture(first=10**9)


class Apart(Recorder):
    """Keeps every message, and of the weights in force only what messages are derived from."""

    def hold(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Weight snapshots are no messages."""


@dataclass(frozen=True)
class Ratio:
    """Of a crowd's step to a plain one."""

    wall: float  # median over pairs
    low: float  # first quartile
    high: float  # third quartile
    cpu: float  # of processor time, all threads
    seconds: float  # median of the plain step

    def words(self) -> str:
        """What else there is to know."""
        return (
            f"median of pairs, quartiles {self.low:.3f} to {self.high:.3f}; of processor time "
            f"{self.cpu:.3f}; plain step {self.seconds:.2f} s, one thread"
        )


@dataclass(frozen=True)
class Memory:
    """Peak memory of a recorded run and of one that is several times longer."""

    short: int  # bytes
    long: int  # bytes
    steps: int  # of the short one
    written: int  # bytes on disk by the long one

    @property
    def growth(self) -> float:
        """Share by which the longer one takes more."""
        return self.long / self.short - 1


def crowd(devices: int, wire: Wire, steps: int = 10**9, batch: int = BATCH) -> Simulated:
    """An engine with a freshly sliced network: blocks of 4 channels, smaller ones for large crowds.

    Above a thousand devices both axes of the weights are cut, into 16,192 blocks, so that most of
    them have one.
    """
    tiling, granularity = ("output", 4) if devices <= 100 else ("output", 1)
    if devices > 1_000:
        tiling, granularity = "grid", 8
    torch.manual_seed(0)
    module = AlexNet().train()
    regime = SliceNet(
        crowd=Uniform(devices=devices, device=PLENTY), tiling=tiling, granularity=granularity,
        batch=batch,
    )  # fmt: skip
    net = Net(Spec("privbench.models.alexnet.AlexNet", {}))
    graph = trace(module, SHAPE)
    problem = regime.problem(graph, regime.recipe(net, 2 * devices), [2] * devices)
    slices = slices_of(tiles_of(graph, tiling, granularity), Greedy().slice(problem))
    topology = Topology(
        "slicenet", (*problem.parties, COORDINATOR, RELEASER), problem.parties, net, steps, steps,
        layers=graph.layers, slices=slices,
    )  # fmt: skip
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    return Simulated(module, graph, topology, wire, optimizer, "cross_entropy", 0)


def samples(batch: int = BATCH) -> Samples:
    """Random images and labels."""
    rng = torch.Generator().manual_seed(1)
    x = torch.rand(batch, *SHAPE, generator=rng)
    return Samples(x, torch.randint(0, CLASSES, (batch,), generator=rng))


def owners(devices: int, step: int, batch: int = BATCH) -> Tensor:
    """Whose rows a step's batch has."""
    rng = child_rng(torch.Generator().manual_seed(2), "owners", step)
    return torch.randint(0, devices, (batch,), generator=rng)


def ratios(
    crowds: Mapping[str, tuple[int, Wire]], repeats: int = REPEATS, batch: int = BATCH
) -> dict[str, Ratio]:
    """Steps of each crowd in turn with plain ones.

    Args:
        crowds: by name, devices and who listens.
    """
    torch.set_num_threads(1)
    data = samples(batch)
    engines = {name: (d, crowd(d, wire, batch=batch)) for name, (d, wire) in crowds.items()}
    torch.manual_seed(0)
    module = AlexNet().train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)

    def plain() -> None:
        F.cross_entropy(module(data.x), data.y).backward()
        optimizer.step()
        optimizer.zero_grad()

    plain()
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in engines}
    for step in range(repeats + 1):
        for name, (devices, engine) in engines.items():
            whose = owners(devices, step, batch)
            seconds, cpu = timed(plain)
            taken = timed(lambda e=engine, w=whose, s=step: e.step(s, data, w))
            if step:  # in the first, slices are handed out
                found[name].append((taken[0] / seconds, taken[1] / cpu, seconds))
    return {name: _ratio(pairs) for name, pairs in found.items()}


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of processor time in all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def _ratio(pairs: Sequence[tuple[float, float, float]]) -> Ratio:
    wall, cpu, seconds = zip(*pairs, strict=True)
    low, middle, high = statistics.quantiles(wall, n=4)
    return Ratio(middle, low, high, statistics.median(cpu), statistics.median(seconds))


def listened(
    folder: Path, devices: int = 100, repeats: int = REPEATS, batch: int = BATCH
) -> dict[str, Ratio]:
    """No tap, every message recorded, and every message and the weights of every step.

    Args:
        folder: where there is room for some gigabytes; what is written is deleted.
    """
    folders = [folder / name for name in ("apart", "all")]
    for each in folders:
        each.mkdir()
    taps = (Apart(folders[0], EVERYTHING), Recorder(folders[1], EVERYTHING))
    _warm(folder, repeats * batch * 2 * 1_200_000)
    found = ratios(
        {
            "no tap": (devices, Wire()),
            "messages": (devices, Wire(taps[:1])),
            "messages and weights": (devices, Wire(taps[1:])),
        },
        repeats,
        batch,
    )
    for tap in taps:
        tap.close()
    for each in folders:
        shutil.rmtree(each)
    return found


def _warm(folder: Path, nbytes: int) -> None:
    """Have the system find memory for files: a virtual machine takes ten times longer at first."""
    block = bytes(1 << 20)
    with (folder / "warm").open("wb") as file:
        for _ in range(nbytes >> 20):
            file.write(block)
    (folder / "warm").unlink()


def sized(
    crowds: Sequence[int] = CROWDS, repeats: int = REPEATS, batch: int = BATCH
) -> dict[int, Ratio]:
    """Crowds of several sizes, to which nobody listens."""
    found = ratios({str(devices): (devices, Wire()) for devices in crowds}, repeats, batch)
    return {int(name): ratio for name, ratio in found.items()}


def spread(found: Mapping[int, Ratio]) -> float:
    """How much the dearest crowd size costs more than the cheapest."""
    walls = [ratio.wall for ratio in found.values()]
    return max(walls) / min(walls) - 1


def record(steps: int, folder: Path, devices: int = 100, batch: int = SMALL_BATCH) -> None:
    """A run of which everything is recorded, the weights of every step included."""
    torch.set_num_threads(1)
    tap = Recorder(folder, EVERYTHING)
    engine, data = crowd(devices, Wire((tap,)), steps, batch), samples(batch)
    for step in range(steps):
        engine.step(step, data, owners(devices, step, batch))
    tap.close()


def memory(folder: Path, steps: int = SHORT, times: int = TIMES) -> Memory:
    """Peak memory of whole processes that record."""
    peaks, written = [], 0
    for length in (steps, steps * times):
        place = folder / str(length)
        place.mkdir()
        words = [sys.executable, str(Path(__file__).resolve()), "record", str(length), str(place)]
        peaks.append(launch(words, folder).largest)
        written = sum(file.stat().st_size for file in place.iterdir())
        shutil.rmtree(place)
    return Memory(peaks[0], peaks[1], steps, written)


def steps(folder: Path) -> tuple[Figure, ...]:
    """What the simulated crowd costs beside plain training."""
    heard, unheard = listened(folder), sized()
    limits = {"no tap": 1.10, "messages": 1.25, "messages and weights": None}
    words = {
        "no tap": "no tap",
        "messages": "every message recorded, weight snapshots apart",
        "messages and weights": "every message and every step's weights recorded",
    }
    rows = [
        Figure(
            what=f"simulated step, 100 devices, {words[name]}",
            asked=f"at most {limit:.2f} times plain PyTorch" if limit else "(no promise)",
            value=heard[name].wall,
            unit="times",
            met=limit is None or heard[name].wall <= limit,
            note=heard[name].words(),
            digits=3,
        )
        for name, limit in limits.items()
    ]
    flat = Figure(
        what="the same with no tap, from 10 to 10,000 devices",
        asked="flat within 15 %",
        value=spread(unheard),
        unit="%",
        met=spread(unheard) <= 0.15,
        note=", ".join(f"{devices:,}: {ratio.wall:.3f}" for devices, ratio in unheard.items()),
    )
    return (*rows, flat)


def longer(folder: Path) -> tuple[Figure, ...]:
    """Whether recording more takes more memory."""
    found = memory(folder)
    return (
        Figure(
            what=f"memory of a run that records everything, {TIMES} times longer",
            asked="flat within 10 %",
            value=found.growth,
            unit="%",
            met=found.growth <= 0.10,
            note=f"{found.short >> 20} MiB for {found.steps} steps, {found.long >> 20} MiB for "
            f"{found.steps * TIMES}, which wrote {found.written / 2**30:.1f} GiB",
        ),
    )


def main() -> None:
    """Measure all of it and print."""
    with tempfile.TemporaryDirectory(prefix="engine-") as workspace:
        for found in (steps, longer):
            for figure in found(Path(workspace)):
                print(
                    f"{figure.what}: {figure.words()} ({figure.asked}); {figure.note}", flush=True
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["record"]:
        record(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
