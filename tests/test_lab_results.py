"""The lab's tables: how much is trained for them, who made them, and that the page shows each as it is."""

import datetime
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from benchmarks import report
from test_data import idx

import grafeat as gf
from grafeat.fusion import WAYS
from grafeat.lab import Task
from grafeat.lab.cells import LAB
from grafeat.lab.lessons import trainings
from grafeat.lab.said import difference
from grafeat.shifts import SHIFTS

BENCHMARKS = Path(report.__file__).parent
SETS = {"general and narrow": 2, "two CNNs": 2, "CNN and ViT": 2, "three kinds": 3}


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, which imports its neighbours."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "lab", raising=False)
    return __import__("lab")


def made(backbones: int, count: int = 60) -> gf.GridSet:
    generator = torch.Generator().manual_seed(backbones)
    names = ["efficientnet_lite0", "small_cnn", "third"][:backbones]
    labels = torch.arange(count) % 3
    grids = [
        gf.FeatureGrid(name, labels[:, None, None, None] + torch.randn(count, 3, 2, 2 + n, generator=generator))
        for n, name in enumerate(names)
    ]
    grids.append(gf.FeatureGrid("random", torch.randn(count, 3, 1, 2, generator=generator)))
    return gf.GridSet(grids, labels).split(val=0.2, test=0.3)


def training_of(name: str) -> str:
    """What the suite's tasks share their training by."""
    with_50 = {"digits, 50 a class", *(f"digits, {kind}" for kind in SHIFTS), "retrieval", "retrieval, recall@5"}
    return "digits" if name in with_50 else name.removesuffix(", knn").removesuffix(", mahalanobis")


def stand_ins(names: tuple[str, ...], backbones: int) -> list[Task]:
    """Tasks of those names; the first has pictures."""
    grids = {training_of(name): made(backbones) for name in names}
    pictures = gf.PictureSet(torch.zeros(60, 1, 2, 2), torch.arange(60) % 3).split(val=0.2, test=0.3)
    return [
        Task(
            name,
            grids[training_of(name)],
            per_class=5,
            backbones=made(backbones).names[:-1],
            pictures=pictures if name == names[0] else None,
        )
        for name in names
    ]


def test_all_tables_together_take_700_trainings_at_most(lab: ModuleType) -> None:
    counted = {
        name: trainings(lab.groups_of(table, stand_ins(table.tasks, SETS[table.backbones]), 5))
        for name, table in lab.TABLES.items()
    }
    assert counted.pop("lab_other_writers") == 195  # which is not trained unless it is named
    assert list(counted) == lab.USUAL
    assert counted == {
        "lab": 390,  # 6 trainings for 13 tasks, of 13 ways that train
        "lab_labels": 100,
        "lab_two_cnns": 40,
        "lab_cnn_and_vit": 60,
        "lab_three_kinds": 50,
        "lab_controls": 50,
        "lab_interplay": 10,
    }
    assert sum(counted.values()) <= 700


def test_every_way_is_on_every_family_of_tasks_and_every_table_has_a_heading(lab: ModuleType) -> None:
    assert lab.TABLES["lab"].contenders == WAYS
    assert list(lab.TABLES) == list(report.LAB)
    assert {table.backbones for table in lab.TABLES.values()} == set(lab.SETS) == set(SETS)


