"""Search for inputs behind a gradient among those that a generator can draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from privbench.contract import (
    Fit,
    Fitted,
    Guess,
    Knowledge,
    View,
    child_rng,
    counted,
)
from privbench.errors import NotApplicable
from privbench.toolkit.decoders import decoder, drawn, encoder
from privbench.toolkit.inverting import Job, Setting, matcher_of, starts_of
from privbench.toolkit.matching import Adam, cosine
from privbench.toolkit.searching import GradientSearch

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class VariationalDecoder(Fit):
    """A decoder from a few numbers to an input, trained on auxiliary inputs as half of an autoencoder.

    D. P. Kingma, M. Welling: Auto-Encoding Variational Bayes, 2014, https://arxiv.org/abs/1312.6114.

    Args:
        latent: numbers an input is drawn from.
        width: channels of the decoder at full size.
        steps: of Adam, of ``BATCH`` inputs.
        rate: of Adam.
        spread: weight of the divergence from the normal distribution, against squared errors summed over
            an input.
    """

    latent: int = 32
    width: int = 16
    steps: int = 1500
    rate: float = 2e-3
    spread: float = 0.05

    def fit(self, knowledge: Knowledge, rng: torch.Generator) -> Fitted:
        """Weights of the decoder.

        Raises:
            NotApplicable: there are no auxiliary inputs.
        """
        known = knowledge.public.auxiliary
        if known is None or not len(known):
            raise NotApplicable(
                "a generator is trained on auxiliary inputs, and there are none; choose a split that has "
                "them (data.split=thirds)"
            )
        x, device = known.x.float().to(knowledge.device), knowledge.device
        shape = tuple(x.shape[1:])
        draws = drawn(lambda: decoder((self.latent,), shape, self.width), rng).to(device)
        reads = drawn(lambda: encoder(shape, (2 * self.latent,), self.width), rng).to(device)
        parameters = [*draws.parameters(), *reads.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=self.rate)
        for _ in counted(range(self.steps)):
            rows = torch.randint(len(x), (BATCH,), generator=rng)
            batch = x[rows.to(device)]
            middle, log_variance = reads(batch).chunk(2, dim=1)
            log_variance = log_variance.clamp(-10, 10)
            noise = torch.randn(middle.shape, generator=rng).to(device)
            made = draws(middle + noise * (0.5 * log_variance).exp())
            divergence = 0.5 * (middle.square() + log_variance.exp() - 1 - log_variance).sum()
            loss = F.mse_loss(made, batch, reduction="sum") + self.spread * divergence
            optimizer.zero_grad()
            (loss / BATCH).backward()
            optimizer.step()
        return Fitted({name: t.detach().cpu() for name, t in draws.state_dict().items()})


@dataclass(frozen=True, kw_only=True)
class GenerativePrior(GradientSearch):
    """Matches the direction of a gradient by inputs that a trained decoder draws.

    J. Jeon, J. Kim, K. Lee, S. Oh, J. Ok: Gradient Inversion with Generative Image Prior, NeurIPS 2021,
    https://arxiv.org/abs/2110.14962.

    We differ: the generator is the decoder of a small variational autoencoder, trained on the auxiliary
    records, and its weights stay as they are while its latent numbers are searched for; ``refine`` steps
    on the values of the input follow.

    Args:
        steps: of Adam in latent space.
        rate: there, in standard deviations.
        normal: weight of the mean square of latent numbers.
        refine: steps of Adam on signs, on the input's values.
        refine_rate: their rate, in units of the input's range; it falls to 0.
        images: most that are rebuilt of one update.
        latent, width, train_steps: of the decoder; see ``VariationalDecoder``.

    Example::

        privbench regime=fedavg_one_sample threat=server attack=generative_prior victims=8
    """

    needs: ClassVar[tuple[str, ...]] = (*GradientSearch.needs, "auxiliary")
    source: ClassVar[str] = (
        "J. Jeon, J. Kim, K. Lee, S. Oh, J. Ok, Gradient Inversion with Generative Image Prior, 2021, "
        "https://arxiv.org/abs/2110.14962"
    )
    conformance: ClassVar[Mapping[str, object]] = MappingProxyType(
        {"steps": 60, "refine": 60, "train_steps": 200}
    )

    steps: int = 300
    rate: float = 0.1
    normal: float = 1e-3
    refine: int = 200
    refine_rate: float = 0.02
    images: int = 64
    latent: int = 32
    width: int = 16
    train_steps: int = 1500

    def fits(self) -> tuple[Fit, ...]:
        """The decoder."""
        return (VariationalDecoder(latent=self.latent, width=self.width, steps=self.train_steps),)

    def run_all(self, views: Sequence[View], rng: torch.Generator) -> list[Guess]:
        """Seat by seat: each may have a decoder of its own."""
        return [self.run(view, child_rng(rng, view.seat.name)) for view in views]

    @property
    def setting(self) -> Setting:
        """From the mean auxiliary input on."""
        return Setting(images=self.images, noise=0.0)

    def descend(self, view: View, jobs: Sequence[Job]) -> Float[Tensor, "jobs n ..."]:
        """Adam over latent numbers, then over values."""
        matcher = matcher_of(view, jobs, cosine)
        start, labels = starts_of(jobs, view.device)
        shape, soft = tuple(start.shape[2:]), jobs[0].labels is None
        draws = self._decoder(view, shape)
        z = torch.stack([self._latent(job) for job in jobs]).to(view.device)
        adam_z, adam_labels, adam_x = Adam(z), Adam(labels), Adam(start)
        for step in counted(range(self.steps)):
            rate = self.rate * (1 - step / self.steps)
            z = z.detach().requires_grad_()
            x = draws(z.flatten(0, 1)).unflatten(0, z.shape[:2])
            pull = matcher.pull(x, labels, soft)
            (slope,) = torch.autograd.grad(x, z, pull.x)
            slope = slope + 2 * self.normal / self.latent * z.detach()
            z = z.detach() - rate * adam_z.direction(slope)
            if pull.logits is not None:
                labels = labels - rate * adam_labels.direction(pull.logits)
        with torch.no_grad():
            x = draws(z.flatten(0, 1)).unflatten(0, z.shape[:2])
        for step in range(self.refine):
            rate = self.refine_rate * (1 - step / self.refine)
            x = (x - rate * adam_x.direction(matcher.pull(x, labels, soft).x.sign())).clamp(0, 1)
        return x

    def _latent(self, job: Job) -> Float[Tensor, "n latent"]:
        rng = torch.Generator().manual_seed(job.seed)
        return 0.1 * torch.randn(len(job.start), self.latent, generator=rng)

    def _decoder(self, view: View, shape: Sequence[int]) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            draws = decoder((self.latent,), shape, self.width)
        draws.load_state_dict(dict(view.fitted[0].tensors))
        return draws.to(view.device).requires_grad_(False)
