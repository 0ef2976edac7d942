"""A comparison in words: figures as they are printed, and what they mean for who asks whether merging pays."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from grafeat.lab.task import ANOMALY

Outcome = Literal["paid", "lost", "even", ""]
CHOSEN = ("best rival", "best outsider")
RIVALS = {"concat": "concatenation", "ensemble": "the ensemble"}


@dataclass(frozen=True)
class Said:
    """What one task shows.

    Attributes:
        task: The task.
        outcome: Whether merging paid against the best rival, with an interval above 0; lost, with one below; or neither
            is sure. Empty where there is no merge, or nothing to hold it against.
        outside: The same against the best outsider: the best way that is not the merge with one part changed.
        winners: Which of `concat` and `ensemble` are better than the merge, with an interval above 0.
        sentence: All of it in words.
        seeds: How many trainings it is seen in.
    """

    task: str
    outcome: Outcome
    outside: Outcome
    winners: tuple[str, ...]
    sentence: str
    seeds: int


def judged(rows: pd.DataFrame) -> Said:
    """What the rows of one task show."""
    records: list[dict[str, Any]] = rows.to_dict("records")
    task, seeds = records[0]["task"], len(records[0]["seeds"].split())
    merge = next((row for row in records if row["kind"] == "merge"), None)
    if merge is None:
        return Said(task, "", "", (), f"{task}: no merge was compared.", seeds)
    rival = next((row for row in records if row["contender"] == merge["best rival"]), None)
    if rival is None:
        return Said(task, "", "", (), f"{task}: there was no rival to the merge ({figure(merge)}).", seeds)
    outcome, outside = (_outcome(merge[f"to {one} low"], merge[f"to {one} high"]) for one in CHOSEN)
    better = [row for row in records if row["kind"] == "way" and row["to merge low"] > 0]
    winners = tuple(name for name in RIVALS if name in {row["contender"] for row in better})
    sentence = f"{task}: {_main(merge, rival, outcome)}{_outsider(merge)}{_others(better, rival)}"
    return Said(task, outcome, outside, winners, sentence, seeds)


def summary(found: Sequence[Said]) -> str:
    """All tasks in a few sentences, with what their intervals do not hold."""
    counted = [one for one in found if one.outcome]
    if not counted:
        return "Nothing can be said of merging: no task has both a merge and a rival."
    said = f"Against the best other way, chosen on validation, {_counted([one.outcome for one in counted])}"
    outside = [one.outside for one in counted if one.outside]
    if outside and outside != [one.outcome for one in counted]:
        said += f" Against the best way that is not the merge with one part changed, {_counted(outside)}"
    for name, words in RIVALS.items():
        won = [one.task for one in counted if name in one.winners]
        if won:
            said += f" {words[0].upper()}{words[1:]} wins against the merge on {len(won)}: {', '.join(won)}."
    return f"{said}{_several(counted)}{_one_seed(counted)}"


def figure(row: Mapping[str, Any]) -> str:
    """A mean with its interval, in per cent without the sign."""
    return f"{100 * row['mean']:.1f} ({interval(row['low'], row['high'])})"


def interval(low: float, high: float) -> str:
    """The ends of an interval, in per cent without the sign."""
    return f"{100 * low:.1f}–{100 * high:.1f}"


def difference(row: Mapping[str, Any], other: str) -> str:
    """How many points a row is better than another, with the interval; a dash where there is nothing to compare."""
    value, low, high = (row[f"to {other}{end}"] for end in ("", " low", " high"))
    return "–" if math.isnan(value) else f"{_points(value)} ({_end(low)} to {_end(high)})"


def _main(merge: Mapping[str, Any], rival: Mapping[str, Any], outcome: Outcome) -> str:
    means = f"{figure(merge)} against {figure(rival)} of {_called(rival)}, {_best(merge)}"
    gain = f"{difference(merge, 'best rival')} points"
    return {
        "paid": f"merging paid, {means}: {gain}.",
        "lost": f"merging did not pay, {means}: {gain}. {_upper(_called(rival))} wins.",
        "even": f"no sure difference, {means}: {gain}.",
    }[outcome or "even"]


def _best(merge: Mapping[str, Any]) -> str:
    """As what the rival was chosen; no class is unknown on validation, so there is no AUROC there."""
    return f"the best other way on validation{' (by accuracy)' if merge['measure'] in ANOMALY else ''}"


def _others(better: Sequence[Mapping[str, Any]], rival: Mapping[str, Any]) -> str:
    """Those that the test shows to be better than the merge, and that validation did not choose."""
    more = [row for row in better if row["contender"] != rival["contender"]]
    if not more:
        return ""
    listed = "; ".join(f"{_called(row)} by {difference(row, 'merge')}" for row in more)
    return f" Better than the merge on the test, though not chosen on validation: {listed}."


def _outsider(merge: Mapping[str, Any]) -> str:
    """What merging gains over the best way of another design, where the best rival is none."""
    other = merge["best outsider"]
    if not other or other == merge["best rival"]:
        return ""
    gain = difference(merge, "best outsider")
    return f" Against {RIVALS.get(other, repr(other))}, the best way of another design: {gain}."


def _counted(outcomes: Sequence[Outcome]) -> str:
    paid, lost, even = (outcomes.count(kind) for kind in ("paid", "lost", "even"))
    return f"merging paid on {paid} of {_tasks(len(outcomes))}, lost on {lost}, and made no sure difference on {even}."


def _several(counted: Sequence[Said]) -> str:
    return " Each interval is of one task by itself, not corrected for their number." if len(counted) > 1 else ""


def _one_seed(counted: Sequence[Said]) -> str:
    """Nothing is drawn anew of one seed but pictures."""
    alone = [one.task for one in counted if one.seeds == 1]
    where = "" if len(alone) == len(counted) else f" on {', '.join(alone)}"
    return f" There is one seed{where}: its intervals hold nothing of another training's luck." if alone else ""


def _outcome(low: float, high: float) -> Outcome:
    if math.isnan(low):
        return ""
    return "paid" if low > 0 else "lost" if high < 0 else "even"


def _called(row: Mapping[str, Any]) -> str:
    return RIVALS.get(row["contender"], f"{row['contender']!r}")


def _points(value: float) -> str:
    said = f"{100 * value:+.1f}".replace("-", "−")
    return said.replace("+0.0", "0.0").replace("−0.0", "0.0")


def _end(value: float) -> str:
    """An interval's end, with one more decimal where one would hide on which side of 0 it lies."""
    near = 0.005 <= abs(100 * value) < 0.05
    return f"{100 * value:+.2f}".replace("-", "−") if near else _points(value)


def _upper(words: str) -> str:
    return words[0].upper() + words[1:]


def _tasks(count: int) -> str:
    return f"{count} task{'' if count == 1 else 's'}"