def test_other_writers_digits_are_mnists_own_test_and_no_other_picture_of_theirs_is_there(
    lab: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for MNIST's files, as they are not in every checkout."""
    draw = torch.Generator().manual_seed(0)
    drawn = {train: torch.randint(256, (23 * 10, 28, 28), dtype=torch.uint8, generator=draw) for train in (True, False)}
    for train, pictures in drawn.items():
        write_mnist(tmp_path, "train" if train else "t10k", pictures, torch.arange(len(pictures)) % 10)
    monkeypatch.setattr(lab, "MNIST", tmp_path)
    monkeypatch.setattr(lab, "TESTED", 7)
    digits, own = lab.digits_of_other_writers(), gf.load_dataset("mnist5k")
    assert digits.parts == {"train": 4500, "val": 500, "test": 70} and digits.classes == own.classes
    assert torch.equal(digits.test.labels.bincount(), torch.full((10,), 7))
    assert {row.numpy().tobytes() for row in stored(digits.test)} <= {row.numpy().tobytes() for row in drawn[False]}
    learned = {row.numpy().tobytes() for part in (digits.train, digits.val) for row in stored(part)}
    assert learned == {row.numpy().tobytes() for row in stored(own)}
    assert torch.equal(digits.val.labels, own.val.labels)


def stored(digits: gf.PictureSet) -> torch.Tensor:
    return (digits.pictures[:, 0] * 255).round().to(torch.uint8)


def write_mnist(folder: Path, half: str, pictures: torch.Tensor, labels: torch.Tensor) -> None:
    """One half of the files as MNIST has them."""
    (raw := folder / "MNIST" / "raw").mkdir(parents=True, exist_ok=True)
    for kind, values in (("images-idx3", pictures), ("labels-idx1", labels.to(torch.uint8))):
        (raw / f"{half}-{kind}-ubyte").write_bytes(idx(values.numpy()))


def test_parts_share_the_work_without_overlap(lab: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(lab, "every_task", lambda backbones, **_: stand_ins(lab.WIDE[:1] + lab.LABELS, SETS[backbones]))
    monkeypatch.setattr(lab, "train", lambda groups: seen.append([str(one) for group in groups for one in group]))
    for part in ("1/2", "2/2", "1/1"):
        monkeypatch.setattr(sys, "argv", ["lab.py", "--tables", "lab_labels", "--seeds", "3", "--part", part])
        lab.main()
    first, second, whole = seen
    assert sorted(first + second) == sorted(whole) and len(set(whole)) == len(whole)
    assert abs(len(first) - len(second)) <= 7  # one group


@pytest.mark.parametrize("name", [*report.LAB, "defaults"])
def test_a_table_was_made_by_this_lab_and_says_when_and_by_which_command(name: str) -> None:
    for row in report.table(f"{name}.csv"):
        assert f"(lab {LAB})" in row["versions"]
        assert datetime.date.fromisoformat(row["date"])
        python, script, *_ = row["command"].split()
        assert (python, (BENCHMARKS.parents[1] / script).is_file()) == ("python", True)


# The page


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> gf.Comparison:
    tasks = [Task("one", made(2), backbones=("efficientnet_lite0", "small_cnn")), Task("two", made(3))]
    wanted = ["single", "concat", "merge", "no positions"]
    found = gf.compare(tasks, wanted, seeds=2, controls=False, epochs=1, progress=False)
    return gf.Comparison(found.rows.assign(machine="a machine"))


def test_the_page_shows_every_figure_of_a_comparison(compared: gf.Comparison) -> None:
    shown = report.compared(compared)
    for row in compared.rows.to_dict("records"):
        figure = f"{100 * row['mean']:.1f} ({100 * row['low']:.1f}–{100 * row['high']:.1f})"
        (line,) = [line for line in shown.splitlines() if line.startswith(f"| {row['contender']} |")]
        assert figure in line.split(" | ")[1 if row["task"] == "one" else 2]
    assert "| single third | – |" in shown  # which the first task has not
    assert all(line in shown for line in compared.verdict().splitlines())
    assert "a machine" in shown and "Seeds 0 1" in shown


def test_the_best_that_is_no_control_is_bold_and_the_merge_is_held_against_its_rival(compared: gf.Comparison) -> None:
    lines = [line.strip("| ").split(" | ") for line in report.compared(compared).splitlines() if line[:2] == "| "]
    *contenders, gains, outside = lines[1:]
    for column, task in enumerate(compared.tasks, start=1):
        ways = compared.rows[(compared.rows["task"] == task) & (compared.rows["kind"] != "control")]
        best = set(ways[ways["mean"] == ways["mean"].max()]["contender"])
        assert {cells[0] for cells in contenders if cells[column].startswith("**")} == best
        merge = ways[ways["kind"] == "merge"].iloc[0]
        assert gains[0] == "*merge minus best rival, points*"
        assert gains[column].startswith(difference(merge.to_dict(), "best rival"))
        assert gains[column].endswith(f"), {merge['best rival']}")
        assert outside[0] == "*merge minus best outsider, points*"
        assert outside[column].endswith(f"), {merge['best outsider']}")


def test_a_sentence_counts_on_how_many_tasks_the_merge_is_surely_better_or_worse(compared: gf.Comparison) -> None:
    rows = compared.rows.copy()
    ends = ["to merge low", "to merge high"]
    rows.loc[rows["contender"] == "concat", ends] = -0.02, -0.01
    rows.loc[rows["contender"] == "single small_cnn", ends] = [[-0.02, -0.01], [0.01, 0.02]]
    rows.loc[rows["contender"] == "single efficientnet_lite0", ends] = [[-0.02, -0.01], [-0.01, 0.02]]
    assert report.tallied(gf.Comparison(rows)) == (
        "Whichever way of another design one settles on, the merge is surely better on at least 1 of 2 tasks. "
        "The merge is surely worse than single small_cnn on 1."
    )
    rows.loc[rows["contender"] == "single small_cnn", ends] = -0.02, -0.01
    assert report.tallied(gf.Comparison(rows)).endswith("The merge is surely worse than no other way.")


def test_what_is_not_measured_is_left_out(
    compared: gf.Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    assert report.lab() == ""
    compared.to_csv(tmp_path / "lab_two_cnns.csv")
    assert report.lab().startswith("### Two CNNs\n\n| | one | two |\n")
    assert "Three of different kinds" not in report.lab()
