"""The feature grids of a whole picture set: computed once, kept on disk, read back as a memory map."""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from tqdm.auto import tqdm

from grafeat.backbones.backbone import Backbone
from grafeat.grids import FeatureGrid, GridSet
from grafeat.pictures import PictureSet
from grafeat.sharing import Engine, Share
from grafeat.store.arguments import backbones_in, check, place
from grafeat.store.drafts import drafts_of
from grafeat.store.filling import Memory, Task, fill
from grafeat.store.folder import Kept, found, required
from grafeat.store.gridstore import GridStore
from grafeat.store.index import Index
from grafeat.store.joining import Blocks, blocks, in_use, parts_of, remove_parts, take_over
from grafeat.store.repairing import take_out
from grafeat.store.writer import Writer

NAMED = 10  # pictures that a warning names


def extract(
    backbones: Iterable[Backbone] | Backbone,
    pictures: PictureSet,
    *,
    store: str | Path | GridStore | None = None,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float16,
    progress: bool = True,
    workers: int = 0,
    skip_unreadable: bool = False,
    repair: bool = False,
    accelerator: Engine | None = None,
) -> GridSet:
    """Shows every picture once to every backbone, and gives the feature grids with the pictures' labels and parts.

    With `store`, each backbone's grids are one folder there, found again by everything that shapes them: weights, tap,
    input size, pre-processing, view, number format and the pictures' own content. What is there is read back as a
    memory map, at no cost; another backbone computes only its own. Stopped at any moment, a run goes on where it was:
    of each backbone at most one batch is computed twice. On a GPU it is two, since one is written while the next is
    computed; after a power cut, too, since one settles on the disk meanwhile. Of two processes that need the same
    grids, the second waits for the first, and finds them.

    On a GPU the backbones run in `dtype` if that has 16 bits (autocast), so that what is kept has the precision of
    what was computed; with float32 nothing is rounded.

    Args:
        backbones: The frozen backbones, whose names differ; or a single one.
        pictures: The pictures.
        store: Folder for the grids, or a `GridStore`; made if it is not there. Without it they stay in memory.
        batch_size: Pictures shown at once.
        device: Where the backbones run; the grids end up on the CPU.
        dtype: Floating-point type of the grids that are kept. float16 halves them and rounds to 3 to 4 digits.
        progress: Whether to show a progress bar, with the rate and the time left.
        workers: Processes that decode picture files meanwhile; 0 for this one alone. They are started afresh, so a
            script needs its `if __name__ == "__main__":`. For pictures in memory, none is started.
        skip_unreadable: Leave out pictures that cannot be read, with a warning that names the first ten; labels and
            parts stay in step. Otherwise the first one stops the run.
        repair: Check every byte of what is found, and compute anew the batches that are damaged, and those with a
            picture that could not be read before and now can.
        accelerator: An `accelerate.Accelerator`, where several processes share the work; `device` is then not used.
            Each must be given all pictures. It hashes its share of them to know them, shows its blocks of them to the
            backbones on its own device, and keeps what these give in the store until the first process has joined all
            to what one process would have written. So the store must be a folder that all of them see, and it takes
            twice the room until then. Stopped, the work goes on with any number of processes, also with one: what is
            there is not computed again.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If names repeat; if there is no picture, one that cannot be read, or, with a store, one whose file
            changes meanwhile; if a backbone gives NaN, or infinity in `dtype`; if a backbone cannot be recognised again
            though there is a store; if a file of the store is damaged; if several processes have no store, or not the
            same pictures and backbones; if there is no such device.
        OSError: If the store cannot be read or written.
    """
    backbones = backbones_in("backbones", backbones)
    check(backbones, pictures, batch_size, workers, dtype)
    share, where = Share(accelerator), place(device, accelerator)
    task = Task(pictures, batch_size, where, dtype, progress and share.process == 0, workers, skip_unreadable)
    kept: Mapping[str, Kept | Memory]
    if store is None:
        kept = _in_memory(backbones, task, share)
    else:
        kept = _in_store(backbones, task, GridStore(store).path, repair, share)
    features = [FeatureGrid.trusted(one.name, kept[one.name].features, one.field) for one in backbones]
    grids = GridSet(features, pictures.labels, classes=pictures.classes, parts=pictures.part_positions)
    bad = sorted({row for name in kept for row in kept[name].unreadable})
    return _without(grids, bad, task) if bad else grids


