"""Grids that several processes have computed, each a part of the pictures, joined to what one would have written."""

import itertools
import math
import shutil
from collections.abc import Mapping
from pathlib import Path

from grafeat.store.folder import required
from grafeat.store.index import Index, Rows, cut
from grafeat.store.writer import Writer


def spans(count: int, batch_size: int, processes: int) -> list[Rows]:
    """Each process's pictures: whole batches, so that they are computed in the batches in which one would do it.

    Args:
        count: Pictures.
        batch_size: Pictures in a batch.
        processes: How many share them; those for whom no batch is left are not in the list.
    """
    batches = math.ceil(count / batch_size)
    ends = [min(count, batch_size * (batches * number // processes)) for number in range(processes + 1)]
    return [(start, stop) for start, stop in itertools.pairwise(ends) if start < stop]


def join(store: Path, draft: Index, parts: Mapping[Rows, Index], batch_size: int) -> None:
    """Writes the grids of all pictures from those of their parts, then removes the parts.

    Killed, it goes on where it was when it is called again.

    Args:
        store: The store, which has the parts.
        draft: What the whole is; its shape and its pieces do not count.
        parts: What each part is, by its pictures.
        batch_size: Pictures in a batch.
    """
    writer = Writer(store, draft, lambda: None)
    try:
        for (first, last), part in parts.items():
            kept = required(store, part)
            inside = [(max(a, first), min(b, last)) for a, b in writer.missing]
            for start, stop in cut([rows for rows in inside if rows[0] < rows[1]], batch_size):
                bad = [first + row for row in kept.unreadable if start <= first + row < stop]
                writer.put((start, stop), kept.features[start - first : stop - first], bad)
        writer.finish()
    finally:
        writer.close()
    for part in parts.values():
        shutil.rmtree(store / part.folder)
