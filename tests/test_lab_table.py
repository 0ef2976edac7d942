"""The rows of a comparison are what its cells say, by scikit-learn and statsmodels; its labels choose no rival."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels
from statsmodels.stats.multitest import multipletests
from test_lab_contenders import grids
from torch import Tensor

from grafeat.grids import FeatureGrid, GridSet
from grafeat.intervals import paired_difference
from grafeat.lab.cells import Cell
from grafeat.lab.contenders import Contender
from grafeat.lab.learners import subsets_of
from grafeat.lab.table import COLUMNS, FORMAT, Judged, rows, validation
from grafeat.lab.task import Task
from grafeat.splits import Rows

SEEDS = (0, 3, 4)
CONTENDERS = (
    Contender("single a", "single"), Contender("concat"), Contender("ensemble"), Contender("merge"),
    Contender("no positions", "merge", options={"positions": False}),
)  # fmt: skip
SKILL = {"single a": 0.5, "concat": 0.6, "ensemble": 0.7, "merge": 0.8, "no positions": 0.99}


def said(labels: Rows, skill: float, classes: int, seed: int) -> Tensor:
    """Logits that are right for about this share of the pictures."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(len(labels), classes, generator=generator)
    right = torch.rand(len(labels), generator=generator) < skill
    return noise + 2 * F.one_hot(torch.where(right, labels % classes, (labels + 1) % classes), classes)


def cell(task: Task, contender: Contender, seed: int, skill: float | None = None) -> Cell:
    skill = SKILL[contender.name] if skill is None else skill
    number = 31 * seed + len(contender.name)
    subsets = subsets_of(("a",) if contender.way == "single" else ("a", "b"))
    few = task.labelled(seed)
    logits = [
        said(task.tested.labels, skill / (1 + place), task.num_classes, number + place)
        for place in range(len(subsets))
    ]
    vectors = {
        name: F.one_hot(part.labels, task.num_classes + 2).float() + torch.rand(
            len(part), task.num_classes + 2, generator=torch.Generator().manual_seed(number)
        ) / skill
        for name, part in (("vectors", task.tested), ("val_vectors", few.val), ("train_vectors", few.train))
    }  # fmt: skip
    return Cell(
        subsets=subsets,
        logits=torch.stack(logits),
        val_logits=said(few.val.labels, skill, task.num_classes, number + 7),
        parameters=100 + len(contender.name),
        seconds=seed + 1.0,
        inference=2.0,
        date=f"2026-01-0{seed + 1} 00:00:00",
        versions="grafeat 7",
        **vectors,
    )


def judged(task: Task | None = None, skills: dict[str, float] | None = None, *names: str) -> Judged:
    task = task or Task("made up", grids(401))
    chosen = [one for one in CONTENDERS if not names or one.name in names]
    results = {
        one.name: (one, [cell(task, one, seed, (skills or {}).get(one.name)) for seed in SEEDS]) for one in chosen
    }
    return Judged(task, results, SEEDS)


def right(of: Judged, name: str) -> Tensor:
    labels = of.task.tested.labels
    return torch.stack([one.logits[0].argmax(dim=1) == labels for one in of.results[name][1]])


# The figures


def test_means_intervals_and_paired_differences() -> None:
    made = judged()
    table = rows([made]).set_index("contender")
    for name in made.names:
        expected = sum(
            accuracy_score(made.task.tested.labels, one.logits[0].argmax(dim=1)) for one in made.results[name][1]
        ) / len(SEEDS)
        assert table.loc[name, "mean"] == pytest.approx(expected, abs=1e-6)
        nothing = torch.zeros_like(right(made, name))
        own = paired_difference(right(made, name), nothing)
        assert table.loc[name, ["low", "high"]].tolist() == pytest.approx([own.low, own.high], abs=2e-6)
        for other in ("concat", "ensemble", "merge"):
            found = table.loc[name, [f"to {other}", f"to {other} low", f"to {other} high"]].tolist()
            if name == other:
                assert all(map(math.isnan, found))
            else:
                gain = paired_difference(right(made, name), right(made, other))
                assert found == pytest.approx([gain.value, gain.low, gain.high], abs=2e-6)


def test_the_rest_of_a_row() -> None:
    made = judged()
    table = rows([made]).set_index("contender")
    row = table.loc["merge"]
    assert list(rows([made]).columns) == list(COLUMNS)
    assert (row["format"], row["task"], row["family"], row["measure"]) == (FORMAT, "made up", "made up", "accuracy")
    assert (row["kind"], table.loc["concat", "kind"], table.loc["no positions", "kind"]) == ("merge", "way", "control")
    assert (row["parameters"], row["training seconds"], row["inference ms"]) == (105, 4.0, 2.0)  # 1, 4 and 5 s
    few = made.task.labelled(0)
    assert (row["labels"], row["pictures"]) == (len(few.train) + len(few.val), len(made.task.tested))
    assert (row["seeds"], row["versions"], row["date"]) == ("0 3 4", "grafeat 7", "2026-01-05")
    assert row["subsets"].startswith("a + b 0.")
    assert row["CUR"].startswith("a +") and "; b +" in row["CUR"]
    assert 0 <= row["gap low"] <= row["gap high"]
    assert (table.loc["single a", "CUR"], table.loc["single a", "subsets"].count(";")) == ("", 0)
    assert math.isnan(table.loc["single a", "information gap"])


