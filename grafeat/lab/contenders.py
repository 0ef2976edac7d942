"""What is compared: every way to mix, and the controls that say why one of them wins."""

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from grafeat.config import MergeConfig
from grafeat.fusion import list_ways
from grafeat.grids import GridSet
from grafeat.lab.seen import EqualPatches, Only, Seen, Strange, Twice
from grafeat.lab.task import Task
from grafeat.models import GridModel

Kind = Literal["way", "control", "merge"]
Builder = Callable[[GridSet, int, int], GridModel]
SCRATCH = "scratch"  # the one way that learns from pictures, without backbones
COMMITTEES = ("ensemble", "voting")  # put together from trained singles: they cost no training
MERGE, SINGLE = "merge", "single"
PARTS = ("cross_only", "intra_only", "joint")  # rivals that are the merge with one part changed
RANDOM = "random"  # a spare backbone of random weights is called so
NEEDS = {way.name: way.least for way in list_ways()}


@dataclass(frozen=True)
class Contender:
    """A row of the table: a way to mix, and what it sees.

    Attributes:
        name: What to call it.
        way: One of `list_ways()`; or a function `(grids, num_classes, seed) -> GridModel` that builds a model of your
            own for the pictures to learn from that it is given. It is called with two pictures first, for the shapes of
            its model, and then once for each training. Its code, with the values that it takes from around itself, is
            part of what is kept: a builder that was edited is trained anew.
        seen: A function from a `GridSet` to what is seen of it, applied to each part by itself; the task's backbones
            if absent. A part is what is learned from, what is learned from without labels, validation, or the test.
        options: For the way `merge`: fields of `MergeConfig` that are not as they are by default.
        kind: `merge`, the model that is judged; `way`, its rivals; `control`, which explain and are no rivals. By
            default `merge` for the way of that name, `control` for a merge that sees other grids or has options and
            for the CNN from scratch, which learns from validation's labels too; else `way`.

    Raises:
        ValueError: If the way is unknown, or has options and is not `merge`, or an option is unknown; if an ensemble is
            told what it sees.
    """

    name: str
    way: str | Builder = ""
    seen: Seen | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: Kind | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "way", self.way or self.name)
        if isinstance(self.way, str) and self.way not in (*NEEDS, SCRATCH):
            close = difflib.get_close_matches(self.way, NEEDS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "gf.list_ways() says what each does"
            raise ValueError(
                f"way: got {self.way!r} for contender {self.name!r}; expected one of {', '.join(NEEDS)}, or a "
                f"function that builds a model; {hint}"
            )
        if self.seen is not None and self.way in COMMITTEES:
            raise ValueError(
                f"seen: got a function for the way {self.way!r} of contender {self.name!r}, which is put together from "
                "trained singles and sees what they see; expected None; give the task other backbones="
            )
        if self.options and self.way != MERGE:
            raise ValueError(
                f"options: got {', '.join(self.options)} for the way {self.way!r}; expected them for {MERGE!r} only; "
                "build the model yourself: way=function"
            )
        unknown = [name for name in self.options if name not in MergeConfig.__dataclass_fields__]
        if unknown:
            raise ValueError(
                f"options: got {unknown[0]!r} for contender {self.name!r}; expected fields of MergeConfig; see its "
                "docstring for their names"
            )
        if self.kind is None:
            changed = self.seen is not None or bool(self.options)
            judged: Kind = "control" if changed else "merge"
            others: Kind = "control" if self.way == SCRATCH else "way"
            object.__setattr__(self, "kind", judged if self.way == MERGE else others)

    @property
    def least(self) -> int:
        """How many backbones it needs."""
        return NEEDS.get(self.way, 1) if isinstance(self.way, str) else 1


def contenders(task: Task, ways: Collection[str] | None = None) -> list[Contender]:
    """The ways to mix a task's backbones, `single` once for each of them; with one backbone, those that work with one.

    Args:
        task: The task.
        ways: Names of those that are wanted; all if None.
    """
    found: list[Contender] = []
    for way, least in NEEDS.items():
        if ways is not None and way not in ways:
            continue
        if way == SINGLE:
            found += [single(name) for name in task.names]
        elif len(task.names) >= least:
            found.append(Contender(way))
    return found


def single(name: str) -> Contender:
    """One backbone by itself, under the same head."""
    return Contender(f"{SINGLE} {name}", SINGLE, Only((name,)))


def controls(task: Task) -> list[Contender]:
    """What a task's own merge must be held against to say why it is better or worse.

    Each backbone together with itself (more patches, nothing new); a third one of random weights, where the task has a
    spare backbone called `random`; the last backbone shown other pictures, in its own place and as one backbone more;
    as many patches of each; intra attention only, cross attention only; no interplay; not parted; no positions; no
    relation embeddings; and, where the task has pictures, a small CNN that is trained on them from scratch.
    """
    names, last = task.names, task.names[-1]
    found = [Contender(f"{name} twice", MERGE, Twice(name)) for name in names]
    if RANDOM in task.spare and RANDOM in task.tested.names:
        found.append(Contender("+ random weights", MERGE, Only((*names, RANDOM))))
    found.append(Contender("+ other pictures", MERGE, Strange(names, last, stands_in=False)))
    if len(names) > 1:
        found.append(Contender(f"{last} of other pictures", MERGE, Strange(names, last, stands_in=True)))
        if len({grid.shape for grid in task.grids.only(*names)[:1].grids}) > 1:
            found.append(Contender("equal patches", MERGE, EqualPatches(names)))
    found += [Contender(way, kind="control") for way in ("intra_only", "cross_only") if len(names) >= NEEDS[way]]
    if len(names) > 1:
        found.append(Contender("no interplay", MERGE, options={"interplay": False}))
        found.append(Contender("not parted", MERGE, options={"parted": False}))
    found.append(Contender("no positions", MERGE, options={"positions": False}))
    found.append(Contender("no relations", MERGE, options={"relations": False}))
    if task.pictures is not None and task.test is None:
        found.append(Contender("small CNN from scratch", SCRATCH, kind="control"))
    return found


def chosen(
    task: Task, wanted: Sequence[str | Contender] | None, *, controlled: bool
) -> tuple[list[Contender], list[str]]:
    """What is compared on a task, and the names of what was wanted and needs more backbones than it has.

    Raises:
        ValueError: If a name is unknown, or two contenders share one; if two are of the kind `merge`, as one is judged;
            if a network is to learn from the pictures of a task that tests on others.
    """
    asked: list[Contender] = []
    for one in NEEDS if wanted is None else wanted:
        if isinstance(one, Contender):
            asked.append(one)
        elif not isinstance(one, str):
            raise TypeError(f"contenders: got {one!r} among them; expected names or Contenders; see gf.list_ways()")
        elif one == SINGLE:
            asked += contenders(task, [SINGLE])
        else:
            asked.append(_named(one, task))
    names = [one.name for one in asked]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"contenders: got {twice[0]!r} twice; expected different names; leave one out or rename it")
    merges = [one.name for one in asked if one.kind == MERGE]
    if len(merges) > 1:
        raise ValueError(
            f"contenders: got {' and '.join(map(repr, merges))}, all of kind 'merge'; expected one, which is judged; "
            "give the others kind='way' or kind='control'"
        )
    scratch = [one.name for one in asked if one.way == SCRATCH]
    if scratch and task.test is not None:
        raise ValueError(
            f"contenders: got {scratch[0]!r} for task {task.name!r}, whose test= are grids of other pictures; expected "
            "contenders that see grids, as it sees pictures; leave it out there"
        )
    if controlled:
        asked += [one for one in controls(task) if one.name not in names]
    fits = [one for one in asked if one.least <= len(task.names)]
    return fits, [one.name for one in asked if one not in fits]


def _named(name: str, task: Task) -> Contender:
    """A contender by the name that it has in the table."""
    known = {one.name: one for one in (*map(single, task.names), *controls(task), *map(Contender, NEEDS))}
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "gf.list_ways() says what each does"
        raise ValueError(
            f"contenders: got {name!r} for task {task.name!r}; expected some of {', '.join(known)}; {hint}"
        )
    return known[name]
