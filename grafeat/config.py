"""What shapes a `GraFeatMerge`."""

from dataclasses import dataclass

from grafeat.arguments import make_whole
from grafeat.graph import Kind
from grafeat.readout import READOUTS, ReadoutKind


@dataclass(frozen=True)
class MergeConfig:
    """What shapes a `GraFeatMerge`; kept in the header of a saved model.

    Attributes:
        backbones: Name and channels of each backbone.
        num_classes: Classes t of the task.
        width: Channels d of a vertex and of the image vector; a multiple of twice `heads`.
        depth: Intra layers, and cross layers; or joint ones.
        heads: Attention heads.
        readout: How the image vector is read: `each`, `relation`, `attention` or `mean`; see `Readout`.
        queries: Learned queries of the readout; interplay and exchange have one more each.
        components: Principal components kept of each backbone's channels; all of them where it has fewer.
        shared: Whether all backbones use the same attention layers.
        intra: Whether there are intra layers.
        cross: Whether there are cross layers.
        balance: Whether equal logits give every backbone equal mass in cross attention, whatever its grid.
        cross_drop: Share of training pictures whose cross messages are dropped, in [0, 1).
        backbone_drop: Share of training batches that lack one backbone, in [0, 1).
        hidden: Width of the layers' MLPs; twice `width` if absent.
        positions: Whether patches know their place: rotary angles, and a term in the vertices and in the readout.
        interplay: Whether the readout `each` adds an MLP of the means of all backbones' states; see `Interplay`.
        parted: Whether the readout `each` keeps what a backbone says by itself apart from what it hears: all intra
            layers come first, all cross layers last; what is read in between is joined by an exchange at the end, which
            adds what the messages brought; see `Exchange`. Else the layers alternate, and all is read at the end, as
            where there are no layers of one kind, or joint ones.
        relations: Whether relation embeddings are learned; else all relations, and all backbones, are equal.
        joint: Whether a step is one layer with one softmax over the patches of all backbones, instead of two.
        classes: Names of the classes; numbered if empty.

    Raises:
        TypeError: If a value that counts something is no whole number.
        ValueError: If a value is out of its range.
    """

    backbones: tuple[tuple[str, int], ...]
    num_classes: int
    width: int = 64
    depth: int = 2
    heads: int = 4
    readout: ReadoutKind = "each"
    queries: int = 8
    components: int = 64
    shared: bool = True
    intra: bool = True
    cross: bool = True
    balance: bool = True
    cross_drop: float = 0.2
    backbone_drop: float = 0.1
    hidden: int | None = None
    positions: bool = True
    relations: bool = True
    joint: bool = False
    interplay: bool = True
    parted: bool = True
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names):
            raise ValueError(
                f"backbones: got {', '.join(self.names)}; expected different names; use name= to tell them apart"
            )
        make_whole(self, "num_classes", "width", "depth", "heads", "queries", "components", "hidden")
        if self.width % (2 * self.heads):
            near = max(1, round(self.width / (2 * self.heads))) * 2 * self.heads
            raise ValueError(
                f"width: got {self.width} for {self.heads} heads; expected a multiple of {2 * self.heads}, since each "
                f"head turns pairs of channels; use {near}"
            )
        if self.readout not in READOUTS:
            raise ValueError(f"readout: got {self.readout!r}; expected one of {', '.join(READOUTS)}")
        for name in ("cross_drop", "backbone_drop"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}; expected a share in [0, 1)")
        if self.joint and not (self.intra and self.cross):
            raise ValueError(
                f"joint: got True with intra={self.intra} and cross={self.cross}; expected both, since one softmax "
                "holds both kinds of edges; leave joint out for one kind"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the backbones."""
        return tuple(name for name, _ in self.backbones)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of edges over which there are messages."""
        there: dict[Kind, bool] = {"intra": self.intra, "cross": self.cross}
        return tuple(kind for kind, learned in there.items() if learned)

    @property
    def silent(self) -> int:
        """Steps before the place where backbones are read that have not heard of each other; 0 for no such place."""
        layers = self.intra and self.cross and not self.joint
        return self.depth if self.parted and self.readout == "each" and layers and len(self.backbones) > 1 else 0

    @property
    def steps(self) -> list[tuple[Kind, ...]]:
        """The kinds of edges of each step: all of them, or where there are silent steps, one kind after the other."""
        if self.silent:
            return [(kind,) for kind in self.kinds for _ in range(self.depth)]
        return [self.kinds] * self.depth
