"""The figure of a report shows the report's numbers, and none that it does not have."""

import math

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import grafeat as gf
from grafeat.plots.dominance import MOST, dominance_figure
from grafeat.plots.palette import backbone_colours

SHAPES = {"lite": (2, 3), "vit": (1, 5)}


def report(b: int = 7, **options: object) -> gf.Dominance:
    generator = torch.Generator().manual_seed(0)
    listed = [
        gf.FeatureGrid(name, torch.randn(b, 5, *shape, generator=generator)) for name, shape in SHAPES.items()
    ]
    grids = gf.GridSet(listed)
    model = gf.GraFeatMerge.for_grids(grids, num_classes=3, width=12, heads=3, depth=2)
    model.label_counts += torch.tensor([1, 2, 5])
    return gf.dominance(model, grids, 0, **options)  # the rarest class: what the backbones add is above 0


def panel(figure: Figure, quantity: str) -> Axes:
    return next(ax for ax in figure.axes if ax.get_title(loc="left") == quantity)


def widths(ax: Axes) -> list[float]:
    return [bar.get_width() for bar in ax.patches if isinstance(bar, Rectangle)]


def test_bars_are_the_values_and_shares_in_the_backbones_colours() -> None:
    found = report()
    figure = dominance_figure(found)
    assert widths(panel(figure, "value")) == pytest.approx(list(found.values.values()))
    assert widths(panel(figure, "share")) == pytest.approx(list(found.shares.values()))
    colours = backbone_colours(found.names)
    for bar, name in zip(panel(figure, "value").patches, found.names, strict=True):
        assert torch.allclose(torch.tensor(bar.get_facecolor()[:3]), rgb(colours[name].mark), atol=1e-6)


def rgb(colour: str) -> torch.Tensor:
    return torch.tensor([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])


def test_intervals_are_drawn_where_there_are_some() -> None:
    found = report()
    drawn = [line.get_xdata() for line in panel(dominance_figure(found), "value").lines]
    for low, high in found.value_intervals.values():
        assert any(list(ends) == pytest.approx([low, high]) for ends in drawn)
    one = dominance_figure(report(1, knockouts=False))
    assert len(panel(one, "value").lines) == 1  # the zero


def test_routing_is_marked_beside_the_shares_and_named_routing() -> None:
    found = report()
    figure = dominance_figure(found)
    read = found.routing[found.routing["where"] == "readout"].set_index("backbone")["mass"]
    marks = [line.get_xdata()[0] for line in panel(figure, "share").lines if line.get_marker() == "o"]
    assert marks == pytest.approx([read[name] for name in found.names])
    assert any("routing" in text.get_text() for text in figure.texts)


def test_the_largest_knock_outs_are_shown_most_harmful_first() -> None:
    found = report()
    shown = widths(panel(dominance_figure(found), "change when knocked out"))
    effects = found.effects()["change"]
    expected = sorted(sorted(effects, key=abs, reverse=True)[:MOST])
    assert shown == pytest.approx(expected) and len(effects) > MOST


def test_without_knock_outs_there_is_no_panel_for_them() -> None:
    figure = dominance_figure(report(knockouts=False))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["value", "share"]


def test_where_no_value_is_positive_no_share_is_drawn() -> None:
    found = report()
    negative = gf.Dominance(
        found.names, found.target, -found.picture_values.abs(), None, None, found.none, found.full
    )
    assert all(math.isnan(share) for share in negative.shares.values())
    figure = dominance_figure(negative)
    assert widths(panel(figure, "share")) == [0, 0]
    assert [text.get_text() for text in panel(figure, "share").texts] == ["none", "none"]


def test_a_notebook_shows_the_figure_and_the_table() -> None:
    shown = report()._repr_html_()
    assert shown.count("data:image/png;base64,") == 1 and "<table" in shown and "share low" in shown
