"""Distances between rebuilt and true records, one value a record."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from privbench.scoring.score import Pictures

SHOWN = 6  # images of a seat that a report keeps
CAP = 100.0  # dB; an exact copy has no error to take the logarithm of
SMALLEST = 11  # pixels: side of the window of SSIM
LUMINANCE, CONTRAST = 0.01**2, 0.03**2  # keep its quotients finite, for inputs in [0, 1]


def mse(x: Float[Tensor, "n ..."], y: Float[Tensor, "n ..."]) -> np.ndarray:
    """Mean squared error of each record; inputs in [0, 1]."""
    gaps = (x.double() - y.double()).flatten(1)
    return gaps.square().mean(dim=1).numpy()


def psnr(errors: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each record in dB, peak 1, capped at 100."""
    return np.minimum(CAP, -10 * np.log10(np.maximum(errors, 1e-30)))


def ssim(x: Float[Tensor, "n ..."], y: Float[Tensor, "n ..."]) -> np.ndarray | None:
    """Structural similarity of each image; None for anything but images of at least 11 pixels a side.

    Wang et al.: Image quality assessment: from error visibility to structural similarity, 2004,
    https://doi.org/10.1109/TIP.2003.819861: a Gaussian window of 1.5 pixels, borders reflected,
    numbers as torchmetrics computes them, but with the blur as two products of matrices.
    """
    if x.ndim != 4 or min(x.shape[2:]) < SMALLEST or not len(x):
        return None
    one, other = x.double(), y.double()
    rows, columns = (_blur(side) for side in x.shape[2:])
    means = [rows @ each @ columns.T for each in (one, other)]
    squares, products = means[0].square() + means[1].square(), means[0] * means[1]
    spread = [rows @ each @ columns.T for each in (one.square(), other.square(), one * other)]
    variances = (spread[0] - means[0].square()).clamp(min=0)
    variances = variances + (spread[1] - means[1].square()).clamp(min=0)
    luminance = (2 * products + LUMINANCE) / (squares + LUMINANCE)
    contrast = (2 * (spread[2] - products) + CONTRAST) / (variances + CONTRAST)
    similar: np.ndarray = (luminance * contrast).flatten(1).mean(dim=1).numpy()
    return similar


def _blur(side: int) -> Float[Tensor, "side side"]:
    """A Gaussian of 1.5 pixels along one axis, cut at 5 pixels, beyond borders reflected."""
    reach = SMALLEST // 2
    weights = torch.exp(-torch.arange(-reach, reach + 1).double().square() / (2 * 1.5**2))
    weights /= weights.sum()
    found = torch.zeros(side, side, dtype=torch.float64)
    for offset, weight in enumerate(weights, start=-reach):
        at = (torch.arange(side) + offset).abs()
        at = torch.where(at >= side, 2 * (side - 1) - at, at)
        found[torch.arange(side), at] += weight
    return found


def pictured(
    seat: str,
    true: Float[Tensor, "n ..."],
    guess: Float[Tensor, "n ..."],
    blind: Float[Tensor, "n ..."],
) -> Pictures | None:
    """The first images as bytes; None where records are no images of one or three channels."""
    if true.ndim != 4 or true.shape[1] not in (1, 3) or not len(true):
        return None
    shown = (x[:SHOWN].float().clamp(0, 1).mul(255).round() for x in (true, guess, blind))
    return Pictures(seat, *(x.to(torch.uint8).numpy() for x in shown))


def identified(
    x: Float[Tensor, "n ..."],
    truth: Float[Tensor, "n ..."],
    decoys: Float[Tensor, "m ..."],
    place: Int64[Tensor, " n"],
) -> Bool[Tensor, " n"]:
    """Is the true record the one nearest to the guess?

    Args:
        x: guesses; truth: the true records.
        decoys: the other candidates, in random order.
        place: where the true record stands among the decoys, -1 = nowhere: then it takes the place of
            one, ``i`` modulo their number for victim i. Of equal distances the first place wins.
    """
    guesses = x.flatten(1).double()
    distances = torch.cdist(guesses, decoys.flatten(1).double())
    own = (guesses - truth.flatten(1).double()).norm(dim=1)
    row = torch.arange(len(x))
    at = torch.where(place >= 0, place, row % max(len(decoys), 1))
    distances[row, at] = own
    return distances.argmin(dim=1) == at
