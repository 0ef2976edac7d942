"""Every way to mix takes the same grids, in any order and without any backbone, and names what does not fit."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from grafeat.grids import FeatureGrid, GridSet
from grafeat.models import GridModel, MergeOutput

B = 5
LITE, VIT = (3, 2, 7), (11, 5, 1)  # channels, rows, columns


class Means(GridModel):
    """The smallest way to mix: the vector is the mean over each backbone's channels and patches, by name."""

    def __init__(self, backbones: dict[str, int], num_classes: int = 2, classes: Sequence[str] = ()) -> None:
        super().__init__(backbones, num_classes, classes)
        self.head = nn.Linear(1, num_classes)

    def merge(self, grids: Sequence[FeatureGrid], *, states: bool = False) -> MergeOutput:
        self.seen = {grid.name: grid for grid in grids}
        mean = torch.stack([self.seen[name].features.mean(dim=(1, 2, 3)) for name in sorted(self.seen)]).mean(
            dim=0
        )
        return MergeOutput(self.head(mean[:, None]), mean[:, None])


def grid(name: str, shape: tuple[int, int, int], b: int = B) -> FeatureGrid:
    return FeatureGrid(name, torch.randn(b, *shape, generator=torch.Generator().manual_seed(len(name))))


@pytest.fixture
def lite() -> FeatureGrid:
    return grid("lite", LITE)


@pytest.fixture
def vit() -> FeatureGrid:
    return grid("tiny_vit", VIT)


@pytest.fixture
def model() -> Means:
    return Means({"lite": LITE[0], "tiny_vit": VIT[0]})


# What may be given


def test_a_set_a_sequence_in_any_order_and_a_single_grid(
    model: Means, lite: FeatureGrid, vit: FeatureGrid
) -> None:
    expected = torch.stack([lite.features.mean(dim=(1, 2, 3)), vit.features.mean(dim=(1, 2, 3))]).mean(dim=0)
    for given in (GridSet([lite, vit]), GridSet([vit, lite], [0, 1, 1, 0, 1]), [vit, lite], (lite, vit)):
        torch.testing.assert_close(model(given).vector[:, 0], expected)
    assert torch.equal(model(lite).vector[:, 0], lite.features.mean(dim=(1, 2, 3)))


def test_slices_and_views_of_a_set_are_taken_as_they_are(
    model: Means, lite: FeatureGrid, vit: FeatureGrid
) -> None:
    whole = GridSet([lite, vit])
    assert torch.equal(model(whole[3]).vector, model(whole).vector[3:4])
    assert torch.equal(model(whole.only("lite")).vector, model(lite).vector)


def test_without_leaves_out_as_if_it_were_not_there(
    model: Means, lite: FeatureGrid, vit: FeatureGrid
) -> None:
    expected = model([lite]).vector
    for without in ({"tiny_vit"}, ("tiny_vit",), ["tiny_vit"], "tiny_vit", frozenset({"tiny_vit"})):
        assert torch.equal(model([lite, vit], without=without).vector, expected)
        assert torch.equal(model.embed([lite, vit], without=without), expected)
    assert torch.equal(model([lite], without={"tiny_vit"}).vector, expected)  # it is not there anyway


def test_the_vector_is_public(model: Means, lite: FeatureGrid, vit: FeatureGrid) -> None:
    assert torch.equal(model.embed([vit, lite]), model([vit, lite]).vector)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_grids_come_in_the_models_number_type(model: Means, lite: FeatureGrid, dtype: torch.dtype) -> None:
    model(lite.to(dtype=dtype))
    assert model.seen["lite"].features.dtype == torch.float32
    model.double()(lite.to(dtype=dtype))
    assert model.seen["lite"].features.dtype == torch.float64
    assert lite.features.dtype == torch.float32  # what was given stays as it was


# What may not


