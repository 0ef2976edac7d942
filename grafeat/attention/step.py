"""One step of the graph network: the attention layers that it has, one after the other."""

from typing import TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from grafeat.attention.joint import JointAttention
from grafeat.attention.layers import CrossAttention, IntraAttention, PatchAttention, Vertices
from grafeat.attention.rotary import Angles
from grafeat.config import MergeConfig
from grafeat.graph import Kind, PatchGraph

L = TypeVar("L", bound=PatchAttention)
GAIN = 0.1  # every layer begins close to x ← x, and an exchange close to 0: messages must earn their weight


class Step(nn.Module):
    """One step of the graph network: an intra layer, then a cross layer, either of which may be absent; or a joint one.

    Args:
        config: What shapes the model.
        kinds: The kinds of edges over which there are messages.
    """

    def __init__(self, config: MergeConfig, kinds: tuple[Kind, ...]) -> None:
        super().__init__()
        apart = not config.joint
        self.intra = _layer(IntraAttention, config) if "intra" in kinds and apart else None
        self.cross = _layer(CrossAttention, config) if "cross" in kinds and apart else None
        self.joint = _layer(JointAttention, config) if config.joint else None

    def forward(
        self, x: Vertices, graph: PatchGraph, angles: Angles, keep: Float[Tensor, "b 1 1"] | None = None
    ) -> Vertices:
        """The vertices after the step; `keep` is the factor on each picture's cross messages."""
        x = x if self.intra is None else self.intra(x, graph, angles)
        x = x if self.cross is None else self.cross(x, graph, angles, keep)
        return x if self.joint is None else self.joint(x, graph, angles, keep)

    @property
    def layers(self) -> dict[str, PatchAttention]:
        """Its layers by kind, in the order of the pass."""
        named = {"intra": self.intra, "cross": self.cross, "joint": self.joint}
        return {kind: layer for kind, layer in named.items() if layer is not None}


def _layer(kind: type[L], config: MergeConfig) -> L:
    return kind(
        config.names,
        config.width,
        config.heads,
        shared=config.shared,
        balance=config.balance,
        gain=GAIN,
        hidden=config.hidden,
        relations=config.relations,
    )
