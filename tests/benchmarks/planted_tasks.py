"""The planted tasks on made-up grids and on digits: train, explain, compare with what is known. Run by `planted.py`."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from digits import CACHE, LITE, PER_CLASS, feature_grids
from torch import Tensor

import grafeat as gf
from grafeat import planted
from grafeat.explanations.knockouts import KnockOut, knock_out

Figure = tuple[str, str, float]  # name, aim, value
RECIPES: dict[str, dict[str, Any]] = {
    "one speaks": {"backbone_drop": 0.3, "epochs": 10},
    "pointer": {"backbone_drop": 0.0, "epochs": 12},
    "repeat": {"backbone_drop": 0.3, "epochs": 10},
    "blind": {"backbone_drop": 0.0, "epochs": 8, "width": 64, "learning_rate": 2e-3},
}
SILENT = 0.2  # share of training pictures in which the speaker says nothing
EXPLAINED = 500  # pictures of *blind* that are explained
POINTED = 300  # pictures for which relevance is asked
METHODS = (
    "gradient_rollout",
    "gradient_x_input",
    "grad_cam",
    "integrated_gradients",
    "gradient_shap",
    "ablation",
)
AIMED = ("integrated_gradients", "ablation")  # a gradient method and knocking out are to find the patch
NEAR = 0.05  # of what guessing gets


def trained(
    task: str, train: gf.GridSet, seed: int, *, val: gf.GridSet | None = None, cross: bool = True
) -> gf.GraFeatMerge:
    """A merge by the task's recipe; a plain one, so that edges and patches are all there is to explain."""
    recipe = {"width": 32, "depth": 1, "learning_rate": 3e-3} | RECIPES[task]
    model = gf.GraFeatMerge.for_grids(
        train,
        num_classes=len(train.classes),
        width=recipe["width"],
        depth=recipe["depth"],
        backbone_drop=recipe["backbone_drop"],
        cross_drop=0.0,
        cross=cross,
        interplay=False,
        parted=False,
        seed=seed,
    )
    gf.fit(
        model,
        train,
        val=val,
        epochs=recipe["epochs"],
        learning_rate=recipe["learning_rate"],
        mixup=0.0,
        own_loss=0.0,
        seed=seed,
        progress=False,
    )
    return model


def one_speaks(speaker: str, backbones: str, *, silent: float = SILENT) -> Callable[[int], Iterator[Figure]]:
    """Who speaks has the value, and the planted patch comes first."""

    def figures(seed: int) -> Iterator[Figure]:
        options: dict[str, Any] = {"speaker": speaker, "backbones": tuple(backbones)}
        train, _ = planted.one_speaks(3000, silent=silent, seed=seed, **options)
        test, places = planted.one_speaks(1000, seed=1000 + seed, **options)
        model = trained("one speaks", train, seed)
        yield "accuracy", "", gf.evaluate(model, test).accuracy
        report = gf.dominance(model, test, knockouts=False)
        yield "share of the speaker", "at least 0.9" if silent else "", report.shares[speaker]
        for name in report.names:
            yield f"CUR of {name}", "", float(report.utilisation.loc[name, "CUR"])
        for method in METHODS if silent else AIMED:
            found = first(model, test[:POINTED], method, speaker, places)
            aim = "at least 0.99" if silent and method in AIMED else ""
            yield f"planted patch first by {method}", aim, float(found.double().mean())
        if not silent:
            labels = test.required_labels("test")[:POINTED]
            by_class = [float(found[labels == number].double().mean()) for number in range(4)]
            yield "the same in the class where it is rarest first", "", min(by_class)
            yield "the same in the class after that", "", sorted(by_class)[1]

    return figures


def first(model: gf.GraFeatMerge, test: gf.GridSet, method: str, speaker: str, places: Tensor) -> Tensor:
    """Whether the planted patch is the most relevant of all patches, for each picture."""
    relevance = gf.relevance(model, test, method=method)
    vertices = [relevance.graph.vertex(speaker, *place) for place in places[: len(test)].tolist()]
    return relevance.flat.argmax(dim=1) == torch.tensor(vertices)


def pointer(seed: int) -> Iterator[Figure]:
    """Neither knows it alone, and without cross edges little more than a guess is left."""
    train, test = (planted.pointer(count, seed=number) for count, number in ((4000, seed), (1000, 1000 + seed)))
    model = trained("pointer", train, seed)
    yield "accuracy", "at least 0.95", gf.evaluate(model, test).accuracy
    standing = test["classes"].features[:, :4].argmax(dim=1).flatten(1)
    most = standing.mode(dim=1).values
    guess = float((most == test.required_labels("test")).double().mean())
    yield "guessing the class that stands most often", "", guess
    with knock_out(model, KnockOut("cross"), gf.PatchGraph.of(test[:1])):
        run = gf.evaluate(model, test).accuracy
    yield "accuracy run without cross edges, above 0.25", f"at most {NEAR}", run - 0.25
    without = gf.evaluate(trained("pointer", train, seed, cross=False), test).accuracy
    yield "accuracy trained without cross edges, above that guess", f"at most {NEAR}", without - guess
    report = gf.dominance(model, test, knockouts=False)
    pair = float(report.interactions.loc["pointer", "classes"])
    yield "interaction, of the sum of values", "at least 0.5", pair / sum(report.values.values())


