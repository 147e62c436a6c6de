"""Sets read from files below data.root: what they hold, and every way in which the files can be wrong."""

import lzma
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from privbench.data.adult import Adult
from privbench.data.cifar10 import Cifar10
from privbench.data.location30 import Location30
from privbench.data.mnist import EmnistLetters, FashionMnist, Mnist
from privbench.data.orl import Orl
from privbench.data.source import digest
from privbench.data.splits import open_population
from privbench.errors import DataError

from .conftest import PEOPLE, TESTED, images, labels, write_idx, write_tar

SETS = (Mnist, FashionMnist, Cifar10, EmnistLetters, Orl, Adult, Location30)


@pytest.mark.parametrize("kind", SETS)
def test_what_is_not_there_names_the_folder_and_the_ways_out(kind, tmp_path):
    with pytest.raises(DataError, match=r"data\.root is not set; type data\.root=FOLDER") as bare:
        kind().load()
    assert kind.folders[0] in str(bare.value)
    assert ("data.download=true" in str(bare.value)) == hasattr(kind, "download")
    with pytest.raises(DataError, match=f"no folder '{kind.folders[0]}'"):
        kind(root=str(tmp_path)).load()
    with pytest.raises(DataError, match="there is no folder"):
        kind(root=str(tmp_path / "gone")).load()
    (tmp_path / kind.folders[0]).mkdir()
    with pytest.raises(DataError, match=r"it holds nothing|holds neither"):
        kind(root=str(tmp_path)).load()


def test_idx_files_are_read_and_make_an_official_split(mnist):
    records = Mnist(root=str(mnist)).load()
    assert records.samples.x.shape == (60, 1, 6, 5)
    np.testing.assert_array_equal(
        (records.samples.x[:40, 0] * 255).round().numpy(), images(40, (6, 5))
    )
    assert records.parts.tolist() == [0] * 40 + [1] * 20
    opened = open_population(Mnist(root=str(mnist), split="official"), 0)
    assert opened.sizes == {"members": 40, "non-members": 20, "auxiliary": 20}
    assert open_population(Mnist(root=str(mnist), split="halves"), 0).sizes["members"] == 30


def test_plain_packed_and_torchvisions_layout_are_one(mnist, tmp_path):
    first = digest(Mnist(root=str(mnist)).load())
    for number, pack in enumerate((lzma.compress, bytes)):
        other = tmp_path / str(number)
        write_idx(other / "MNIST" / "raw", "train", images(40, (6, 5)), labels(40, 10), pack)
        write_idx(other / "MNIST" / "raw", "t10k", images(20, (6, 5), 1), labels(20, 10), pack)
        assert digest(Mnist(root=str(other)).load()) == first


def test_a_changed_file_is_read_again(mnist):
    before = digest(Mnist(root=str(mnist)).load())
    write_idx(mnist / "mnist", "t10k", images(20, (6, 5), 7), labels(20, 10))
    assert digest(Mnist(root=str(mnist)).load()) != before


def cut(file):
    file.write_bytes(file.read_bytes()[:-20])


def garble(file):
    file.write_bytes(b"\x1f\x8b\x08 nothing at all")


