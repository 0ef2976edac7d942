"""Writes the measured figures into the README and `figures.md`, from `results/`: `python tests/benchmarks/report.py`.

With `planted`, it shows the table of the planted truths instead, as Markdown.
"""

import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grafeat.lab.comparison import Comparison
from grafeat.lab.contenders import PARTS
from grafeat.lab.said import difference, figure

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[2] / "README.md"
PAGE = Path(__file__).parent / "figures.md"
START, END = "<!-- figures: python tests/benchmarks/report.py -->", "<!-- end of figures -->"
AGAINST = {
    "over concatenation": "concat",
    "over the ensemble": "ensemble",
    "over the best way of another design": "best outsider",
    "over the best of all ways": "best rival",
}  # in words, and its column
LAB = {
    "lab": "EfficientNet-Lite0 and a small CNN: every way on every kind of task",
    "lab_other_writers": "The same, tested on digits of other writers, by which nothing was chosen",
    "lab_labels": "EfficientNet-Lite0 and a small CNN with fewer and more labels",
    "lab_two_cnns": "Two CNNs",
    "lab_cnn_and_vit": "A CNN and a ViT",
    "lab_three_kinds": "Three of different kinds",
    "lab_controls": "Controls: what the merge gains from, and what not",
    "lab_interplay": "What interplay and parting add where no backbone knows the answer alone",
}