def test_figures_are_means_over_the_tasks_own_measure() -> None:
    made = judged(Task("made up", grids(401), measure="retrieval"))
    table = rows([made]).set_index("contender")
    for name in made.names:
        expected = sum(run.figure for run in made.runs[name]) / len(SEEDS)
        assert table.loc[name, "mean"] == pytest.approx(expected, abs=1e-6)
    assert set(table.loc["merge", ["p to concat", "Holm p to ensemble"]]) == {""}


def anomalies() -> Task:
    """Trained on classes 0 and 1; the test has 2 as well."""
    made = grids(401)
    keep = made.labels < 2
    known = GridSet(
        [FeatureGrid(grid.name, grid.features[keep]) for grid in made.grids], made.labels[keep], classes=("0", "1")
    )
    return Task("anomalies", known.split(val=0.2, test=0.1), test=made.test, measure="knn_auroc")


def test_an_auroc_is_that_of_scikit_learn_and_cur_is_of_known_classes() -> None:
    made = judged(anomalies())
    table = rows([made]).set_index("contender")
    labels = made.task.tested.labels
    expected = sum(roc_auc_score(labels > 1, run.scores) for run in made.runs["merge"]) / len(SEEDS)
    assert table.loc["merge", "mean"] == pytest.approx(expected, abs=1e-6)
    assert table.loc["merge", "low"] < expected < table.loc["merge", "high"]
    known = labels < 2
    accuracy = sum(
        accuracy_score(labels[known], one.logits[0].argmax(dim=1)[known]) for one in made.results["merge"][1]
    ) / len(SEEDS)
    assert f"a + b {accuracy:.4f}" in table.loc["merge", "subsets"]


# Who the rival is


def test_the_best_rival_is_the_way_that_is_best_on_validation_whatever_the_test_says() -> None:
    made = judged()
    assert made.rivals == {
        "concat": "concat", "ensemble": "ensemble", "best rival": "ensemble", "best outsider": "ensemble",
        "merge": "merge",
    }  # fmt: skip
    upside_down = {
        name: (one, [replace(each, logits=-each.logits) for each in cells])
        for name, (one, cells) in made.results.items()
    }
    assert Judged(made.task, upside_down, SEEDS).rivals == made.rivals
    assert judged(None, {"single a": 0.95}).rivals["best rival"] == "single a"
    assert set(rows([made])["best rival"]) == {"ensemble"}


def test_a_part_of_the_merge_may_be_the_best_rival_and_is_no_outsider() -> None:
    made = judged()
    contender, cells = made.results["ensemble"]
    changed = made.results | {"ensemble": (replace(contender, way="joint", kind="way"), cells)}
    found = Judged(made.task, changed, SEEDS).rivals
    assert found["best rival"] == "ensemble" != found["best outsider"]
    only = {"ensemble": changed["ensemble"]}
    assert "best outsider" not in Judged(made.task, only, SEEDS).rivals


def test_a_merge_with_other_options_is_no_outsider() -> None:
    made = judged()
    shallow = Contender("ensemble", "merge", options={"depth": 1}, kind="way")
    found = Judged(made.task, made.results | {"ensemble": (shallow, made.results["ensemble"][1])}, SEEDS).rivals
    assert found["best rival"] == "ensemble" and found["best outsider"] == "concat"


def test_labels_of_the_test_do_not_choose_the_rival() -> None:
    task = Task("made up", grids(401))
    labels = task.grids.labels.clone()
    where = task.grids.part_positions["test"]
    labels[where] = labels[where].flip(0)
    poisoned = Task("made up", GridSet(
        task.grids.grids, labels, classes=task.grids.classes, parts=task.grids.part_positions
    ))  # fmt: skip
    made = judged(task)
    other = Judged(poisoned, made.results, SEEDS)
    assert other.rivals == made.rivals and other.validations == made.validations
    assert rows([other])["mean"].tolist() != rows([made])["mean"].tolist()


@pytest.mark.parametrize("best", ["single a", "concat", "ensemble"])
def test_equal_scores_are_told_apart_by_the_loss(best: str) -> None:
    made = judged()
    own = [one.val_logits for one in made.results["merge"][1]]
    same = {
        name: (one, [
            replace(each, val_logits=logits * (1.0 if name == best else 0.01))
            for each, logits in zip(cells, own, strict=True)
        ])
        for name, (one, cells) in made.results.items()
    }  # fmt: skip
    tied = Judged(made.task, same, SEEDS)
    assert len({score for score, _ in tied.validations.values()}) == 1
    assert tied.rivals["best rival"] == best