SPOILT = {
    "missing": (
        "t10k-labels-idx1-ubyte.gz",
        lambda f: f.unlink(),
        "no file t10k-labels-idx1-ubyte",
    ),
    "cut": ("train-images-idx3-ubyte.gz", cut, "cannot be read .* damaged or cut short"),
    "garbled": ("train-images-idx3-ubyte.gz", garble, "cannot be read"),
    "empty": ("train-images-idx3-ubyte.gz", lambda f: f.write_bytes(b""), "too few for IDX"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_idx_files(name, mnist):
    file, spoil, words = SPOILT[name]
    spoil(mnist / "mnist" / file)
    with pytest.raises(DataError, match=words):
        Mnist(root=str(mnist)).load()


def test_idx_files_that_do_not_fit(mnist):
    folder = mnist / "mnist"
    write_idx(folder, "train", images(39, (6, 5)), labels(40, 10))
    with pytest.raises(DataError, match=r"39 images, .* 40 labels"):
        Mnist(root=str(mnist)).load()
    write_idx(folder, "train", images(40, (6, 5)), labels(40, 11))
    with pytest.raises(DataError, match="holds label 10; expected 0 to 9"):
        Mnist(root=str(mnist)).load()
    write_idx(folder, "train", images(40, (6, 6)), labels(40, 10))
    with pytest.raises(DataError, match="expected one shape"):
        Mnist(root=str(mnist)).load()
    shutil.copy(folder / "t10k-labels-idx1-ubyte.gz", folder / "t10k-images-idx3-ubyte.gz")
    with pytest.raises(DataError, match="begins with 2049; expected 2051"):
        Mnist(root=str(mnist)).load()
    for file in folder.glob("train-images*"):
        file.unlink()
    whole = b"\0\0\x08\x03" + b"\0\0\0\x02" * 3
    (folder / "train-images-idx3-ubyte").write_bytes(whole)
    with pytest.raises(DataError, match="announces 2 x 2 x 2 = 8 bytes and holds 0"):
        Mnist(root=str(mnist)).load()


def test_letters_stand_upright_and_count_from_0(tmp_path):
    folder = tmp_path / "emnist-letters"
    lying = images(52, (4, 4))
    write_idx(folder, "emnist-letters-test", lying, labels(52, 26, 1), lzma.compress)
    records = EmnistLetters(root=str(tmp_path)).load()
    assert records.parts is None
    assert records.samples.y.unique().tolist() == list(range(26))
    assert round(float(records.samples.x[0, 0, 1, 3]) * 255) == lying[0, 3, 1]
    with pytest.raises(DataError, match=r"data.split=official needs records"):
        open_population(EmnistLetters(root=str(tmp_path), split="official"), 0)
    write_idx(folder, "emnist-letters-train", images(78, (4, 4), 1), labels(78, 26, 1))
    assert EmnistLetters(root=str(tmp_path)).load().parts.bincount().tolist() == [78, 52]
    write_idx(folder, "emnist-letters-train", images(78, (4, 4), 1), labels(78, 26, 0))
    with pytest.raises(DataError, match="label 0; expected 1 to 26"):
        EmnistLetters(root=str(tmp_path)).load()


def write_cifar(folder, delta):
    """Two records a batch and 20 in the last, in one of two forms."""
    folder.mkdir(parents=True)
    batches = {f"data_batch_{n}": n for n in range(1, 6)} | {"test_batch": 0}
    kept = {}
    for name, seed in batches.items():
        x, y = images(20 if seed == 5 else 2, (3, 32, 32), seed), labels(20 if seed == 5 else 2, 10)
        kept[name] = y
        if delta:
            r = x.copy()
            r[:, 0] -= x[:, 1]
            r[:, 2] -= x[:, 1]
            r[..., 1:] = np.diff(r, axis=3)
            r[:, :, 1:] = np.diff(r, axis=2)
            with lzma.open(folder / f"{name}.delta.npy.xz", "wb") as file:
                np.save(file, r)
        else:
            rows = np.concatenate([y[:, None], x.reshape(len(x), -1)], axis=1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
    if delta:
        test = kept.pop("test_batch")
        np.savez(folder / "labels.npz", train=np.concatenate(list(kept.values())), test=test)


def test_both_forms_of_cifar_10_are_one(tmp_path):
    write_cifar(tmp_path / "a" / "cifar-10-batches-bin", delta=False)
    write_cifar(tmp_path / "b" / "cifar10", delta=True)
    first, second = (Cifar10(root=str(tmp_path / part)).load() for part in "ab")
    assert first.samples.x.shape == (30, 3, 32, 32)
    assert first.parts.bincount().tolist() == [28, 2]
    np.testing.assert_array_equal(
        (first.samples.x[0] * 255).round().numpy(), images(2, (3, 32, 32), 1)[0]
    )
    assert digest(first) == digest(second)


def test_spoilt_cifar_10(tmp_path):
    folder = tmp_path / "cifar10"
    write_cifar(folder, delta=False)
    (folder / "data_batch_3.bin").write_bytes(b"\x0a" + bytes(3072))
    with pytest.raises(DataError, match="labels other than 0 to 9"):
        Cifar10(root=str(tmp_path)).load()
    cut(folder / "data_batch_2.bin")
    with pytest.raises(DataError, match="expected a multiple of 3073"):
        Cifar10(root=str(tmp_path)).load()
    shutil.rmtree(folder)
    write_cifar(folder, delta=True)
    np.savez(folder / "labels.npz", train=np.zeros(27, int), test=np.zeros(2, int))
    with pytest.raises(DataError, match=r"28 training images and 'labels.npz' 27 labels"):
        Cifar10(root=str(tmp_path)).load()
    np.savez(folder / "labels.npz", train=np.array([{}]), test=np.zeros(2, int))
    with pytest.raises(DataError, match=r"labels\.npz' cannot be read .*allow_pickle=False"):
        Cifar10(root=str(tmp_path)).load()
    cut(folder / "test_batch.delta.npy.xz")
    np.savez(folder / "labels.npz", train=np.zeros(28, int), test=np.zeros(2, int))
    with pytest.raises(DataError, match=r"test_batch.* cannot be read"):
        Cifar10(root=str(tmp_path)).load()


def test_pickles_are_never_opened(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(DataError, match=r"pickles, .* get the binary version"):
        Cifar10(root=str(tmp_path)).load()


def write_faces(folder, people, size=(9, 7)):
    """Two photographs each, as the original has them."""
    for person in range(1, people + 1):
        (folder / f"s{person}").mkdir(parents=True)
        for shot in (1, 2):
            face = np.full(size, person * 10 + shot, np.uint8)
            Image.fromarray(face).save(folder / f"s{person}" / f"{shot}.pgm")


def test_faces_from_images_or_from_one_file(tmp_path):
    write_faces(tmp_path / "att_faces", 11)
    records = Orl(root=str(tmp_path)).load()
    assert records.samples.x.shape == (22, 1, 9, 7)
    assert records.samples.y[-1] == 10 and round(float(records.samples.x[-1, 0, 0, 0]) * 255) == 112
    stacked = (records.samples.x[:, 0] * 255).round().numpy().astype(np.uint8)
    (tmp_path / "orl-faces").mkdir()
    file = tmp_path / "orl-faces" / "orl_faces.npz"
    np.savez(file, images=stacked, subject=records.samples.y.numpy(), shot=np.ones(22))
    assert digest(Orl(root=str(tmp_path)).load()) == digest(records)
    np.savez(file, images=stacked)
    with pytest.raises(DataError, match="expected images, subject; it holds images"):
        Orl(root=str(tmp_path)).load()
    np.savez(file, images=stacked / 255, subject=records.samples.y.numpy())
    with pytest.raises(DataError, match=r"float.*expected uint8"):
        Orl(root=str(tmp_path)).load()
    cut(file)
    with pytest.raises(DataError, match="cannot be read"):
        Orl(root=str(tmp_path)).load()


def test_a_face_that_is_not_there(tmp_path):
    write_faces(tmp_path / "orl-faces", 2)
    for file in (tmp_path / "orl-faces" / "s2").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="s2' is empty"):
        Orl(root=str(tmp_path)).load()


@pytest.fixture
def census(tmp_path):
    """A root with 3 + 2 people."""
    (tmp_path / "adult").mkdir()
    (tmp_path / "adult" / "adult.data").write_text(PEOPLE)
    (tmp_path / "adult" / "adult.test.xz").write_bytes(lzma.compress(TESTED.encode()))
    return tmp_path


def test_people_become_108_features(census):
    records = Adult(root=str(census)).load()
    x = records.samples.x
    assert x.shape == (5, 108)
    assert records.samples.y.tolist() == [0, 1, 1, 0, 1]
    assert records.parts.tolist() == [0, 0, 0, 1, 1]
    assert torch.allclose(x[:, 0], (torch.tensor([39, 52, 54, 25, 44]) - 17) / 73)
    assert x[0, 1:10].tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0], (
        "State-gov is the sixth class of work"
    )
    assert x[2, 9] == 1, "not known is a word of its own"
    assert (x[:, 1:10].sum(dim=1) == 1).all()
    assert x[:, -42:].argmax(dim=1).tolist() == [0, 0, 10, 41, 0]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("39, State", "139, State", "age is 139 in record 1; expected 17 to 90"),
        ("39, State", "old, State", "age holds what is no number"),
        ("HS-grad", "School", "education is 'School' in record 2; expected one of Bachelors"),
        (", 40, United-States, >50K", "", "line 2 .* has 12 fields; expected 15"),
        ("<=50K", "50K", "income is '50K'"),
    ],
)
def test_spoilt_people(census, old, new, words):
    (census / "adult" / "adult.data").write_text(PEOPLE.replace(old, new, 1))
    with pytest.raises(DataError, match=words):
        Adult(root=str(census)).load()


