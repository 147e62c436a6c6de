"""A multilayer perceptron that states its input as other networks for images do."""

from __future__ import annotations

from collections.abc import Sequence

from privbench.models.checked import whole, wholes
from privbench.models.mlp import Mlp


class MlpImage(Mlp):
    """``Mlp`` for square images: its first layer is linear, so that gradients of it name inputs exactly.

    The size of an image is said in the words of the other networks for images, so that a study of both says
    it once.

    Input ``(n, channels, size, size)``, output ``(n, classes)``. Modules are called as in ``Mlp``.

    Args:
        channels: of the input: 1 grey, 3 colour.
        size: pixels a side.
        classes: number of outputs.
        hidden: features of the two hidden layers.

    Raises:
        UsageError: an argument is out of range.

    Example::

        MlpImage(channels=3, size=32)(torch.rand(5, 3, 32, 32)).shape   # (5, 10)
    """

    def __init__(
        self,
        channels: int = 1,
        size: int = 28,
        classes: int = 10,
        hidden: Sequence[int] = (128, 64),
    ) -> None:
        maps, side = whole("channels", channels, 1), whole("size", size, 28)
        inner, outputs = wholes("hidden", hidden, (128, 64)), whole("classes", classes, 10)
        super().__init__((maps * side * side, *inner, outputs))
        self.channels, self.size, self.classes, self.hidden = maps, side, outputs, inner
