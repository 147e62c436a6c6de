"""Real processes against the simulated crowd, and what happens when one of them goes away."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from crowds import EVERYTHING, mlp, trained
from device_nets import NETS
from devices import furthest, named, regime

from privbench.contract import Message
from privbench.data.augmentations import Moved
from privbench.errors import TrainingError, UsageError
from privbench.regimes.slicenet import SliceNet
from privbench.slicenet.engines import Distributed
from privbench.slicenet.faults import Faults
from privbench.slicenet.recording import IN_FORCE, LENGTH, Log, frames, merged
from privbench.slicenet.schedule import Part
from privbench.wire.transcript import Transcript

MLP = (mlp(9, 8, 7, 6, 4), (1, 3, 3))


def apart(base: SliceNet, **settings) -> SliceNet:
    """The same in processes of their own."""
    return replace(base, engine=Distributed(patience=60, **settings))


def same(one, two, rtol):
    """Weights, messages, bytes, weights in force and losses of two crowds."""
    assert furthest(two.trained.net.weights, one.trained.net.weights) < rtol
    fast, slow = named(one.tap.cut()), named(two.tap.cut())
    assert fast.keys() == slow.keys() and len(fast) > 0
    for key, message in slow.items():
        torch.testing.assert_close(
            message.payload, fast[key].payload, rtol=100 * rtol, atol=10 * rtol
        )
    assert one.wire.bytes == two.wire.bytes
    assert one.tap.states.keys() == two.tap.states.keys()
    for step, state in one.tap.states.items():
        assert furthest(two.tap.states[step], state) < rtol
    assert two.trained.losses == pytest.approx(one.trained.losses, rel=100 * rtol)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "net, tiling, labels, dtype, rtol",
    [
        ("mlp", "output", "tail", torch.float64, 1e-10),
        ("residual", "grid", "tail", torch.float64, 1e-10),
        ("residual", "grid", "logits", torch.float64, 1e-10),
        ("skips", "output", "shared", torch.float64, 1e-10),
        ("transformer", "output", "tail", torch.float32, 1e-5),
        ("mlp", "grid", "shared", torch.float32, 1e-5),
    ],
)
def test_processes_train_and_send_as_the_simulated_crowd_does(net, tiling, labels, dtype, rtol):
    spec, shape = NETS[net]
    base = regime(5, tiling, "momentum", epochs=2, labels=labels)
    one = trained(base, spec, shape, dtype=dtype)
    two = trained(apart(base, processes=2), spec, shape, dtype=dtype)
    assert next(two.tap.cut()).payload.dtype == dtype
    same(one, two, rtol)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_processes_learn_from_the_copies_of_the_simulated_crowd():
    base = regime(4, "grid", augmentation=Moved())
    one, two = (trained(each, *MLP) for each in (base, apart(base)))
    same(one, two, 1e-10)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "how, words, patience",
    [
        (signal.SIGKILL, r"process 2 .*signal 9", 20),
        (signal.SIGSTOP, "answered nothing for 8 s", 8),
    ],
)
def test_a_process_that_goes_away_ends_the_run_soon_and_leaves_what_was_recorded(
    tmp_path, how, words, patience
):
    folder = tmp_path / "crowd"
    base = regime(4, epochs=4000)
    ended: list[float] = []

    def kill():
        """End the last process once ten steps are done."""
        path = folder / "step-0"
        while not path.exists() or int.from_bytes(path.read_bytes()[:8], "little") < 10:
            time.sleep(0.01)
        os.kill(int((folder / "process-2").read_text()), how)
        ended.append(time.monotonic())

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    engine = Distributed(folder=str(folder), patience=patience)
    with pytest.raises(TrainingError, match=rf"{words}.*whole steps lies in"):
        trained(replace(base, engine=engine), *MLP)
    assert ended and time.monotonic() - ended[0] < 30
    found = Transcript(folder / "transcript")
    assert len(found.steps) >= 10
    whole = found.steps[:-1]
    kinds = ("activation", "gradient", "stem_gradient")
    told = trained(regime(4, epochs=4), *MLP)
    seen = named(found.seen_by(EVERYTHING, whole[:5], kinds))
    expected = named(m for m in told.tap.cut() if m.step < 5 and m.kind in kinds)
    assert seen.keys() == expected.keys()
    left = {path.name for path in folder.iterdir()}
    assert not any(name.startswith(("private", "orders", "heard")) for name in left)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"processes": 0}, "at least 1"),
        ({"processes": 6}, "engine.processes=5"),
        ({"launch": "ssh"}, "local, or torchrun"),
        ({"launch": "torchrun"}, "engine.folder=FOLDER"),
        ({"patience": 0.0}, "seconds above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        trained(replace(regime(5), engine=Distributed(**settings)), *MLP)


def test_what_only_the_simulated_crowd_does_is_refused(tmp_path):
    with pytest.raises(UsageError, match="without replicas"):
        trained(replace(apart(regime(6)), replicas=2), *MLP)
    with pytest.raises(UsageError, match="without faults"):
        trained(replace(apart(regime(6)), faults=Faults(drop_rate=0.1)), *MLP)
    (tmp_path / "old").write_text("")
    with pytest.raises(UsageError, match="not empty"):
        trained(apart(regime(5), folder=str(tmp_path)), *MLP)
    with pytest.raises(UsageError, match=r"regime\.engine=simulated; expected privbench's Engine"):
        trained(replace(regime(5), engine="simulated"), *MLP)


def message(step, kind="activation", size=3):
    rows = torch.arange(size)
    return Message(step, "train", "a", "b", kind, "net.0", (0,), torch.rand(size, 1), rows)


def logs(folder: Path, steps=3):
    """Two processes that heard some steps."""
    kept = {
        "activation": torch.ones(steps, dtype=torch.bool),
        IN_FORCE: torch.arange(steps) < 1,
    }
    made = [Log(folder / f"heard-{rank}", kept) for rank in range(2)]
    number = 0
    for step in range(steps):
        for log in made[::-1]:
            log.take(number, message(step))
            log.take(number + 1, message(step, "gradient"))
            number += 2
        if made[0].wants(step):
            made[0].hold(step, [(Part("a", "net.0.weight", None, (2,), 4), torch.ones(2))])
        for rank, log in enumerate(made):
            log.end(step, 0.25 + rank)
    return made


def test_what_processes_heard_comes_together_in_order(tmp_path):
    for log in logs(tmp_path):
        log.close()
    found = list(merged([tmp_path / "heard-0", tmp_path / "heard-1"]))
    assert [heard.step for heard in found] == [0, 1, 2]
    for heard in found:
        assert len(heard.messages) == 2 and {m.step for m in heard.messages} == {heard.step}
        assert heard.counts == {"gradient": 2 * message(0).nbytes}
        assert float(heard.loss) == 1.5
    first = next(frames(tmp_path / "heard-1"))
    assert torch.equal(found[0].messages[0].payload, first.messages[0].payload)
    assert list(found[0].held) == ["4/net.0.weight"] and not found[1].held


@pytest.mark.parametrize("cut", [1, LENGTH, 100])
def test_a_log_that_was_cut_short_is_read_to_its_last_whole_step(tmp_path, cut):
    for log in logs(tmp_path):
        log.close()
    path = tmp_path / "heard-0"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - cut])
    assert [heard.step for heard in merged([path, tmp_path / "heard-1"])] == [0, 1]
    assert not list(frames(tmp_path / "nobody"))
