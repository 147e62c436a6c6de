"""Copies of images against loops over pixels, and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from privbench.contract import (
    Augmentation,
    Net,
    Recipe,
    Samples,
    Spec,
    augmented,
    child_rng,
    copies_of,
    spec_of,
)
from privbench.data.augmentations import Mirrored, Moved
from privbench.errors import PluginError, UsageError

EVERY = [Mirrored(), Moved(), Moved(pixels=2, mirrored=False)]
RECIPE = Recipe(Net(Spec("nobody.Net")), Spec("torch.optim.SGD"), epochs=1, batch=4)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 40) -> torch.Tensor:
    return torch.rand(count, 3, 5, 7, generator=rng(9))


def mirrored(image: torch.Tensor) -> torch.Tensor:
    """Pixel by pixel."""
    width = image.shape[-1]
    return torch.stack([image[:, :, width - 1 - j] for j in range(width)], dim=-1)


def moved(image: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Pixel by pixel: where nothing comes from, the nearest pixel of the border does."""
    found = torch.empty_like(image)
    _, height, width = image.shape
    for i in range(height):
        for j in range(width):
            source = min(max(i - down, 0), height - 1), min(max(j - right, 0), width - 1)
            found[:, i, j] = image[:, source[0], source[1]]
    return found


def twin(kind: Augmentation, x: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """One image at a time."""
    found = list(x)
    if isinstance(kind, Moved):
        steps = torch.randint(-kind.pixels, kind.pixels + 1, (2, len(x)), generator=draws)
        found = [moved(x[i], *steps[:, i].tolist()) for i in range(len(x))]
    if isinstance(kind, Mirrored) or kind.mirrored:
        coins = torch.rand(len(x), generator=draws)
        found = [mirrored(found[i]) if coins[i] < 0.5 else found[i] for i in range(len(x))]
    return torch.stack(found)


@pytest.mark.parametrize("kind", EVERY, ids=str)
def test_copies_are_those_of_loops_over_pixels(kind: Augmentation) -> None:
    x = images()
    made = kind(x, rng(3))
    assert torch.equal(made, twin(kind, x, rng(3)))
    assert not torch.equal(made, kind(x, rng(4)))
    assert kind(x[:0], rng()).shape == (0, 3, 5, 7)


@pytest.mark.parametrize(("kind", "count"), list(zip(EVERY, (2, 18, 25), strict=True)))
def test_every_copy_that_is_made_is_listed_and_no_other(kind: Augmentation, count: int) -> None:
    listed = list(kind.copies(images(1)))
    assert len(listed) == count
    made = kind(images(1).expand(600, -1, -1, -1), rng())
    equal = torch.stack([(made == copy).flatten(1).all(dim=1) for copy in listed])
    assert bool(equal.any(dim=0).all()) and bool(equal.any(dim=1).all())


@pytest.mark.parametrize("kind", EVERY, ids=str)
def test_records_that_are_no_images_are_refused(kind: Augmentation) -> None:
    name = type(kind).__name__.lower()
    for ask in (lambda: kind(torch.rand(4, 9), rng()), lambda: list(kind.copies(torch.rand(4, 9)))):
        with pytest.raises(UsageError, match=rf"={name} takes images.*\(9,\).*type augmentation="):
            ask()


def test_a_shift_out_of_sight_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1 pixel"):
        Moved(pixels=0)
    with pytest.raises(UsageError, match=r"5 x 7 pixels out of sight; expected at most 4"):
        Moved(pixels=5)(images(), rng())


def test_a_record_has_its_copy_whatever_row_it_stands_in_and_whoever_makes_it() -> None:
    recipe = Recipe(**{**vars(RECIPE), "augmentation": spec_of(Moved())})
    people = Samples(images(), torch.arange(40))
    positions = torch.tensor([7, 2, 31, 5])
    whole = augmented(recipe, people[positions], positions, rng(1), 3)
    assert torch.equal(whole.y, positions)
    other = torch.tensor([2, 0, 3, 1])
    shuffled = augmented(recipe, people[positions[other]], positions[other], rng(1), 3)
    assert torch.equal(shuffled.x, whole.x[other])
    own = torch.tensor([1, 3])
    held = people[positions[own]]
    assert torch.equal(augmented(recipe, held, positions, rng(1), 3, own).x, whole.x[own])
    for seed, step in ((1, 4), (2, 3)):
        fresh = augmented(recipe, people[positions], positions, rng(seed), step)
        assert not torch.equal(fresh.x, whole.x)
    first = positions.sort().values
    drawn = Moved()(people[first].x, child_rng(rng(1), "augmentation", 3))
    assert torch.equal(drawn[torch.searchsorted(first, positions)], whole.x)


def test_without_augmentation_records_are_what_they_are() -> None:
    people = Samples(images(4), torch.arange(4))
    assert augmented(RECIPE, people, torch.arange(4), rng(), 0) is people
    for recipe in (RECIPE, None):
        assert [copy is people.x for copy in copies_of(recipe, people.x)] == [True]


@dataclass(frozen=True, kw_only=True)
class Cut(Augmentation):
    """Gives smaller images."""

    source: ClassVar[str] = "none: a test's"

    def __call__(self, x: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        return x[..., 1:]


def test_who_makes_no_copies_is_refused() -> None:
    for spec, words in (
        (Spec(f"{__name__}.Cut"), r"\(4, 3, 5, 6\).*expected one copy"),
        (Spec("torch.nn.Flatten"), r"subclass of privbench\.contract\.Augmentation"),
    ):
        recipe = Recipe(**{**vars(RECIPE), "augmentation": spec})
        with pytest.raises(PluginError, match=words):
            augmented(recipe, Samples(images(4)), torch.arange(4), rng(), 0)
    assert [copy.shape[0] for copy in Cut().copies(images(4))] == [4]
