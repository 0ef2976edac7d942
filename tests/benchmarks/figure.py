"""Draws the README's figure: `python tests/benchmarks/figure.py`."""

from few_labels import CACHE, LITE, PER_CLASS, feature_grids

import grafeat as gf

PICTURE = 7
QUERY = ("small_vit", 3, 4)


def main() -> None:
    """Trains the script's pair on 500 labels and draws one patch's attention on one test digit."""
    grids = feature_grids(["small_vit"], CACHE).only(LITE, "small_vit").few_labels(PER_CLASS, seed=0)
    model = gf.GraFeatMerge.for_grids(grids, num_classes=10)
    gf.fit(model, grids.train, val=grids.val, seed=0)
    with gf.capture(model) as attention:
        model(grids.test[PICTURE])
    picture = gf.load_dataset("mnist5k").test.pictures[PICTURE]
    figure = gf.plots.attention_maps(attention, QUERY, picture, layer=1)
    figure.savefig("notebooks/cross_attention.png", dpi=130)


if __name__ == "__main__":
    main()
