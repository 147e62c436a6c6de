import numpy as np
import pytest
import torch
from PIL import Image

from privbench.data.images import Images
from privbench.data.splits import open_population
from privbench.errors import DataError

RED, GREEN = (255, 0, 0), (0, 255, 0)


def save(file, mode="RGB", colour=RED, size=(5, 4), **more):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(file, **more)


@pytest.fixture
def folder(tmp_path):
    """Three reds and two greens."""
    for number in range(3):
        save(tmp_path / "red" / f"{number}.png")
    for name in ("a.bmp", "b.ppm"):
        save(tmp_path / "green" / name, colour=GREEN)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "red" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "readme.txt").write_text("about")
    return tmp_path


def test_classes_are_sub_folders_in_the_order_of_their_names(folder):
    records = Images(path=str(folder)).load()
    assert records.samples.x.shape == (5, 3, 4, 5)
    assert records.samples.y.tolist() == [0, 0, 1, 1, 1]
    assert records.samples.x[0, :, 0, 0].tolist() == [0, 1, 0]
    assert records.samples.x[-1, :, 0, 0].tolist() == [1, 0, 0]
    assert records.parts is None


def test_grey_stays_grey_and_joins_colour(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / name / "1.png", "L", 51)
    save(tmp_path / "b" / "2.png", "1", 1)
    grey = Images(path=str(tmp_path)).load().samples.x
    assert grey.shape == (3, 1, 4, 5) and round(float(grey[0, 0, 0, 0]), 6) == 0.2
    save(tmp_path / "a" / "2.png", "RGBA", (*RED, 9))
    save(tmp_path / "b" / "3.png", "P", 0, transparency=b"\x00" * 256)
    both = Images(path=str(tmp_path)).load().samples.x
    assert both.shape == (5, 3, 4, 5)
    assert both[0, :, 0, 0].unique().tolist() == [pytest.approx(0.2)]
    assert both[1, :, 0, 0].tolist() == [1, 0, 0]


def test_photographs_stand_upright(tmp_path):
    """A phone stores them lying, and says so."""
    for name in ("a", "b"):
        image = Image.new("RGB", (6, 3), RED)
        image.getexif()[0x0112] = 6  # to be turned by 90 degrees
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "1.jpg", exif=image.getexif())
    assert Images(path=str(tmp_path)).load().samples.x.shape == (2, 3, 6, 3)


def test_train_and_test_make_an_official_split(folder, tmp_path):
    root = tmp_path / "whole"
    for part, count in (("train", 4), ("test", 2)):
        for name, colour in (("red", RED), ("green", GREEN)):
            for number in range(count):
                save(
                    root / part / name / f"{number}.png",
                    colour=(*colour[:2], 100 * (part == "test") + number),
                )
    opened = open_population(Images(path=str(root), split="official"), 0)
    assert opened.sizes == {"members": 8, "non-members": 4, "auxiliary": 4}
    save(root / "test" / "blue" / "1.png")
    with pytest.raises(DataError, match=r"hold different classes .blue."):
        Images(path=str(root)).load()


def test_of_a_number_of_records_those_alone_are_opened(tmp_path):
    """A large folder need not be decoded for a small run."""
    for name, colour in (("red", RED), ("green", GREEN)):
        for number in range(20):
            save(tmp_path / name / f"{number:02}.png", colour=(*colour[:2], number))
    few = Images(path=str(tmp_path), records=4).load().samples
    seen = {(float(x[0, 0, 0]), round(float(x[2, 0, 0]) * 255)) for x in few.x}
    for name, red in (("red", 1.0), ("green", 0.0)):
        for number in range(20):
            if (red, number) not in seen:
                (tmp_path / name / f"{number:02}.png").write_bytes(b"broken")
    assert torch.equal(Images(path=str(tmp_path), records=4).load().samples.x, few.x)


def test_unequal_sizes_are_refused_or_cut(folder):
    save(folder / "red" / "9.png", size=(9, 6))
    with pytest.raises(DataError, match=r"5 x 4 pixels.*9\.png' 9 x 6; type data\.size=32"):
        Images(path=str(folder)).load()
    assert Images(path=str(folder), size=3).load().samples.x.shape == (6, 3, 3, 3)
    with pytest.raises(DataError, match=r"data.size=-1"):
        Images(path=str(folder), size=-1).load()


def broken(folder):
    file = folder / "red" / "1.png"
    Image.effect_noise((40, 40), 90).save(file)
    file.write_bytes(file.read_bytes()[:600])


SPOILT = {
    "cut": (broken, r"1\.png' cannot be read"),
    "text": (lambda f: (f / "red" / "1.png").write_text("no"), r"1\.png' cannot be read"),
    "stranger": (
        lambda f: (f / "red" / "notes.txt").write_text(""),
        "'notes.txt', which is no image",
    ),
    "empty": (lambda f: (f / "blue").mkdir(), "class folder '.*blue' is empty"),
    "nested": (lambda f: (f / "red" / "more").mkdir(), "'more', which is no image"),
    "16 bits": (lambda f: save(f / "red" / "d.png", "I;16", 9), "expected 8 bits a channel"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_folders(name, folder):
    spoil, words = SPOILT[name]
    spoil(folder)
    with pytest.raises(DataError, match=words):
        Images(path=str(folder)).load()


def test_wrong_folders(folder):
    with pytest.raises(DataError, match=r"expected data\.path=FOLDER with one sub-folder a class"):
        Images(path=str(folder / "none")).load()
    with pytest.raises(DataError, match="has 0 sub-folders and 3 images"):
        Images(path=str(folder / "red")).load()


def test_pixels_are_scaled_as_bytes(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / name / "1.png", "L", 1)
        save(tmp_path / name / "2.png", "L", 255)
    x = Images(path=str(tmp_path)).load().samples.x
    np.testing.assert_allclose(x[:, 0, 0, 0], [1 / 255, 1, 1 / 255, 1], rtol=1e-6)
