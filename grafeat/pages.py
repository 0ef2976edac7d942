"""Memory maps of files: which of their pages are read from the disk, and when."""

import ctypes
import mmap

from jaxtyping import Int
from torch import Tensor

ASKED = getattr(mmap, "MADV_WILLNEED", None)  # None on Windows, which has no such call


def ask_for(stored: Tensor, rows: Int[Tensor, "_"]) -> None:
    """Asks the system for rows of a tensor that may be a map of a file: for these alone, and for all at once.

    Left to itself it reads when a page is missing, one after the other, and much of what is around it, which is in vain
    where rows are drawn at random. For a tensor in memory nothing happens.

    Args:
        stored: A tensor (n, ...).
        rows: Positions, from 0 on.
    """
    if ASKED is None or not stored.is_cpu or not stored.is_contiguous() or not len(rows):
        return
    advise = ctypes.CDLL(None).madvise  # that of Python's own maps takes no address
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    first, each = stored.data_ptr(), stored[0].nbytes
    for row in rows.tolist():
        start = first + row * each
        page = start - start % mmap.PAGESIZE
        advise(page, start + each - page, ASKED)  # it is advice: whatever comes of it, the rows are read
