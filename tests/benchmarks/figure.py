"""Draws the README's figure: `python tests/benchmarks/figure.py`."""

from few_labels import CACHE, LITE, PER_CLASS, feature_grids

import grafeat as gf

PICTURE = 7
QUERY = ("small_vit", 3, 4)
LAYER = 1


def main() -> None:
    """Trains the script's pair on 500 labels and draws where one patch's sharpest head looks, on one test digit."""
    grids = feature_grids(["small_vit"], CACHE).only(LITE, "small_vit").few_labels(PER_CLASS, seed=0)
    model = gf.GraFeatMerge.for_grids(grids, num_classes=10)
    gf.fit(model, grids.train, val=grids.val, seed=0)
    with gf.capture(model) as attention:
        model(grids.test[PICTURE])
    picture = gf.load_dataset("mnist5k").test.pictures[PICTURE]
    name, row, column = QUERY
    by_head = attention.cross(name, LITE, layer=LAYER)[0, :, row, column]  # (heads, 4, 4)
    sharpest = int(by_head.amax(dim=(1, 2)).argmax())
    figure = gf.plots.attention_maps(attention, QUERY, picture, layer=LAYER, head=sharpest)
    figure.savefig("notebooks/cross_attention.png", dpi=130)


if __name__ == "__main__":
    main()
