"""A small transformer for images."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from privbench.errors import UsageError
from privbench.models.checked import whole


class Transformer(nn.Module):
    """Patches with positions, blocks of self-attention, the mean over patches, one linear layer.

    Source: Dosovitskiy et al.: An image is worth 16x16 words: transformers for image recognition at
    scale, ICLR 2021, https://arxiv.org/abs/2010.11929, after Vaswani et al.: Attention is all you need,
    NeurIPS 2017, https://arxiv.org/abs/1706.03762. It differs in size, in mean pooling for a class token,
    and in having no dropout.

    Input ``(n, channels, size, size)``, output ``(n, classes)``. Nothing depends on values, so that it can
    be traced; ``embed`` (patches and positions together) is what an owner runs on samples of its own.
    207,946 parameters by default.

    Args:
        channels: of the input: 1 grey, 3 colour.
        size: pixels a side, a multiple of ``patch``.
        classes: number of outputs.
        patch: pixels a side of a patch; ``(size / patch) ** 2`` patches.
        width: numbers that stand for a patch, a multiple of ``heads``.
        depth: number of blocks.
        heads: of self-attention, each ``width / heads`` wide.
        expansion: hidden numbers of a block's two linear layers, as a multiple of ``width``.

    Raises:
        UsageError: an argument is out of range.

    Example::

        Transformer(patch=8)(torch.rand(5, 3, 32, 32)).shape   # (5, 10)
    """

    def __init__(
        self,
        channels: int = 3,
        size: int = 32,
        classes: int = 10,
        patch: int = 4,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        self.channels, self.classes = whole("channels", channels, 3), whole("classes", classes, 10)
        self.size, self.patch = whole("size", size, 32), whole("patch", patch, 4)
        self.width, self.depth = whole("width", width, 64), whole("depth", depth, 4)
        self.heads, self.expansion = whole("heads", heads, 4), whole("expansion", expansion, 4)
        _check_divides("size", size, "patch", patch)
        _check_divides("width", width, "heads", heads)
        self.embed = PatchEmbedding(channels, size, patch, width)
        blocks = {f"block{number}": Block(width, heads, expansion) for number in range(depth)}
        self.blocks = nn.Sequential(OrderedDict(blocks))
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Float[Tensor, "n channels size size"]) -> Float[Tensor, "n classes"]:
        """Logits."""
        return self.linear(self.norm(self.blocks(self.embed(x))).mean(1))


class PatchEmbedding(nn.Module):
    """An image as a row of patches: a linear map of each, plus a learned vector for its place.

    Input ``(n, channels, size, size)``, output ``(n, patches, width)``.
    """

    def __init__(self, channels: int, size: int, patch: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, patch, stride=patch)
        self.positions = Positions((size // patch) ** 2, width)

    def forward(self, x: Float[Tensor, "n channels s s"]) -> Float[Tensor, "n patches width"]:
        """The patches, row by row."""
        return self.positions(self.conv(x).flatten(2).transpose(1, 2))


class Positions(nn.Module):
    """Learned vectors added to a row of vectors; a module of its own, so that its parameter is its own."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(places, width))
        nn.init.trunc_normal_(self.weight, std=0.02)  # as in the source's code

    def forward(self, x: Float[Tensor, "n places width"]) -> Float[Tensor, "n places width"]:
        """Each vector, moved by that of its place."""
        return x + self.weight


class Block(nn.Module):
    """Self-attention and two linear layers, each behind a layer norm and added to what came in."""

    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.norm0 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.wide = nn.Linear(width, expansion * width)
        self.gelu = nn.GELU()
        self.narrow = nn.Linear(expansion * width, width)

    def forward(self, x: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n tokens width"]:
        """The same shape."""
        x = x + self.attention(self.norm0(x))
        return x + self.narrow(self.gelu(self.wide(self.norm1(x))))


class SelfAttention(nn.Module):
    """Every token looks at every other, ``heads`` times at once (Vaswani et al. 2017)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.each = heads, width // heads
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "n tokens width"]) -> Float[Tensor, "n tokens width"]:
        """What the tokens tell each other."""
        found = self.queries_keys_values(x).unflatten(2, (3, self.heads, self.each))
        found = found.permute(2, 0, 3, 1, 4)  # (3, n, heads, tokens, each)
        told = F.scaled_dot_product_attention(found[0], found[1], found[2])
        return self.out(told.transpose(1, 2).flatten(2))


def _check_divides(whole_name: str, value: int, part_name: str, part: int) -> None:
    if value % part:
        near = next(each for each in range(min(part, value), 0, -1) if value % each == 0)
        raise UsageError(
            f"model.{whole_name}={value} is no multiple of model.{part_name}={part}; type for example "
            f"model.{part_name}={near}"
        )
