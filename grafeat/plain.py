"""A model as a plain module from tensors to a tensor, for what knows nothing of feature grids: compilers, exporters."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from grafeat.grids import FeatureGrid, GridSet, check_grids
from grafeat.models import GridModel


class PlainModel(nn.Module):
    """A model that takes one tensor of features for each backbone, and gives logits or image vectors.

    It shares its parameters with the model. Compile or export it like any other module:

        plain = gf.PlainModel(model, grids)
        features = tuple(grid.features for grid in grids.grids)
        fast = torch.compile(plain)
        batch = torch.export.Dim("batch")
        program = torch.export.export(plain, features, dynamic_shapes=(tuple({0: batch} for _ in features),))

    Args:
        model: A model; put into `eval`.
        grids: Grids of any pictures, which say which backbones come, in which order, and which fields they cover.
        output: `logits` (b, t) or `vector` (b, d).

    Raises:
        ValueError: If the model does not know a backbone, or `output` is neither.
    """

    def __init__(
        self,
        model: GridModel,
        grids: GridSet | Sequence[FeatureGrid],
        output: Literal["logits", "vector"] = "logits",
    ) -> None:
        super().__init__()
        listed = check_grids(grids[:1].grids if isinstance(grids, GridSet) else grids)
        for grid in listed:
            if model.backbones.get(grid.name) != grid.channels:
                known = ", ".join(f"{name} with {channels} channels" for name, channels in model.backbones.items())
                raise ValueError(
                    f"grids: got {grid.name!r} with {grid.channels} channels; this model knows {known}; pass grids "
                    "that it was made for"
                )
        if output not in ("logits", "vector"):
            raise ValueError(f"output: got {output!r}; expected 'logits' or 'vector'")
        self.model, self.output = model.eval(), output
        self.names = tuple(grid.name for grid in listed)
        self.fields = tuple(grid.field for grid in listed)

    def forward(self, *features: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b k"]:
        """Logits or image vectors for the features of each backbone, in the order of the grids it was made with."""
        if len(features) != len(self.names):
            raise ValueError(
                f"features: got {len(features)}; expected {len(self.names)}, of {', '.join(self.names)}; pass one each"
            )
        dtype = next(self.model.parameters()).dtype  # grids are often kept in half precision
        named = zip(self.names, features, self.fields, strict=True)
        out = self.model.merge([FeatureGrid.trusted(name, part.to(dtype), field) for name, part, field in named])
        return out.logits if self.output == "logits" else out.vector
