"""The curves of an audit are drawn as they were measured."""

import pytest
import torch

from grafeat.explanations.verdict import Audit
from grafeat.plots.audit import audit_curves

CURVES = {
    "deletion": {"own": [1.0, 0.1, 0.0], "inverse": [1.0, 1.2, 0.0], "random": [1.0, 0.5, 0.0]},
    "insertion": {"own": [0.0, 0.9, 1.0], "inverse": [0.0, -0.4, 1.0], "random": [0.0, 0.6, 1.0]},
}
AUDIT = Audit({}, {"one": CURVES, "two": CURVES}, torch.zeros(7, dtype=torch.long))


def test_each_method_has_a_panel_for_deletion_and_one_for_insertion() -> None:
    figure = audit_curves(AUDIT)
    assert len(figure.axes) == 4
    for ax, way in zip(figure.axes, ("deletion", "insertion") * 2, strict=True):
        drawn = [list(line.get_ydata()) for line in ax.lines if len(line.get_xdata()) == 3]
        assert drawn == [CURVES[way][name] for name in ("random", "inverse", "own")]
        assert ax.get_xlabel() == ("cells deleted" if way == "deletion" else "cells inserted")


def test_all_panels_share_their_limits() -> None:
    limits = {ax.get_ylim() for ax in audit_curves(AUDIT).axes}
    assert limits == {(-0.4, 1.2)}


def test_some_methods_may_be_chosen_and_unknown_ones_are_named() -> None:
    assert len(audit_curves(AUDIT, methods=["two"]).axes) == 2
    with pytest.raises(ValueError, match=r"methods: got 'three'; this audit is of one, two"):
        audit_curves(AUDIT, methods=["three"])