def test_without_rivals_or_a_merge_there_is_less_to_say() -> None:
    alone = rows([judged(None, None, "merge")]).iloc[0]
    assert alone["best rival"] == "" and math.isnan(alone["to best rival"])
    without = judged(None, None, "concat", "single a")
    assert "merge" not in without.rivals
    assert rows([without])["to merge"].isna().all()


@pytest.mark.parametrize("measure", ["accuracy", "knn_auroc", "retrieval", "recall@5"])
def test_validation_is_by_the_tasks_measure_where_that_can_be_taken(measure: str) -> None:
    task = Task("made up", grids(401))
    one, labels = cell(task, CONTENDERS[1], 3), task.labelled(3).val.labels
    score, loss = validation(measure, one, labels)
    assert loss == pytest.approx(log_loss(labels, one.val_logits.double().softmax(dim=1), labels=[0, 1, 2]))
    accuracy = accuracy_score(labels, one.val_logits.argmax(dim=1))
    assert (score == pytest.approx(accuracy)) == (measure in ("accuracy", "knn_auroc"))
    few = torch.tensor([0, 1, 1, 2, 2])  # class 0 has nothing to find
    short = replace(one, val_logits=one.val_logits[:5], val_vectors=one.val_vectors[:5])
    accuracy = accuracy_score(few, short.val_logits.argmax(dim=1))
    assert validation(measure, short, few)[0] == pytest.approx(accuracy)


# Pictures in groups


@pytest.mark.parametrize("measure", ["accuracy", "retrieval", "knn_auroc"])
def test_groups_change_intervals_alone_and_leave_mcnemar_out(measure: str) -> None:
    task = anomalies() if measure == "knn_auroc" else Task("made up", grids(401), measure=measure)
    alone = rows([judged(task)])
    grouped = rows([judged(replace(task, groups=[row // 5 for row in range(len(task.tested))]))])
    ends = [column for column in COLUMNS if column.split()[-1] in ("low", "high")]
    tests = [column for column in COLUMNS if column.startswith(("p to", "Holm"))]
    same = [column for column in COLUMNS if column not in (*ends, *tests, "CUR")]
    assert grouped[same].equals(alone[same])
    assert not any(grouped[column].equals(alone[column]) for column in ("low", "to merge high", "gap low", "CUR"))
    assert set(grouped[tests].to_numpy().flatten()) == {""}
    assert (alone["p to concat"] != "").any() == (measure == "accuracy")


def test_a_task_with_groups_does_not_count_among_those_that_are_tested() -> None:
    one, other = judged(), judged(Task("another", grids(301)), {"merge": 0.72})
    grouped = judged(replace(other.task, groups=list(range(len(other.task.tested)))), {"merge": 0.72})
    columns = ["p to ensemble", "Holm p to ensemble"]
    found = rows([one, grouped])
    assert found[found["task"] == "made up"][columns].equals(rows([one])[columns])
    assert set(found[found["task"] == "another"]["p to ensemble"]) == {""}


# Tests, corrected


def test_p_values_are_mcnemars_for_each_seed_corrected_over_the_tasks() -> None:
    one, other = judged(), judged(Task("another", grids(301)), {"merge": 0.72})
    auroc = judged(anomalies())
    table = rows([one, other, auroc]).set_index(["task", "contender"])
    raw = {}
    for made in (one, other):
        pairs = zip(right(made, "merge"), right(made, "ensemble"), strict=True)
        raw[made.task.name] = [
            mcnemar_of_statsmodels(
                [[int((a & b).sum()), int((a & ~b).sum())], [int((~a & b).sum()), int((~a & ~b).sum())]], exact=True
            ).pvalue
            for a, b in pairs
        ]  # fmt: skip
        found = [float(p) for p in table.loc[(made.task.name, "merge"), "p to ensemble"].split()]
        assert found == pytest.approx(raw[made.task.name], rel=1e-2)
    corrected = [multipletests(values, method="holm")[1] for values in zip(*raw.values(), strict=True)]
    for number, name in enumerate(raw):
        found = [float(p) for p in table.loc[(name, "merge"), "Holm p to ensemble"].split()]
        assert found == pytest.approx([values[number] for values in corrected], rel=1e-2)
        assert table.loc[(name, "merge"), "Holm p to best rival"] == table.loc[(name, "merge"), "Holm p to ensemble"]
    assert table.loc[("anomalies", "merge"), "p to ensemble"] == ""
    assert set(table.drop(index=[("made up", "merge"), ("another", "merge")])["p to concat"]) == {""}
