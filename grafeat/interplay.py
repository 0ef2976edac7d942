"""What several backbones say together, beyond what each says by itself."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from grafeat.attention.layers import PerBackbone


class Interplay(nn.Module):
    """What several backbones say together: MLP(Σ_m U_m·mean_m), of the means of their states.

    It is what concatenation with an MLP would do with these states, so that what no backbone says alone can be said.
    Where a backbone is alone, or the patches of all others are out, nobody asks for it.

    Args:
        names: The backbones that the model knows.
        width: Channels d of a vertex.
        hidden: Width of the MLP.
        gain: Factor on the last layer's weights at the start; a small one begins close to saying nothing.
    """

    def __init__(self, names: tuple[str, ...], width: int, hidden: int, *, gain: float = 1.0) -> None:
        super().__init__()
        self.enter = PerBackbone(names, lambda: nn.Linear(width, hidden, bias=False), shared=False)
        last = nn.Linear(hidden, width, bias=False)
        with torch.no_grad():
            last.weight.mul_(gain)
        self.say = nn.Sequential(nn.LayerNorm(hidden), nn.GELU(), last)

    def forward(self, means: Mapping[str, Float[Tensor, "b d"]]) -> Float[Tensor, "b d"]:
        """What is added to the sum of the readings (b, d), from each backbone's mean, by name."""
        return self.say(torch.stack([self.enter(mean, name) for name, mean in means.items()]).sum(dim=0))


class Exchange(Interplay):
    """What several backbones say after their messages: an interplay of what one learned query reads from each.

    A mean would do where every patch has heard something; where only one has, a query finds it. The query begins with
    no preference for a place: one drawn by chance can look past that patch for the whole training.

    Args:
        names: The backbones that the model knows.
        width: Channels d of a vertex.
        places: Features f of a vertex's place.
        hidden: Width of the MLP.
        gain: Factor on the last layer's weights at the start.

    Attributes:
        place: The query's part that is asked of a vertex's place; None if patches do not know theirs.
    """

    place: Tensor | None

    def __init__(self, names: tuple[str, ...], width: int, places: int, hidden: int, *, gain: float = 1.0) -> None:
        super().__init__(names, width, hidden, gain=gain)
        self.state = PerBackbone(names, lambda: nn.Linear(width, 1, bias=False), shared=False)
        self.place = nn.Parameter(torch.zeros(places, 1))

    def logits(
        self, states: Float[Tensor, "b patches d"], places: Float[Tensor, "patches f"], name: str
    ) -> Float[Tensor, "b patches 1"]:
        """The query's logit for each of a backbone's patches, from its final state and its place."""
        logits = self.state(states, name)
        return logits if self.place is None else logits + places @ self.place
