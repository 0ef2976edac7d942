"""The table of the planted truths is what its seeds say, and shows what was not reached as well."""

import pytest
from benchmarks import report

ROWS = report.table("planted.csv")


def test_there_are_five_seeds_of_every_task() -> None:
    tasks = {row["task"].partition(":")[0] for row in ROWS}
    assert tasks == {"one speaks", "pointer", "repeat", "blind", "other pictures", "seen object"}
    assert all(len([row[f"seed {seed}"] for seed in range(5) if row[f"seed {seed}"]]) == 5 for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['task']}: {row['figure']}")
def test_a_row_is_what_its_seeds_say(row: dict[str, str]) -> None:
    seeds = [float(row[f"seed {seed}"]) for seed in range(5)]
    mean, low, high = (float(row[name]) for name in ("mean", "low", "high"))
    assert mean == pytest.approx(sum(seeds) / 5, rel=2e-3, abs=1e-7)
    assert low <= mean <= high
    words, _, bound = row["aim"].rpartition(" ")
    if words in ("at least", "at most"):
        good = mean >= float(bound) if words == "at least" else mean <= float(bound)
        assert row["reached"] == ("yes" if good else "no")
    else:
        assert row["reached"] in (("yes", "no") if words else ("",))


def test_the_table_shows_every_row_and_counts_the_aims() -> None:
    shown = report.planted()
    assert all(f"| {row['task']} | {row['figure']} | {row['mean']} " in shown for row in ROWS)
    aimed = [row["reached"] for row in ROWS if row["aim"]]
    assert f"{aimed.count('yes')} of {len(aimed)} aims reached." in shown


def test_a_stranger_has_about_a_tenth_of_the_share_and_no_worth() -> None:
    """As notebook 08 says of the default merge."""
    mean = {row["figure"]: float(row["mean"]) for row in ROWS if row["task"] == "other pictures"}
    assert 0.08 < mean["share of the one shown other pictures"] < 0.13
    assert mean["CUR of the one shown other pictures"] < 0.005
    assert mean["named worthless, or perhaps"] == 1
