"""The verdict says what the intervals say, in words, and does not spare the merge."""

import math

import pandas as pd
import pytest

from grafeat.lab.said import difference, figure, judged, summary

NAN = float("nan")


def row(contender: str, mean: float, kind: str = "way", rival: str = "ensemble", **ends: tuple[float, ...]) -> dict:
    made = {"task": "digits", "contender": contender, "kind": kind, "mean": mean, "low": mean - 0.01,
            "high": mean + 0.01, "best rival": rival, "best outsider": rival,
            "measure": "accuracy", "seeds": "0 1 2"}  # fmt: skip
    for other in ("concat", "ensemble", "best rival", "best outsider", "merge"):
        given = ends.get(other.replace(" ", "_"), (NAN, NAN, NAN))
        made |= dict(zip((f"to {other}", f"to {other} low", f"to {other} high"), given, strict=True))
    return made


def table(gain: tuple[float, float, float], **others: tuple[float, float, float]) -> pd.DataFrame:
    """The merge's gain over the ensemble, its best rival, and what other ways are better by than the merge."""
    merge = row("merge", 0.95, "merge", best_rival=gain, best_outsider=gain, ensemble=gain)
    against = {"ensemble": tuple(-gain[at] for at in (0, 2, 1))} | others
    ways = [row(name.replace("_", " "), 0.95 + ends[0], merge=ends) for name, ends in against.items()]
    return pd.DataFrame([merge, *ways, row("no positions", 0.99, "control", merge=(0.04, 0.03, 0.05))])


@pytest.mark.parametrize(
    ("gain", "outcome", "words"),
    [
        ((0.004, 0.001, 0.008), "paid", "digits: merging paid, 95.0 (94.0–96.0) against 94.6 (93.6–95.6) of the"),
        ((-0.012, -0.02, -0.004), "lost", "digits: merging did not pay, 95.0"),
        ((0.004, -0.001, 0.008), "even", "digits: no sure difference, 95.0"),
        ((0.0, 0.0, 0.0), "even", "no sure difference"),
        ((0.004, 0.0, 0.008), "even", "no sure difference"),
    ],
)
def test_the_interval_decides_whether_it_paid(gain: tuple[float, ...], outcome: str, words: str) -> None:
    found = judged(table(gain))
    assert found.outcome == outcome
    assert words in found.sentence
    assert ("The ensemble wins." in found.sentence) == (outcome == "lost")
    assert found.winners == (("ensemble",) if outcome == "lost" else ())


def test_the_gain_is_said_in_points_with_its_interval() -> None:
    said = judged(table((0.0041, 0.0012, 0.0079))).sentence
    assert said.endswith("of the ensemble, the best other way on validation: +0.4 (+0.1 to +0.8) points.")


def test_concatenation_that_wins_is_named_though_validation_did_not_choose_it() -> None:
    found = judged(table((0.01, 0.004, 0.02), concat=(0.02, 0.01, 0.03), single_a=(-0.1, -0.2, -0.05)))
    assert found.outcome == "paid" and found.winners == ("concat",)
    assert found.sentence.endswith(
        "Better than the merge on the test, though not chosen on validation: concatenation by +2.0 (+1.0 to +3.0)."
    )


def test_a_part_of_the_merge_that_is_the_best_rival_leaves_the_question_of_other_designs() -> None:
    found = table((-0.01, -0.02, -0.004), joint=(0.01, 0.004, 0.02))
    found.loc[0, ["best rival", "best outsider"]] = "joint", "ensemble"
    found.loc[0, ["to best outsider", "to best outsider low", "to best outsider high"]] = 0.02, 0.01, 0.03
    said = judged(found)
    assert (said.outcome, said.outside) == ("lost", "paid")
    assert " Against the ensemble, the best way of another design: +2.0 (+1.0 to +3.0)." in said.sentence
    assert summary([said]).startswith(
        "Against the best other way, chosen on validation, merging paid on 0 of 1 task, lost on 1, and made no sure "
        "difference on 0. Against the best way that is not the merge with one part changed, merging paid on 1 of 1 task"
    )


def test_a_control_wins_nothing() -> None:
    assert "no positions" not in judged(table((0.01, 0.004, 0.02))).sentence


def test_without_a_merge_or_a_rival_that_is_said() -> None:
    assert judged(pd.DataFrame([row("concat", 0.9)])).sentence == "digits: no merge was compared."
    alone = judged(pd.DataFrame([row("merge", 0.9, "merge", rival="")]))
    assert (alone.outcome, alone.sentence) == ("", "digits: there was no rival to the merge (90.0 (89.0–91.0)).")


def test_all_tasks_in_a_sentence() -> None:
    paid, lost = judged(table((0.01, 0.004, 0.02))), judged(table((-0.01, -0.02, -0.004)))
    even = judged(table((0.01, -0.004, 0.02), concat=(0.02, 0.01, 0.03)))
    none = judged(pd.DataFrame([row("concat", 0.9)]))
    assert summary([paid, lost, even, none, paid]) == (
        "Against the best other way, chosen on validation, merging paid on 2 of 4 tasks, lost on 1, and made no sure "
        "difference on 1. Concatenation wins against the merge on 1: digits. The ensemble wins against the merge on 1: "
        "digits. Each interval is of one task by itself, not corrected for their number."
    )
    assert summary([paid]) == (
        "Against the best other way, chosen on validation, merging paid on 1 of 1 task, lost on 0, and made no sure "
        "difference on 0."
    )
    assert summary([none]) == "Nothing can be said of merging: no task has both a merge and a rival."


def test_one_seed_says_nothing_of_another_trainings_luck() -> None:
    several = judged(table((0.01, 0.004, 0.02)))
    alone = judged(table((0.01, 0.004, 0.02)).assign(task="sums", seeds="7"))
    assert (several.seeds, alone.seeds) == (3, 1)
    assert summary([alone]).endswith(" There is one seed: its intervals hold nothing of another training's luck.")
    assert " There is one seed on sums: its intervals" in summary([several, alone])
    assert "seed" not in summary([several, several])


@pytest.mark.parametrize("measure", ["knn_auroc", "mahalanobis_auroc", "retrieval", "accuracy"])
def test_a_rival_that_is_chosen_by_another_measure_is_said_to_be(measure: str) -> None:
    said = judged(table((0.01, 0.004, 0.02)).assign(measure=measure)).sentence
    assert ("the best other way on validation (by accuracy): " in said) == measure.endswith("auroc")


def test_figures_as_they_are_printed() -> None:
    one = row("concat", 0.9512, merge=(-0.0004, -0.012, 0.0003))
    assert figure(one) == "95.1 (94.1–96.1)"
    assert difference(one, "merge") == "0.0 (−1.2 to +0.03)"
    assert difference(row("concat", 0.9, merge=(0.004, 0.0, 0.00049)), "merge") == "+0.4 (0.0 to +0.05)"
    assert difference(row("merge", 0.9), "merge") == "–"
    assert math.isnan(row("merge", 0.9)["to merge"])
