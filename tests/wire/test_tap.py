"""What a recorder writes, when, and what happens if it cannot."""

import threading

import pytest
import torch

from privbench.contract import Message, Net, Spec, Topology
from privbench.errors import StorageError
from privbench.wire import codec
from privbench.wire.capture import Capture
from privbench.wire.router import Direct
from privbench.wire.tap import OWNERS, WAITING, Recorder
from privbench.wire.transcript import Transcript

NET = Net(Spec("privbench.models.mlp.Mlp", {"widths": [2, 2]}))


def topology(steps):
    return Topology("fedavg", ("a", "b"), ("a", "b"), NET, steps, 10)


def message(step, size=4):
    payload = torch.full((2, size), float(step))
    return Message(step, "train", "a", "b", "activation", "one", None, payload, torch.arange(2))


def recorder(folder, steps, **how):
    made = Recorder(folder, Capture(first=2, last=False), **how)
    made.open(topology(steps), Direct())
    return made


def test_everything_is_there_in_order_however_many_files_it_took(tmp_path):
    steps = OWNERS + 50
    tap = recorder(tmp_path, steps, chunk_bytes=1000)
    for step in range(steps):
        tap.begin(step, torch.tensor([step % 2, 0]))
        tap.hold(step, {"w": torch.tensor([float(step)])})
        tap.take(message(step))
    tap.close()
    found = Transcript(tmp_path)
    assert [m.step for m in found.messages] == list(range(steps)) == list(found.steps)
    assert all(float(m.payload[0, 0]) == m.step for m in found.messages)
    assert [found.owners[step].tolist() for step in range(steps)] == [
        [step % 2, 0] for step in range(steps)
    ]
    assert found.steps_with_state == (0, 1)
    assert float(found.state(1)["w"]) == 1 and found.state(2) is None


def test_parameters_are_kept_as_they_were(tmp_path):
    tap, weight = recorder(tmp_path, 3), torch.zeros(5)
    for step in range(2):
        tap.begin(step, torch.tensor([0, 0]))
        tap.hold(step, {"w": weight})
        weight += 1
    tap.close()
    assert [float(Transcript(tmp_path).state(step)["w"][0]) for step in range(2)] == [0, 1]


def test_what_is_lent_is_kept_once_and_no_seat_is_given_it(tmp_path):
    tap, weight = recorder(tmp_path, 4), torch.zeros(1)
    for step in range(4):
        tap.begin(step, torch.tensor([0, 0]))
        tap.hold(step, {"w": weight})
        tap.lend(step, {"w": weight})
        tap.take(message(step))
        tap.give_back()
        weight += 1
    tap.close()
    assert sorted(f.name for f in tmp_path.glob("lent-*")) == ["lent-2", "lent-3"]
    assert float(codec.load(tmp_path / "lent-3")["w"]) == 3
    assert Transcript(tmp_path).steps_with_state == (0, 1)


def test_a_disk_that_fails_is_told_of(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    tap = recorder(folder, 5, chunk_bytes=1)
    (folder / "parties").unlink()
    folder.rmdir()
    with pytest.raises(StorageError, match="cannot write"):
        for step in range(5):
            tap.take(message(step))
        tap.close()


def test_no_more_than_a_few_files_wait_for_a_slow_disk(tmp_path, monkeypatch):
    tap = recorder(tmp_path, 20, chunk_bytes=1)
    gate, written = threading.Semaphore(0), []

    def slow(what, path):
        assert gate.acquire(timeout=30)
        written.append(path.name)

    monkeypatch.setattr(codec, "save", slow)
    started, ended = threading.Event(), threading.Event()

    def train():
        for step in range(WAITING + 1):
            tap.take(message(step))
            if step == WAITING - 1:
                started.set()
        ended.set()

    thread = threading.Thread(target=train)
    thread.start()
    assert started.wait(30) and not ended.wait(0.2)  # one too many: training waits
    gate.release()
    assert ended.wait(30)
    for _ in range(20):
        gate.release()
    thread.join()
    tap.close()
    assert written[: WAITING + 1] == [f"chunk-{n:05d}" for n in range(WAITING + 1)]
