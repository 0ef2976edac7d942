"""A plain module gives the model's numbers; exported and compiled, too, for any batch."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

import grafeat as gf
from grafeat.plain import PlainModel

SHAPES = {"lite": (5, 2, 3), "vit": (7, 1, 5)}


def grids(b: int = 11) -> gf.GridSet:
    generator = torch.Generator().manual_seed(b)
    listed = [gf.FeatureGrid(name, torch.randn(b, *shape, generator=generator)) for name, shape in SHAPES.items()]
    return gf.GridSet(listed)


def built(kind: type[gf.GridModel] = gf.GraFeatMerge) -> gf.GridModel:
    torch.manual_seed(0)
    return kind.for_grids(grids(), num_classes=3)  # type: ignore[attr-defined]


def features(given: gf.GridSet) -> tuple[Tensor, ...]:
    return tuple(grid.features for grid in given.grids)


@pytest.mark.parametrize("kind", [gf.GraFeatMerge, gf.Concat])
@torch.no_grad()
def test_the_numbers_are_the_models(kind: type[gf.GridModel]) -> None:
    model = built(kind)
    out = model(grids())
    assert torch.equal(PlainModel(model, grids())(*features(grids())), out.logits)
    assert torch.equal(PlainModel(model, grids(), "vector")(*features(grids())), out.vector)


@torch.no_grad()
def test_some_backbones_in_another_order_and_with_a_field() -> None:
    model = built()
    half = [gf.FeatureGrid(grid.name, grid.features, (0.0, 0.0, 0.5, 1.0)) for grid in grids().grids[::-1]]
    torch.testing.assert_close(PlainModel(model, half)(half[0].features, half[1].features), model(half).logits)
    alone = grids().only("vit")
    assert torch.equal(PlainModel(model, alone)(*features(alone)), model(alone).logits)


@torch.no_grad()
def test_features_in_half_precision_are_taken_as_the_model_takes_them() -> None:
    model = built()
    half = gf.GridSet([gf.FeatureGrid(grid.name, grid.features.half()) for grid in grids().grids])
    assert torch.equal(PlainModel(model, grids())(*features(half)), model(half).logits)
    with pytest.raises(ValueError, match=r"features: got 1; expected 2, of lite, vit; pass one each"):
        PlainModel(model, grids())(half["lite"].features)


@pytest.mark.parametrize("output", ["logits", "vector"])
@torch.no_grad()
def test_an_exported_model_gives_equal_numbers_for_any_batch(
    tmp_path: Path, output: Literal["logits", "vector"]
) -> None:
    plain = PlainModel(built(), grids(), output)
    batch = torch.export.Dim("batch")
    program = torch.export.export(plain, features(grids()), dynamic_shapes=(tuple({0: batch} for _ in SHAPES),))
    torch.export.save(program, tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module()
    for b in (2, 11, 17):
        torch.testing.assert_close(loaded(*features(grids(b))), plain(*features(grids(b))), atol=1e-6, rtol=1e-5)


COMPILED = """
    import sys
    sys.path[:0] = {path!r}
    import torch
    from test_plain import PlainModel, built, features, grids
    with torch.no_grad():
        plain = PlainModel(built(), grids())
        compiled = torch.compile(plain, backend="aot_eager")  # the default asks for a C++ compiler
        torch.testing.assert_close(compiled(*features(grids())), plain(*features(grids())), atol=1e-6, rtol=1e-5)
"""


def test_a_compiled_model_gives_equal_numbers() -> None:
    """In a process of its own: no compiler can trace the shape checks of these tests."""
    code = textwrap.dedent(COMPILED).format(path=[str(Path(__file__).parents[1]), str(Path(__file__).parent)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_named() -> None:
    other = gf.GridSet([gf.FeatureGrid("lite", torch.randn(2, 3, 2, 3))])
    with pytest.raises(ValueError, match=r"grids: got 'lite' with 3 channels; this model knows lite with 5"):
        PlainModel(built(), other)
    with pytest.raises(ValueError, match=r"output: got 'states'; expected 'logits' or 'vector'"):
        PlainModel(built(), grids(), "states")  # type: ignore[arg-type]