def repeat(seed: int) -> Iterator[Figure]:
    """The same backbone twice has the same value."""
    train, test = (planted.repeat(count, seed=number) for count, number in ((3000, seed), (1000, 1000 + seed)))
    model = trained("repeat", train, seed)
    yield "accuracy", "", gf.evaluate(model, test).accuracy
    report = gf.dominance(model, test, knockouts=False)
    yield "value of first minus second", "interval holds 0", report.values["first"] - report.values["second"]
    yield "interaction", "", float(report.interactions.loc["first", "second"])
    values = gf.dominance(planted.tied(model), test, knockouts=False).picture_values
    largest = float((values[:, 0] - values[:, 1]).abs().max())
    yield "largest difference of values in a picture, tied parameters", "at most 1e-05", largest


def blind(seed: int) -> Iterator[Figure]:
    """Two backbones that learned from other digits see one of two digits each, and the label is their sum."""
    grids = halves(seed)
    model = trained("blind", grids.train, seed, val=grids.val)
    yield "accuracy", "", gf.evaluate(model, grids.test).accuracy
    alone = grids.only("left")
    single = gf.evaluate(trained("blind", alone.train, seed, val=alone.val), alone.test).accuracy
    yield "accuracy of left, trained alone, above 0.1", f"at most {NEAR}", single - 0.1
    report = gf.dominance(model, grids.test[:EXPLAINED], knockouts=False)
    accuracy = report.subsets.set_index("backbones")["accuracy"]
    for name in report.names:
        yield f"accuracy of {name} in the merge, above 0.1", f"at most {NEAR}", float(accuracy[name]) - 0.1
        yield f"CUR of {name}", "", float(report.utilisation.loc[name, "CUR"])
    yield "value of left minus right", "interval holds 0", report.values["left"] - report.values["right"]


def halves(seed: int) -> gf.GridSet:
    """The small CNN twice, which sees the left digit alone, and the right one."""
    feature_grids("small_cnn")  # trains it, where it is not there
    views = {"left": gf.Crop(0, 0, 0.5, 1), "right": gf.Crop(0.5, 0, 1, 1)}
    backbones = [
        gf.load_backbone(f"trained/{CACHE / 'small_cnn.safetensors'}", name=name, view=view)
        for name, view in views.items()
    ]
    both = planted.two_digits(gf.load_dataset("mnist5k"), 8000, seed=seed)
    return gf.extract(backbones, both, progress=False)


def other_pictures(seed: int) -> Iterator[Figure]:
    """EfficientNet is shown other digits than the small ViT, which is right in most: 500 labels, the default model."""
    grids = feature_grids("small_vit")
    rows = torch.arange(len(grids))
    generator = torch.Generator().manual_seed(seed)
    for part in grids.part_positions.values():
        rows[part] = part[torch.randperm(len(part), generator=generator)]
    shuffled = gf.FeatureGrid(LITE, grids[LITE].features[rows], field=grids[LITE].field)
    both = gf.GridSet(
        [grids["small_vit"], shuffled], grids.labels, classes=grids.classes, parts=grids.part_positions
    ).few_labels(PER_CLASS, seed=seed)
    accuracies = []
    for shown in (both, both.only("small_vit")):
        model = gf.GraFeatMerge.for_grids(shown, num_classes=10, seed=seed)
        gf.fit(model, shown.train, val=shown.val, seed=seed, progress=False)
        accuracies.append(gf.evaluate(model, shown.test).accuracy)
        if shown is both:
            report = gf.dominance(model, shown.test, knockouts=False)
    yield "accuracy", "", accuracies[0]
    yield "accuracy of the good one, trained alone", "", accuracies[1]
    row = report.utilisation.loc[LITE]
    yield "CUR of the one shown other pictures", "interval holds or is below 0", float(row["CUR"])
    yield "named worthless, or perhaps", "at least 1", float("nothing" in str(row["verdict"]))
    yield "CUR of the good one", "", float(report.utilisation.loc["small_vit", "CUR"])
    yield "share of the one shown other pictures", "", report.shares[LITE]


TASKS: dict[str, Callable[[int], Iterator[Figure]]] = {
    "one speaks: a of two": one_speaks("a", "ab"),
    "one speaks: b of two": one_speaks("b", "ab"),
    "one speaks: b of three": one_speaks("b", "abc"),
    "one speaks: b of three, never silent": one_speaks("b", "abc", silent=0.0),
    "pointer": pointer,
    "repeat": repeat,
    "blind": blind,
    "other pictures": other_pictures,
}
