"""What a comparison found: a table that prints, exports and says in plain words whether merging paid."""

import html
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pandas as pd

from grafeat.files import write
from grafeat.lab.said import difference, figure, interval, judged, summary
from grafeat.lab.table import COLUMNS, FORMAT, TEXT, WHOLE

ACROSS = 100  # columns that a terminal has
SHORT = 3  # tasks that are printed in full; of more, each has one line
HEADINGS = ("task", "contender", "kind", "figure (95%)", "to best rival", "to concat", "to ensemble", "parameters",
            "training s", "inference ms")  # fmt: skip
MORE = {"p to best rival": "Holm p to best rival", "CUR (95%)": "CUR"}  # too wide for a notebook
DIFFERENCES = "Differences are this row minus the other, in points, in pairs, with 95% intervals."
LEGEND = (
    f"{DIFFERENCES} p is McNemar's, one for each seed, corrected over the tasks by Holm's method. CUR is the accuracy "
    "lost without a backbone, as a share of that with all."
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Whether merging pays, for each task and contender.

    Attributes:
        rows: One row for each task and contender: the mean of the task's measure with its 95% interval (seeds and
            pictures, or a task's groups of pictures, drawn anew together); what the row is better by than `concat`,
            `ensemble`, the best rival (the way that was best on validation), the best outsider (the same among ways
            that are not the merge with one part changed) and the merge, in pairs and with intervals; for the merge,
            McNemar's exact p for each seed, also corrected over the tasks by Holm's method, and left out for a task
            whose pictures come in groups; parameters, median duration of a training and of an inference; CUR of each
            backbone, their spread and the accuracy of every subset; seeds, pictures, versions and date.

    Raises:
        ValueError: If the rows are not those of `compare`.
    """

    rows: pd.DataFrame

    def __post_init__(self) -> None:
        missing = [column for column in COLUMNS if column not in self.rows.columns]
        if missing or not len(self.rows):
            what = f"no column {missing[0]!r}" if missing else "no rows"
            raise ValueError(f"rows: got a table with {what}; expected what gf.compare gives; run it, or read its CSV")

    @property
    def tasks(self) -> list[str]:
        """The tasks' names."""
        return list(dict.fromkeys(self.rows["task"]))

    def of(self, task: str) -> pd.DataFrame:
        """The rows of one task, best mean first.

        Raises:
            ValueError: If there is no such task.
        """
        if task not in self.tasks:
            raise ValueError(f"task: got {task!r}; expected one of {', '.join(self.tasks)}; name one of them")
        chosen = self.rows[self.rows["task"] == task]
        return chosen.sort_values("mean", ascending=False, kind="stable", ignore_index=True)

    def verdict(self) -> str:
        """In plain words, whether merging paid: over all tasks, then for each of them, a line each."""
        each = [judged(self.of(task)) for task in self.tasks]
        return "\n".join([summary(each), *(one.sentence for one in each)])

    def tally(self) -> pd.DataFrame:
        """On how many tasks the merge is surely better than each other way, level with it, and surely worse.

        Sure is a paired 95% interval that leaves out 0, of one task by itself and not corrected for their number.

        Returns:
            A row for each way, the one that loses most often last, with the columns `tasks` (on which both are),
            `merge better`, `level` and `merge worse`. Controls are left out, as they are no rivals.
        """
        ways = self.rows[(self.rows["kind"] == "way") & self.rows["to merge"].notna()]
        better, worse = ways["to merge high"] < 0, ways["to merge low"] > 0
        found = {"tasks": True, "merge better": better, "level": ~(better | worse), "merge worse": worse}
        counts = pd.DataFrame(found).groupby(ways["contender"], sort=False).sum()
        return counts.sort_values("merge better", kind="stable")

    def __repr__(self) -> str:
        first = self.rows.iloc[0]
        lines = [f"Comparison: {_count(self.tasks, 'task')}, seeds {first['seeds']}, 95% intervals"]
        full = len(self.tasks) <= SHORT
        for task in self.tasks:
            lines += _printed(self.of(task)) if full else _one_line(self.of(task))
        if not full:
            lines.append("  .of(task) has all contenders of a task, .rows all columns")
        said = [textwrap.fill(line, ACROSS, subsequent_indent="  ") for line in self.verdict().splitlines()]
        return "\n".join([*lines, "", *said])

    def _repr_html_(self) -> str:
        said = "".join(f"<li>{html.escape(line)}</li>" for line in self.verdict().splitlines())
        head = "".join(f'<th style="text-align:left">{name}</th>' for name in HEADINGS)
        body = "".join(_html_row(row) for row in map(_cells, self._records()))
        folded = "" if len(self.tasks) > SHORT else " open"
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return (
            f"<ul>{said}</ul><details{folded}><summary>{_count(self.rows, 'row')}</summary>{table}</details>"
            f"<p><small>{html.escape(_note(self.rows))} {DIFFERENCES}</small></p>"
        )

    def to_csv(self, path: str | Path) -> Path:
        """Writes all columns as a CSV file, which `from_csv` reads back.

        Raises:
            OSError: If it cannot be written; names it.
        """
        return write(path, self.rows.to_csv(index=False, lineterminator="\n"))

    @classmethod
    def from_csv(cls, path: str | Path) -> Self:
        """The comparison that `to_csv` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is no such table, or of another version of it.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(
                f"path: there is no file {path}; expected a table that to_csv wrote; check the name"
            )
        try:
            read = pd.read_csv(path, dtype=str, keep_default_na=False)
        except (ValueError, UnicodeDecodeError) as error:
            raise ValueError(
                f"path: {path} is no table ({error}); expected what to_csv writes; make it anew"
            ) from error
        _check_format(path, read)
        _check_rivals(path, read)
        numbers = [name for name in COLUMNS if name in read and name not in TEXT]
        return cls(read.assign(**{name: _numbers(path, name, read[name]) for name in numbers}))

    def to_markdown(self) -> str:
        """What a notebook shows, with p and CUR, as a table in Markdown."""
        head = (*HEADINGS, *MORE)
        lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        lines += [
            f"| {' | '.join(cell.replace('|', '/') for cell in (*_cells(row, '**'), *_more(row)))} |"
            for row in self._records()
        ]
        return "\n".join([*lines, "", f"{_note(self.rows)} {LEGEND}"]) + "\n"

    def _records(self) -> list[dict[str, Any]]:
        return [row for task in self.tasks for row in self.of(task).to_dict("records")]


def _check_format(path: str | Path, read: pd.DataFrame) -> None:
    if "format" not in read or not len(read):
        raise ValueError(f"path: {path} is no table of a comparison; expected what to_csv writes; make it anew")
    found = sorted({str(one) for one in read["format"]})
    if found != [str(FORMAT)]:
        versions = read["versions"].iloc[0] if "versions" in read else "unknown versions"
        raise ValueError(
            f"path: {path} is in format {', '.join(found)} (made by {versions}); this version reads format {FORMAT}; "
            "make it anew with gf.compare over the same folder, where trainings that still fit are only read"
        )


def _check_rivals(path: str | Path, read: pd.DataFrame) -> None:
    there = set(zip(read["task"], read["contender"], strict=True))
    for column in ("best rival", "best outsider"):
        if column not in read:
            raise ValueError(
                f"path: {path} has no column {column!r}; expected all columns that to_csv wrote; make it anew"
            )
        for task, rival in zip(read["task"], read[column], strict=True):
            if rival and (task, rival) not in there:
                raise ValueError(
                    f"path: {path} has no row of {rival!r}, the {column} on {task!r}; expected all rows that to_csv "
                    "wrote; make it anew"
                )


def _numbers(path: str | Path, column: str, cells: pd.Series) -> list[float | int]:
    """The numbers of a column; not by pandas, whose numbers may be off by a last digit."""
    found: list[float | int] = []
    for line, cell in enumerate(cells, start=2):  # below the head
        try:
            found.append(int(cell) if column in WHOLE else float(cell or "nan"))
        except ValueError as error:
            raise ValueError(
                f"path: {path}, line {line}: got {cell!r} as {column!r}; expected a number; make it anew, as it is cut "
                "off or was changed"
            ) from error
    return found


def _printed(rows: pd.DataFrame) -> list[str]:
    first = rows.iloc[0]
    lines = ["", f"{first['task']}: {first['measure']}, {first['labels']:,} labels, {first['pictures']:,} pictures"]
    lines.append(f"  {'contender':<33}{'':<20}{'to best rival, points':<25}{'parameters':>10}{'train s':>9}")
    for row in rows.to_dict("records"):
        mark = "*" if row["kind"] == "merge" else "·" if row["kind"] == "control" else " "
        name = _cut(row["contender"], 32)
        lines.append(
            f"{mark} {name:<33}{figure(row):<20}{difference(row, 'best rival'):<25}{row['parameters']:>10,}"
            f"{row['training seconds']:>9.1f}"
        )
    return [*lines, "  * the merge, · controls, which are no rivals"]


def _one_line(rows: pd.DataFrame) -> list[str]:
    """A task in a line: the merge, its best rival, and what it gains."""
    merge = rows[rows["kind"] == "merge"]
    if not len(merge):
        top: dict[str, Any] = rows.iloc[0].to_dict()
        return [f"  {_cut(top['task'], 32):<33}{figure(top)} {top['contender']}"]
    row: dict[str, Any] = merge.iloc[0].to_dict()
    rival = f"to {_cut(row['best rival'], 18)}: {difference(row, 'best rival')}" if row["best rival"] else "no rival"
    return [f"  {_cut(row['task'], 32):<33}{figure(row):<20}{rival}"]


def _cells(row: dict[str, Any], bold: str = "") -> tuple[str, ...]:
    name = f"{bold}{row['contender']}{bold}" if row["kind"] == "merge" else row["contender"]
    name += " (best rival)" if row["contender"] == row["best rival"] else ""
    return (
        row["task"],
        name,
        row["kind"],
        f"{row['mean']:.1%} ({interval(row['low'], row['high'])})",
        *(difference(row, one) for one in ("best rival", "concat", "ensemble")),
        f"{row['parameters']:,}",
        f"{row['training seconds']:.1f}",
        f"{row['inference ms']:.2f}",
    )


def _more(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[column] or "–" for column in MORE.values())


def _html_row(cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f'<td style="text-align:left">{html.escape(cell)}</td>' for cell in cells) + "</tr>"


def _note(rows: pd.DataFrame) -> str:
    seeds, dates = sorted(set(rows["seeds"])), sorted(set(rows["date"]))
    versions = "; ".join(sorted(set(rows["versions"])))
    return f"Seeds {' / '.join(seeds)}; {versions}; trained until {dates[-1]}."


def _count(things: Sequence[object] | pd.DataFrame, name: str) -> str:
    return f"{len(things):,} {name}{'' if len(things) == 1 else 's'}"


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most // 2]}…{name[len(name) - most + most // 2 + 1 :]}"