def main() -> None:
    """Replaces what stands between the two marks and writes the page, or shows the other table."""
    if sys.argv[1:] == ["planted"]:
        print(planted())
        return
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(START)
    README.write_text(f"{before}{START}\n{figures()}{END}{rest.split(END)[1]}", encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")


def figures() -> str:
    """What stands in the README, as Markdown."""
    return f"{merging()}\n{unseen()}\n{pointer()}\n{million()}"


def page() -> str:
    """Every table, each under the command that measured it."""
    parts = [
        "# What was measured",
        "Written by `python tests/benchmarks/report.py` from the tables in [results](results). Times were taken on a "
        "machine that did nothing else; compare ratios, not milliseconds. Those of the lab are medians over the seeds, "
        "two trainings at a time, some beside other work.",
    ]
    for name, (heading, show) in SECTIONS.items():
        if not any(RESULTS.glob(f"{name}*.csv")):
            continue  # not measured yet
        parts += [f"## {heading}", f"`python tests/benchmarks/{name}.py`", show().strip()]
    return "\n\n".join(parts) + "\n"


def merging() -> str:
    """What merging gains on each task over what one would do otherwise, in points, and that in words."""
    found = Comparison.from_csv(RESULTS / "lab.csv")
    lines = [f"| {' | '.join(('', 'GraFeat-Merge', *AGAINST))} |", "|---|" + "---|" * (1 + len(AGAINST))]
    for row in found.rows.to_dict("records"):
        if row["kind"] == "merge":
            gains = (f"{difference(row, of)}{named(row, of)}" for of in AGAINST.values())
            lines.append(f"| {' | '.join((row['task'], figure(row), *gains))} |")
    first = found.rows.iloc[0]
    words = (
        f"Mean over {len(first['seeds'].split())} seeds in per cent, and what merging gains in points, each with its "
        f"95% interval. What is best is chosen on validation, never on the test; a gain is "
        f"sure where its interval leaves out 0. {found.verdict().splitlines()[0]} {tallied(found)}"
    )
    return "\n".join(lines) + f"\n\n{words}\n"


def unseen() -> str:
    """What is left of it on digits by which nothing was chosen, in words."""
    found = Comparison.from_csv(RESULTS / "lab_other_writers.csv")
    pictures = found.rows.iloc[0]["pictures"]
    return (
        f"*On other writers' digits*, {pictures:,} of them, by which nothing was chosen: "
        f"{found.verdict().splitlines()[0]} {tallied(found)}\n"
    )


def tallied(found: Comparison) -> str:
    """How the merge does against each way of another design by itself, in words."""
    counts = found.tally()
    others = counts[(counts["tasks"] > 1) & ~counts.index.isin(PARTS)]
    worse = [f"{name} on {row['merge worse']}" for name, row in counts.iterrows() if row["merge worse"]]
    return (
        f"Whichever way of another design one settles on, the merge is surely better on at least "
        f"{others['merge better'].min()} of {len(found.tasks)} tasks. The merge is surely worse than "
        f"{', '.join(worse) or 'no other way'}."
    )


def named(row: Mapping[str, Any], of: str) -> str:
    """Which way that is, where each task has its own."""
    return f", {row[of]}" if of in row else ""


def pointer() -> str:
    """Accuracy on the pointer task."""
    rows = table("pointer.csv")
    words = "; ".join(f"{row['model']} {float(row['accuracy']):.1%}" for row in rows)
    return f"*Pointer*, one more training each, by `pointer.py` (chance 25%): {words}.\n"


def explorer() -> str:
    """Size and times of an exported explorer, and of BertViz."""
    rows, columns = table("explorer.csv"), ["MB", "written s", "first paint ms", "hover ms", "layer switch ms"]
    lines = [f"| one picture, 6 layers × 8 heads | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    lines += [
        f"| {row['what']}, {row['patches']} patches | {' | '.join(row[column] for column in columns)} |"
        for row in rows
    ]
    return "\n".join(lines) + f"\n\n{measured_on(rows)}\n"


def speed() -> str:
    """Ratios of time to the references."""
    rows = [row for path in sorted(RESULTS.glob("speed_*.csv")) for row in table(path.name)]
    lines = ["| time, as a ratio in one run | ours | reference | ratio | aim, at most |", "|---|---|---|---|---|"]
    lines += [
        f"| {r['what']} | {r['ours ms']} ms | {r['reference ms']} ms | {r['ours / reference']} | {r['aim, at most']} |"
        for r in rows
    ]
    aimed = [row for row in rows if row["aim, at most"]]
    reached = sum(float(row["ours / reference"]) <= float(row["aim, at most"]) for row in aimed)
    words = f"{reached} of {len(aimed)} aims reached. {measured_on(rows)}"
    return "\n".join(lines) + f"\n\n{words}\n"


def planted() -> str:
    """What was aimed at and reached on tasks whose answer is known, with intervals over the seeds."""
    rows = table("planted.csv")
    lines = ["| task | figure | mean (95% over seeds) | aim | reached |", "|---|---|---|---|---|"]
    lines += [
        f"| {r['task']} | {r['figure']} | {r['mean']} ({r['low']} to {r['high']}) | {r['aim']} | {r['reached']} |"
        for r in rows
    ]
    aimed = [row["reached"] for row in rows if row["aim"]]
    words = f"{aimed.count('yes')} of {len(aimed)} aims reached. {measured_on(rows)}"
    return "\n".join(lines) + f"\n\n{words}\n"


def explaining() -> str:
    """How long explanations take."""
    rows = [row for path in sorted(RESULTS.glob("explaining_*.csv")) for row in table(path.name)]
    lines = ["| what | seconds | aim |", "|---|---|---|"]
    lines += [f"| {row['what']} | {row['seconds']} | {row['aim']} |" for row in rows]
    return "\n".join(lines) + f"\n\n{measured_on(rows)}\n"


def audits() -> str:
    """Of each method, the mean of each test, and in how many seeds it was passed."""
    rows, parts = table("audits.csv"), []
    for data in dict.fromkeys(row["data"] for row in rows):
        own = {(row["method"], row["test"]): row for row in rows if row["data"] == data}
        methods, tests = (list(dict.fromkeys(key[k] for key in own)) for k in (0, 1))
        first = next(iter(own.values()))
        lines = [f"| {data}, {first['pictures']} pictures | {' | '.join(tests)} |", "|---|" + "---|" * len(tests)]
        for method in methods:
            found = [own.get((method, test)) for test in tests]
            cells = ["–" if r is None else f"{r['mean']} ({r['passed']}/{r['seeds']})" for r in found]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    words = "Mean over the seeds, and in how many the test was passed; `gf.thresholds()` says what each asks for."
    return "\n\n".join([*parts, f"{words} {measured_on(rows)}"]) + "\n"


def large() -> str:
    """The store, memory, start and training, beside what was aimed at."""
    rows = table("large_cpu.csv")
    lines = ["| what | figure | aim |", "|---|---|---|"]
    lines += [f"| {row['what']} | {row['figure']} | {row['aim']} |" for row in rows]
    return "\n".join(lines) + f"\n\n{measured_on(rows)}\n"


def million() -> str:
    """What a million pictures would cost, in a sentence."""
    if not (RESULTS / "large_cpu.csv").exists():
        return ""
    found = {row["what"]: row for row in table("large_cpu.csv")}
    (hours,) = (row for what, row in found.items() if what.startswith("a million pictures"))
    (size,) = (row for what, row in found.items() if what.startswith("the same, GB"))
    return (
        f"A{hours['what'].removeprefix('a').removesuffix(', hours')}: {hours['figure']} hours on two CPU cores and "
        f"{size['figure']} GB of grids, computed once. Several processes or GPUs divide the hours "
        "(`accelerate launch`, `extract(…, accelerator=…)`).\n"
    )


def scaling() -> str:
    """How time and memory of a training step grow."""
    rows = table("scaling_cpu.csv")
    columns = ["what", "size", "seconds", "MB", "exponent of time", "exponent of memory"]
    lines = [f"| {' | '.join(columns)} |", "|---|" + "---|" * (len(columns) - 1)]
    lines += [f"| {' | '.join(row[column] for column in columns)} |" for row in rows]
    drawn = "![Time and memory of a training step by size, with fitted power laws](results/scaling_cpu.png)"
    return "\n".join([drawn, "", *lines]) + f"\n\n{measured_on(rows)}\n"


def lab() -> str:
    """Of each comparison: every contender's figure by task, what the merge gains on the best, and the verdict."""
    paths = {name: RESULTS / f"{name}.csv" for name in LAB}
    return "\n\n".join(
        f"### {LAB[name]}\n\n{compared(Comparison.from_csv(path))}" for name, path in paths.items() if path.exists()
    )


def compared(found: Comparison) -> str:
    """One comparison as Markdown, the best of each task in bold; controls are no rivals."""
    rows = found.rows.to_dict("records")
    cell = {(row["contender"], row["task"]): row for row in rows}
    best = {task: max(r["mean"] for r in rows if r["task"] == task and r["kind"] != "control") for task in found.tasks}
    lines = [f"| | {' | '.join(found.tasks)} |", "|---|" + "---|" * len(found.tasks)]
    for name in dict.fromkeys(row["contender"] for row in rows):
        shown = (lab_cell(cell.get((name, task)), best[task]) for task in found.tasks)
        lines.append(f"| {name} | {' | '.join(shown)} |")
    merges = {row["task"]: row for row in rows if row["kind"] == "merge"}
    for against in ("best rival", "best outsider"):
        gains = (lab_gain(merges.get(task), against) for task in found.tasks)
        lines.append(f"| *merge minus {against}, points* | {' | '.join(gains)} |")
    first = rows[0]
    words = f"Seeds {first['seeds']}; {first['versions']}; {max(row['date'] for row in rows)}; {first['machine']}."
    said = "\n".join(f"- {line}" for line in found.verdict().splitlines())
    return "\n".join(lines) + f"\n\n{said}\n\n{words}"


def lab_cell(row: dict[str, Any] | None, best: float) -> str:
    """A figure in per cent with its interval."""
    if row is None:
        return "–"
    return f"**{figure(row)}**" if row["mean"] == best and row["kind"] != "control" else figure(row)


def lab_gain(row: dict[str, Any] | None, against: str) -> str:
    """What the merge gains on the best rival or outsider, with its interval."""
    if row is None or not row[against]:
        return "–"
    return difference(row, against) + named(row, against)


def defaults() -> str:
    """Accuracy with the defaults, and how many points each change gains on them."""
    rows = table("defaults.csv")
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    cell = {(row["change"], row["task"]): row for row in rows}
    lines = [f"| {' | '.join(('change', *tasks))} |", "|---|" + "---|" * len(tasks)]
    for change in dict.fromkeys(row["change"] for row in rows):
        lines.append(f"| {' | '.join((change, *(default_cell(cell.get((change, task))) for task in tasks)))} |")
    words = (
        f"In per cent, and in points more than that, with the 95% interval over {rows[0]['seeds']} seeds and "
        f"{' and '.join(dict.fromkeys(row['pictures'] for row in rows))} pictures that no test of the lab uses; a dash "
        "where the change is none."
    )
    first = rows[0]
    return "\n".join(lines) + f"\n\n{words} {first['versions']}; {first['date']}. {measured_on(rows)}\n"


def default_cell(row: dict[str, str] | None) -> str:
    """The accuracy of the defaults, and of a change the difference to it."""
    if row is None:
        return "–"
    if row["change"] == "defaults":
        return f"{100 * float(row['accuracy']):.1f}"
    return difference({name: float(value) for name, value in row.items() if name.startswith("to ")}, "defaults")


def measured_on(rows: Sequence[Mapping[str, str]]) -> str:
    """The machines that some rows come from; several where a table was written in parts."""
    return f"Measured on: {'; '.join(dict.fromkeys(row['machine'] for row in rows))}."


def table(name: str) -> list[dict[str, str]]:
    """The rows of a result file."""
    with (RESULTS / name).open(newline="") as file:
        return list(csv.DictReader(file))


SECTIONS: dict[str, tuple[str, Callable[[], str]]] = {
    "pointer": ("Can cross edges do what pooling cannot?", pointer),
    "lab": ("Does merging pay?", lab),
    "defaults": ("Which defaults?", defaults),
    "planted": ("Do values and relevance tell the truth where it is known?", planted),
    "audits": ("Which explanations can be trusted?", audits),
    "explaining": ("How long does explaining take?", explaining),
    "explorer": ("How large and how fast is the explorer?", explorer),
    "speed": ("What does a step cost?", speed),
    "scaling": ("How does it grow?", scaling),
    "large": ("What do the store and large sets cost?", large),
}

if __name__ == "__main__":
    main()