def test_files_of_people_that_are_none(census):
    (census / "adult" / "adult.data").write_text("|nothing\n")
    with pytest.raises(DataError, match="holds no record"):
        Adult(root=str(census)).load()
    (census / "adult" / "adult.data").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="no plain text"):
        Adult(root=str(census)).load()


def visits(rows=60):
    """Lines as in the archive."""
    bits = np.random.default_rng(0).integers(0, 2, (rows, 446))
    return "".join(
        f'"{i % 30 + 1}",' + ",".join(map(str, row)) + "\n" for i, row in enumerate(bits)
    )


def test_visitors_from_the_archive_or_the_file(tmp_path):
    (tmp_path / "location30").mkdir()
    file = tmp_path / "location30" / "dataset_location.tgz"
    write_tar(file, "bangkok", visits().encode())
    records = Location30(root=str(tmp_path)).load()
    assert records.samples.x.shape == (60, 446) and records.parts is None
    assert records.samples.x.unique().tolist() == [0, 1]
    assert records.samples.y.tolist() == list(range(30)) * 2
    (tmp_path / "location30" / "bangkok").write_text(visits())
    assert digest(Location30(root=str(tmp_path)).load()) == digest(records)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda text: text.replace('"3"', '"31"', 1), "class 31 in line 3; expected 1 to 30"),
        (lambda text: text[:-9], "line 60 .* expected a class and 446 features"),
        (lambda text: text[:-2] + "2\n", "neither 0 nor 1 in line 60"),
        (lambda text: text[:-2] + "x\n", "no number"),
        (lambda text: "", "no record"),
    ],
)
def test_spoilt_visitors(tmp_path, spoil, words):
    (tmp_path / "location30").mkdir()
    (tmp_path / "location30" / "bangkok").write_text(spoil(visits()))
    with pytest.raises(DataError, match=words):
        Location30(root=str(tmp_path)).load()


def test_archives_that_are_none(tmp_path):
    (tmp_path / "location30").mkdir()
    file = tmp_path / "location30" / "dataset_location.tgz"
    write_tar(file, "paris", b"1")
    with pytest.raises(DataError, match="no archive with a file 'bangkok'"):
        Location30(root=str(tmp_path)).load()
    file.write_bytes(b"not a tar")
    with pytest.raises(DataError, match=r"\.tgz' cannot be read \(Not a gzipped file"):
        Location30(root=str(tmp_path)).load()
    write_tar(file, "bangkok", visits().encode())
    cut(file)
    with pytest.raises(DataError, match="cannot be read"):
        Location30(root=str(tmp_path)).load()