def test_an_unknown_backbone_is_named(model: Means, lite: FeatureGrid) -> None:
    with pytest.raises(
        ValueError, match=r"grids, without: got backbone 'cnn'; this model knows lite, tiny_vit; use"
    ):
        model([lite, grid("cnn", (3, 2, 2))])
    with pytest.raises(
        ValueError, match=r"grids, without: got backbone 'cnn'; this model knows lite, tiny_vit"
    ):
        model([lite], without={"cnn"})
    with pytest.raises(ValueError, match="got backbone 'tiny'"):  # not taken for letters, nor for a prefix
        model([lite], without="tiny")


def test_other_channels_are_named_with_both_shapes(model: Means, vit: FeatureGrid) -> None:
    with pytest.raises(
        ValueError,
        match=r"'lite' has shape \(5, 4, 2, 7\), so 4 channels; this model was made for 3, shape \(b, 3, h, w\)",
    ):
        model([grid("lite", (4, 2, 7)), vit])


def test_a_backbone_left_out_may_have_any_channels(model: Means, vit: FeatureGrid) -> None:
    assert len(model([grid("lite", (4, 2, 7)), vit], without={"lite"}).vector) == B


def test_nothing_left_is_an_error(model: Means, lite: FeatureGrid, vit: FeatureGrid) -> None:
    with pytest.raises(
        ValueError, match=r"without: got lite, tiny_vit, which leaves no backbone; keep at least"
    ):
        model([lite, vit], without={"tiny_vit", "lite"})
    with pytest.raises(ValueError, match=r"grids: got none; expected at least one FeatureGrid"):
        model([])


def test_grids_that_do_not_belong_together_are_named(
    model: Means, lite: FeatureGrid, vit: FeatureGrid
) -> None:
    with pytest.raises(ValueError, match=r"grids: the name 'lite' is there twice"):
        model([lite, vit, lite])
    with pytest.raises(
        ValueError, match=r"unequal batches \(lite \(5, 3, 2, 7\), tiny_vit \(3, 11, 5, 1\)\)"
    ):
        model([lite, vit[:3]])


def test_bare_tensors_are_told_how_to_become_grids(model: Means, lite: FeatureGrid, unchecked: None) -> None:
    with pytest.raises(TypeError, match=r"grids: got Tensor among them; expected FeatureGrid; wrap it"):
        model([lite.features])


@pytest.mark.parametrize(
    ("backbones", "num_classes", "classes", "message"),
    [
        ({}, 2, (), r"backbones: got none; expected at least one, as \{'name': channels\}"),
        ({"lite": 3}, 1, (), r"num_classes: got 1; expected 2 or more"),
        ({"lite": 3}, 3, ("cat", "dog"), r"classes: got 2 names for 3 classes; give one for each, or none"),
    ],
)
def test_a_model_of_nothing_is_refused(
    backbones: dict[str, int], num_classes: int, classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Means(backbones, num_classes, classes)


# What every model has


def test_a_model_knows_its_classes_and_counts_their_labels(model: Means) -> None:
    assert Means({"lite": 3}, 3).classes == ("0", "1", "2")
    assert Means({"lite": 3}, 2, ["cat", "dog"]).classes == ("cat", "dog")
    counts = model.state_dict()["label_counts"]  # saved with the model
    assert counts.dtype == torch.int64
    assert counts.tolist() == [0, 0]


def test_a_model_stands_where_its_parameters_stand(model: Means) -> None:
    assert model.device == torch.device("cpu")
    assert model.to("meta").device == torch.device("meta")


def test_an_output_prints_its_shapes() -> None:
    logits, vector = torch.zeros(5, 3), torch.zeros(5, 13)
    assert repr(MergeOutput(logits, vector)) == "MergeOutput: logits (5, 3), vector (5, 13), vertices none"
    vertices: dict[str, Tensor] = {"lite": torch.zeros(5, 13, 2, 7), "vit": torch.zeros(5, 13, 1, 11)}
    assert repr(MergeOutput(logits, vector, vertices)).endswith(
        "vector (5, 13), vertices lite (5, 13, 2, 7), vit (5, 13, 1, 11)"
    )
