"""Shares of boxes, the pointing game and mass inside the mask, on cases worked by hand."""

import math

import pytest
import torch

from grafeat.explanations.relevance import Relevance
from grafeat.graph import PatchGraph
from grafeat.planted import coverage, on_object


def relevance(graph: PatchGraph, *rows: list[float]) -> Relevance:
    """Values of all patches, one row for each picture."""
    values = torch.tensor(rows)
    maps = {name: values[:, own].unflatten(1, graph.shapes[name]) for name, own in graph.slices.items()}
    return Relevance(
        maps=maps, method="by hand", signed=True, target=torch.zeros(len(rows), dtype=torch.int64), graph=graph
    )


LEFT = torch.zeros(1, 4, 6, dtype=torch.bool)
LEFT[:, :, :2] = True  # the left third of a picture 4 × 6


def test_covered_shares_by_hand() -> None:
    graph = PatchGraph({"halves": (1, 2), "whole": (1, 1), "thirds": (2, 3)})
    assert coverage(LEFT, graph)[0].tolist() == pytest.approx([2 / 3, 0, 1 / 3, 1, 0, 0, 1, 0, 0])


def test_a_field_is_a_part_of_the_picture() -> None:
    fields = {"right": (0.5, 0.0, 1.0, 1.0), "middle": (0.25, 0.25, 0.75, 0.5)}
    graph = PatchGraph({"right": (1, 1), "middle": (1, 2)}, fields)
    assert coverage(LEFT, graph)[0].tolist() == pytest.approx([0, 1 / 3, 0])  # 1.5 to 3 of 6 pixels holds 0.5


def test_covered_shares_against_a_mask_drawn_much_finer() -> None:
    """Grids that do not fit the pixels: each pixel as 35 × 35 and counted."""
    masks = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0)) > 0.5
    graph = PatchGraph({"a": (5, 7), "b": (7, 5)})
    fine = masks.repeat_interleave(35, 1).repeat_interleave(35, 2).double()
    boxes = [
        fine.unfold(1, 140 // h, 140 // h).unfold(2, 210 // w, 210 // w) for h, w in graph.shapes.values()
    ]
    expected = torch.cat([box.mean(dim=(3, 4)).flatten(1) for box in boxes], dim=1)
    torch.testing.assert_close(coverage(masks, graph), expected.float())


def test_the_mean_over_a_grid_is_the_share_of_the_mask() -> None:
    masks = torch.rand(5, 11, 13, generator=torch.Generator().manual_seed(1)) > 0.3
    found = coverage(masks, PatchGraph({"a": (3, 7)})).mean(dim=1)
    torch.testing.assert_close(found, masks.float().mean(dim=(1, 2)))


def test_pointing_and_mass_by_hand() -> None:
    """Covered shares: a has 2/3 and 0, b has 1, 0 and 0."""
    graph = PatchGraph({"a": (1, 2), "b": (1, 3)})
    found = on_object(relevance(graph, [3.0, 1.0, 2.0, -5.0, 2.0], [-1.0, -2.0, 0.0, 4.0, 1.0]), LEFT.expand(2, -1, -1))
    assert found.pointing["a"].tolist() == pytest.approx([2 / 3, 2 / 3])
    assert found.pointing["b"].tolist() == pytest.approx([0.5, 0])  # a tie of the first and the last patch
    assert found.pointing["all backbones"].tolist() == pytest.approx([2 / 3, 0])
    assert found.mass["a"].tolist() == pytest.approx([0.5, math.nan], nan_ok=True)  # 3 · 2/3 of 4
    assert found.mass["b"].tolist() == pytest.approx([0.5, 0])
    assert found.mass["all backbones"].tolist() == pytest.approx([4 / 8, 0])
    assert found.chance["a"].tolist() == pytest.approx([1 / 3] * 2)
    assert found.chance["all backbones"].tolist() == pytest.approx([1 / 3] * 2)
    assert found.best["a"].tolist() == pytest.approx([2 / 3] * 2) and found.best["b"].tolist() == [1, 1]
    frame = found.to_frame()
    assert list(frame.index) == ["a", "b", "all backbones"]
    assert frame.loc["a", "mass"] == pytest.approx(0.5)  # of the one picture that has a mass
    assert frame.loc["b", "pointing"] == pytest.approx(0.25)
    assert repr(found).splitlines() == [
        "Relevance by by hand on the object, 2 pictures",
        "  a              pointing 67%, mass 50%, by chance 33%",
        "  b              pointing 25%, mass 25%, by chance 33%",
        "  all backbones  pointing 33%, mass 25%, by chance 33%",
    ]


def test_the_same_relevance_everywhere_is_chance() -> None:
    graph = PatchGraph({"a": (5, 7), "b": (3, 2)})
    masks = torch.rand(3, 11, 13, generator=torch.Generator().manual_seed(2)) > 0.6
    found = on_object(relevance(graph, *[[0.5] * 41] * 3), masks)
    for name in (*graph.names, "all backbones"):
        torch.testing.assert_close(found.pointing[name], found.chance[name])
        torch.testing.assert_close(found.mass[name], found.chance[name])


def test_relevance_of_the_covered_shares_themselves_is_best() -> None:
    graph = PatchGraph({"only": (5, 7)})
    masks = torch.rand(3, 11, 13, generator=torch.Generator().manual_seed(3)) > 0.6
    found = on_object(relevance(graph, *coverage(masks, graph).tolist()), masks)
    assert list(found.pointing) == ["only"]
    torch.testing.assert_close(found.pointing["only"], found.best["only"])
    assert bool((found.mass["only"] > found.chance["only"]).all())


def test_masks_of_other_pictures_are_named() -> None:
    graph = PatchGraph({"a": (1, 2)})
    with pytest.raises(ValueError, match="masks: got 1 for 2 pictures; expected one for each; slice both alike"):
        on_object(relevance(graph, [1.0, 2.0], [2.0, 1.0]), LEFT)
