"""The feature grids of whole picture sets: extracted once, kept on disk, resumed, checked and pruned."""

from grafeat.store.extraction import extract as extract
from grafeat.store.gridstore import GridStore as GridStore
