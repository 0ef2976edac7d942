"""Tasks on which merging may or may not pay, for any backbones: few labels, shifts, clothes, sums, photographs, …"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from grafeat.backbones.backbone import Backbone
from grafeat.backbones.preparation import Crop
from grafeat.data import DEBIAN_ROOT, DIGITS, by_content, load_dataset
from grafeat.grids import GridSet
from grafeat.lab.task import ANOMALY, RETRIEVAL, Task
from grafeat.pictures import PictureSet
from grafeat.planted import load_cutouts, pointer, seen_object, two_digits
from grafeat.shifts import SHIFTS, shifted
from grafeat.splits import PARTS
from grafeat.store import GridStore, extract

FETCHED = Path(__file__).parents[2] / "build" / "fashion"  # by `make fashion`, in a checkout
LABELLED, CLOTHES_LABELLED = (10, 50, 100, 300), (10, 50, 100)  # labels a class, validation included
FEW = 50  # labels a class where their number is not the question
CLOTHES = {"train": 300, "val": 50, "test": 250}  # pictures of each class
SUMS, POINTED, PHOTOGRAPHS = 3500, 3000, 2000  # pictures
SIDE = 112  # of a photograph in pixels
KNOWN = 5  # digits that are trained where the others are anomalies
HALVES = (Crop(0, 0, 0.5, 1), Crop(0.5, 0, 1, 1))


def suite(
    backbones: Sequence[Backbone],
    *,
    store: str | Path | GridStore,
    which: Sequence[str] | None = None,
    spare: Sequence[Backbone] = (),
    digits: PictureSet | None = None,
    fashion: str | Path | None = None,
    stamps: str | Path | None = None,
    progress: bool = True,
) -> list[Task]:
    """Tasks of seven families, for `compare`. Grids are extracted once; tasks share them, and trainings too.

    - `few labels`: real digits, 10, 50, 100 or 300 labels a class; see `fresh_digits`.
    - `shifted`: the same training with 50 labels a class; test digits are turned, noisy, partly hidden or blurred.
    - `fashion`: clothes, 10, 50 or 100 labels a class; needs the files of Debian's package `dataset-fashion-mnist`.
    - `evidence`: what no backbone knows alone. *Blind sums*: two digits side by side, the first backbone sees the left
      one, the second the right one, and so on in turn, whatever view they had; the label is their sum. *Pointer*: the
      made-up grids of `planted.pointer`, the same for any backbones. A digit of the blind sums stands in about two
      pairs, with another one each time; intervals take no account of that.
    - `photographs`: cut-outs of birds, flowers, food, mammals and things on backgrounds that say nothing; those of the
      test are in no other part. A cut-out stands in several pictures, which intervals draw together. Needs the stamps
      that `make stamps` fetches.
    - `anomalies`: trained on the digits 0 to 4, 50 labels a class; how well distances of image vectors tell the others.
      A backbone that was trained on all ten digits has seen them.
    - `retrieval`: 50 labels a class; the image vectors of test digits look for others of their class.

    Args:
        backbones: Two or more, whose names differ.
        store: Folder for the feature grids.
        which: Names of families; all of them by default.
        spare: Backbones for controls: they see the digits of `few labels`, and no way is compared on them.
        digits: Labelled digits of the ten classes, with the parts `train`, `val` and `test`; by default those of
            `mnist5k`, see `fresh_digits`.
        fashion: Folder with the .gz files; by default `/usr/share/datasets/fashion-mnist`, or where `make fashion` puts
            them.
        stamps: Folder of the stamps' categories; by default where `planted.load_cutouts` looks.
        progress: Whether to show a progress bar.

    Returns:
        The tasks. Where a family's files are not there, it is left out, and a warning says how to get them.

    Raises:
        ValueError: If a family is unknown, or there are fewer than two backbones, or the digits are of other classes or
            have no parts.
    """
    wanted = tuple(FAMILIES) if which is None else tuple(which)
    unknown = [family for family in wanted if family not in FAMILIES]
    if unknown or not wanted:
        found = repr(unknown[0]) if unknown else "none"
        raise ValueError(f"which: got {found}; expected some of {', '.join(FAMILIES)}; leave it out for all")
    if len(backbones) < 2:
        raise ValueError(
            f"backbones: got {len(backbones)}; expected two or more, as there is nothing to mix; add another"
        )
    if digits is not None and (digits.classes != DIGITS or not set(PARTS) <= set(digits.parts)):
        raise ValueError(
            f"digits: got {digits}; expected the classes 0 to 9 and the parts {', '.join(PARTS)}; make the parts with "
            ".split(…)"
        )
    sources = _Sources(tuple(backbones), tuple(spare), digits, store, fashion, stamps, progress)
    tasks: list[Task] = []
    for family in (family for family in FAMILIES if family in wanted):
        try:
            tasks += list(FAMILIES[family](sources))
        except FileNotFoundError as error:
            warnings.warn(f"suite: the tasks of {family!r} are left out. {error}", stacklevel=2)
    return tasks


def fresh_digits() -> PictureSet:
    """The digits of `mnist5k`, tested on 150 of each class that its own split has for training.

    The merge was designed while its figures on the test digits of that split were known; here they are learned from.
    """
    digits = load_dataset("mnist5k")
    parts, labels = digits.part_positions, digits.required_labels("digits")
    by_class = [parts["train"][labels[parts["train"]] == number] for number in range(len(digits.classes))]
    halves = [own.split(len(own) // 2)[:2] for own in by_class]
    test, train = (torch.cat(rows).sort().values for rows in zip(*halves, strict=True))
    return digits.with_parts(train=torch.cat([train, parts["test"]]), val=parts["val"], test=test)


@dataclass(frozen=True, eq=False)
class _Sources:
    """What the families make their tasks from; `suite` says what each is."""

    backbones: tuple[Backbone, ...]
    spare: tuple[Backbone, ...]
    given: PictureSet | None
    store: str | Path | GridStore
    fashion: str | Path | None
    stamps: str | Path | None
    progress: bool

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(backbone.name for backbone in self.backbones)

    @cached_property
    def digits(self) -> PictureSet:
        return fresh_digits() if self.given is None else self.given

    @cached_property
    def digit_grids(self) -> GridSet:
        """With those of spare backbones; the same object for all tasks of digits, so that they share trainings."""
        return extract([*self.backbones, *self.spare], self.digits, store=self.store, progress=self.progress)

    def grids(self, pictures: PictureSet) -> GridSet:
        return extract(self.backbones, pictures, store=self.store, progress=self.progress)


def _few_labels(sources: _Sources) -> Iterator[Task]:
    for per_class in LABELLED:
        yield Task(
            f"digits, {per_class} a class",
            sources.digit_grids,
            per_class=per_class,
            backbones=sources.names,
            pictures=sources.digits,
            family="few labels",
        )


def _shifted(sources: _Sources) -> Iterator[Task]:
    for kind in SHIFTS:
        yield Task(
            f"digits, {kind}",
            sources.digit_grids,
            per_class=FEW,
            backbones=sources.names,
            test=sources.grids(shifted(sources.digits.test, kind)),
            family="shifted",
        )


def _fashion(sources: _Sources) -> Iterator[Task]:
    clothes = _clothes(sources.fashion)
    grids = sources.grids(clothes)
    for per_class in CLOTHES_LABELLED:
        name = f"fashion, {per_class} a class"
        yield Task(name, grids, per_class=per_class, pictures=clothes, family="fashion")


def _evidence(sources: _Sources) -> Iterator[Task]:
    both = two_digits(sources.digits, SUMS)
    halves = [backbone.variant(view=HALVES[n % 2]) for n, backbone in enumerate(sources.backbones)]
    grids = extract(halves, both, store=sources.store, progress=sources.progress)
    yield Task("blind sums", grids, family="evidence")
    yield Task("pointer", pointer(POINTED).split(val=0.1, test=0.25), family="evidence")


def _photographs(sources: _Sources) -> Iterator[Task]:
    seen = seen_object(load_cutouts(sources.stamps), PHOTOGRAPHS, side=SIDE)
    yield Task("photographs", sources.grids(seen), pictures=seen, groups=seen.test.objects)


def _anomalies(sources: _Sources) -> Iterator[Task]:
    grids = sources.digit_grids.only(*sources.names)
    unknown = grids.required_labels("digits") >= KNOWN
    few = grids.leaving_out(unknown.nonzero().flatten().tolist())
    known = GridSet(few.grids, few.labels, classes=few.classes[:KNOWN], parts=few.part_positions)
    for measure in ANOMALY:
        name = f"anomalies, {measure.removesuffix('_auroc')}"
        yield Task(name, known, per_class=FEW, test=grids.test, measure=measure, family="anomalies")


def _retrieval(sources: _Sources) -> Iterator[Task]:
    for measure in RETRIEVAL:
        yield Task(
            "retrieval" if measure == "retrieval" else f"retrieval, {measure}",
            sources.digit_grids,
            per_class=FEW,
            backbones=sources.names,
            measure=measure,
            family="retrieval",
        )


def _clothes(root: str | Path | None) -> PictureSet:
    """A few thousand of Fashion-MNIST's pictures: of each class and part the first by content."""
    places = (DEBIAN_ROOT, FETCHED) if root is None else (Path(root),)
    where = next((place for place in places if place.is_dir()), None)
    if where is None:
        raise FileNotFoundError(
            f"fashion: no files in {' or '.join(map(str, places))}; fetch them with `make fashion` (31 MB, Debian or "
            "Ubuntu), or install the package dataset-fashion-mnist"
        )
    every = load_dataset("debian/fashion-mnist", root=where)
    labels, pictures = every.required_labels("fashion"), every.pictures
    assert isinstance(pictures, Tensor)
    stored = (pictures[:, :1] * 255).round().to(torch.uint8)
    chosen = {}
    for part, count in CLOTHES.items():
        own = every.part_positions[part]
        of_class = (own[labels[own] == number] for number in range(len(every.classes)))
        chosen[part] = torch.cat([by_content(stored, rows)[:count] for rows in of_class])
    rows = torch.cat([*chosen.values()])
    ends = torch.arange(len(rows)).split([len(part) for part in chosen.values()])
    return PictureSet(
        stored[rows], labels[rows], classes=every.classes, name="fashion", parts=dict(zip(chosen, ends, strict=True))
    )


FAMILIES: dict[str, Callable[[_Sources], Iterator[Task]]] = {
    "few labels": _few_labels,
    "shifted": _shifted,
    "fashion": _fashion,
    "evidence": _evidence,
    "photographs": _photographs,
    "anomalies": _anomalies,
    "retrieval": _retrieval,
}