def _in_memory(backbones: Sequence[Backbone], task: Task, share: Share) -> Mapping[str, Memory]:
    if share.processes > 1:
        raise ValueError(
            f"store: got None for {share.processes} processes; expected a folder that all of them see; name one"
        )
    sinks = {backbone.name: Memory(len(task.pictures)) for backbone in backbones}
    fill([(backbone, sinks[backbone.name]) for backbone in backbones], task)
    return sinks


def _in_store(
    backbones: Sequence[Backbone], task: Task, store: Path, repair: bool, share: Share
) -> Mapping[str, Kept]:
    """Of several processes, each fills its blocks; then the first joins them and computes what still lacks."""
    drafts, pictures = drafts_of(backbones, task.pictures, task.dtype, share, progress=task.progress)
    task = replace(task, pictures=pictures)
    waiting = partial(_say_waiting, store, task.progress)
    if share.process == 0:
        for draft in drafts.values() if repair else ():
            take_out(store, draft, task.pictures, waiting)
    share.wait()
    with contextlib.ExitStack() as used:
        if share.processes > 1:
            missing = _missing(backbones, store, drafts)
            for _, draft in missing:
                used.enter_context(in_use(parts_of(store / draft.folder), waiting))
            _fill_blocks(missing, store, task, share, waiting)
            share.wait()
        if share.process == 0:
            _complete(_missing(backbones, store, drafts), store, task, waiting)
    share.wait()
    if share.process == 0:
        for draft in drafts.values():
            with contextlib.suppress(OSError):  # as where the store can only be read: they are in no one's way
                remove_parts(parts_of(store / draft.folder))
    return {name: required(store, draft) for name, draft in drafts.items()}


def _missing(
    backbones: Sequence[Backbone], store: Path, drafts: Mapping[str, Index]
) -> list[tuple[Backbone, Index]]:
    """The backbones whose grids the store lacks."""
    missing = [(one, drafts[one.name]) for one in backbones if found(store, drafts[one.name]) is None]
    # In one order for all processes: two that each held what the other waits for would wait for ever.
    return sorted(missing, key=lambda pair: pair[1].folder)


def _fill_blocks(
    missing: Sequence[tuple[Backbone, Index]], store: Path, task: Task, share: Share, waiting: Callable[[], None]
) -> None:
    """Computes this process's blocks of the grids that a store lacks."""
    own = blocks(len(task.pictures), task.batch_size)[share.process :: share.processes]
    overlap = task.device.type == "cuda"
    with contextlib.ExitStack() as stack:
        work = []
        for backbone, draft in missing:
            sink = Blocks(store, draft, own, waiting=waiting, overlap=overlap)
            stack.callback(sink.close)
            work.append((backbone, sink))
        fill(work, task, partly=True)
        for _, sink in work:
            sink.finish()


def _complete(
    missing: Sequence[tuple[Backbone, Index]], store: Path, task: Task, waiting: Callable[[], None]
) -> None:
    """Writes the grids that a store lacks: from their parts, and by computing the rest."""
    with contextlib.ExitStack() as stack:
        work = []
        for backbone, draft in missing:
            writer = Writer(store, draft, waiting, overlap=task.device.type == "cuda")
            stack.callback(writer.close)
            if not writer.folder.exists():  # else another process has finished it meanwhile
                take_over(writer, draft)
                work.append((backbone, writer))
        fill(work, task)
        for _, writer in work:
            writer.finish()


def _without(grids: GridSet, bad: Sequence[int], task: Task) -> GridSet:
    """The grids of the pictures that can be read, once the caller knows of the others."""
    if not task.skip_unreadable:
        task.refuse(bad[0])
    names = ", ".join(task.pictures.origin(row) for row in bad[:NAMED])
    text = f"pictures: left out {len(bad):,} of {len(grids):,} that cannot be read: {names}"
    if len(bad) <= NAMED:
        text += f"; the grids are those of pictures.leaving_out({list(bad)})"
    else:
        text += f" and {len(bad) - NAMED:,} more; gf.PictureSet(paths, skip_unreadable=True).skipped lists them all"
    warnings.warn(text, stacklevel=3)
    return grids.leaving_out(bad)


def _say_waiting(store: Path, progress: bool) -> None:
    text = f"extract: waiting for another process that writes {store}"
    tqdm(desc=text, bar_format="{desc}", disable=not progress).close()
