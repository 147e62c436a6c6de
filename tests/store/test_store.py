"""Entries are whole or absent, made once, and say so when they are damaged."""

from __future__ import annotations

import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from privbench.contract import Budget, Spec
from privbench.errors import PluginError, StorageError, UnknownName, UsageError
from privbench.store import MANIFEST, Store, digest_of_rooms, digest_of_source, fingerprint


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "weights").write_bytes(b"w" * 100)


def names(store: Store, kind: str = "targets") -> list[str]:
    return sorted(p.name for p in (store.root / kind).iterdir() if p.name != ".locks")


def test_made_once_then_got(store: Store) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        put(folder)

    first = store.get_or_make("targets", "abc", make)
    assert store.get_or_make("targets", "abc", make) == first == store.folder("targets", "abc")
    assert len(made) == 1 and (first / "deep" / "weights").read_bytes() == b"w" * 100
    assert store.has("targets", "abc") and not store.has("fits", "abc")
    store.get_or_make("targets", "abc", make, again=True)
    assert len(made) == 2 and names(store) == ["abc"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_an_interrupted_make_leaves_no_entry(store: Store, error: BaseException) -> None:
    def make(folder: Path) -> None:
        put(folder)
        raise error

    with pytest.raises(type(error)):
        store.get_or_make("targets", "abc", make)
    assert names(store) == []
    place = store.get_or_make("targets", "abc", put)
    with pytest.raises(type(error)):
        store.get_or_make("targets", "abc", make, again=True)
    assert store.get_or_make("targets", "abc", make) == place, "the old one is still there"


def test_what_a_killed_maker_left_is_cleaned_up(store: Store) -> None:
    store.get_or_make("targets", "other", put)
    (store.root / "targets" / ".abc.dead").mkdir()
    store.get_or_make("targets", "abc", put)
    assert names(store) == ["abc", "other"]


def test_a_truncated_file_is_named_with_what_to_type(store: Store) -> None:
    place = store.get_or_make("targets", "abc", put)
    store.get_or_make("targets", "other", put)
    (place / "deep" / "weights").write_bytes(b"w" * 60)
    with pytest.raises(StorageError, match=r"weights.*60 bytes, expected 100; type: rm -r '.*abc'"):
        store.get_or_make("targets", "abc", put)
    (place / "deep" / "weights").write_bytes(b"w" * 99 + b"v")
    with pytest.raises(StorageError, match="was changed"):
        store.get_or_make("targets", "abc", put)
    (place / "deep" / "weights").unlink()
    with pytest.raises(StorageError, match="missing"):
        store.get_or_make("targets", "abc", put)
    (place / MANIFEST).write_text("{")
    with pytest.raises(StorageError, match=MANIFEST):
        store.get_or_make("targets", "abc", put)
    assert store.get_or_make("targets", "other", put), "nothing else is lost"


def test_the_end_of_a_large_file_is_looked_at(store: Store) -> None:
    def make(folder: Path) -> None:
        (folder / "large").write_bytes(bytes(3 << 20))

    place = store.get_or_make("fits", "abc", make)
    with (place / "large").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    with pytest.raises(StorageError, match="was changed"):
        store.get_or_make("fits", "abc", make)


def test_a_full_or_unwritable_folder_is_told(store: Store, tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def reads_elsewhere(folder: Path) -> None:
        (tmp_path / "absent.npz").read_bytes()

    with pytest.raises(StorageError, match=r"No space left.*out=FOLDER"):
        store.get_or_make("targets", "abc", full)
    with pytest.raises(FileNotFoundError):
        store.get_or_make("targets", "abc", reads_elsewhere)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="out=FOLDER"):
        Store(tmp_path / "file" / "below").get_or_make("targets", "abc", put)
    with pytest.raises(UsageError, match="targets, fits, evaluators, runs"):
        store.folder("target", "abc")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_processes_make_it_once(store: Store, tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        with (tmp_path / "makers").open("a") as file:
            file.write("x")
        time.sleep(0.1)
        put(folder)

    workers = []
    for _ in range(3):
        pid = os.fork()
        if not pid:
            place = Store(store.root).get_or_make("fits", "abc", make)
            os._exit(0 if (place / "deep" / "weights").exists() else 1)
        workers.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in workers] == [0, 0, 0]
    assert (tmp_path / "makers").read_text() == "x"


def test_threads_of_one_process_make_it_once(store: Store) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        put(folder)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: store.get_or_make("runs", "abc", make), range(8)))
    assert len(made) == 1


def test_a_fingerprint_depends_on_everything_but_the_order_of_keys() -> None:
    one = fingerprint(Spec("a.B", {"x": 1, "y": (2.0, None)}), torch.ones(3), Budget())
    assert one == fingerprint(Spec("a.B", {"y": (2.0, None), "x": 1}), torch.ones(3), Budget())
    assert len(one) == 16 and int(one, 16) >= 0
    others = {
        fingerprint(*parts)
        for parts in (
            (Spec("a.B", {"x": 1, "y": (2, None)}), torch.ones(3), Budget()),
            (Spec("a.C", {"x": 1, "y": (2.0, None)}), torch.ones(3), Budget()),
            (Spec("a.B", {"x": 1, "y": (2.0, None)}), torch.ones(3).double(), Budget()),
            (Spec("a.B", {"x": 1, "y": (2.0, None)}), torch.ones(3), Budget(shadow_models=8)),
            (Spec("a.B", {"x": 1, "y": (2.0, None)}), torch.ones(3, 1), Budget()),
            (Spec("a.B", {"x": 1, "y": (2.0, None)}), torch.ones(3)),
        )
    }
    assert len(others | {one}) == 7
    with pytest.raises(PluginError):
        fingerprint(object())


def test_a_digest_follows_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine_for_digest.py").write_text("class Net:\n    pass\n")
    import mine_for_digest

    first = digest_of_source(mine_for_digest.Net)
    assert first == digest_of_source("mine_for_digest.Net") == digest_of_source(mine_for_digest.Net)
    (tmp_path / "mine_for_digest.py").write_text("class Net:\n    depth = 2\n")
    assert digest_of_source("mine_for_digest.Net") != first
    with pytest.raises(PluginError, match="cannot import"):
        digest_of_source("nowhere.Net")
    with pytest.raises(PluginError, match="no source"):
        digest_of_source(len)


def test_a_digest_of_rooms_covers_each_of_them() -> None:
    both = digest_of_rooms("contract", "wire")
    assert both == digest_of_rooms("wire", "contract") != digest_of_rooms("wire")
    assert digest_of_rooms("store") != digest_of_rooms("errors"), "a room may be one file"
    with pytest.raises(UnknownName, match=r"no room 'wires'; it has .*wire"):
        digest_of_rooms("wires")
