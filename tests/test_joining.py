"""Parts of a set that several processes extract join to the bytes that one would have written."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_sharing import Engine
from test_store import B, lite, pictures, taken, vit

from grafeat.store.joining import spans

PART = 4


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 5))
def test_spans_share_all_pictures_in_whole_batches(count: int, batch_size: int, processes: int) -> None:
    found = spans(count, batch_size, processes)
    assert [row for start, stop in found for row in range(start, stop)] == list(range(count))
    assert all(start % batch_size == 0 for start, _ in found) and len(found) <= processes
    batches = [-(-(stop - start) // batch_size) for start, stop in found]
    assert max(batches) - min(batches) <= 1


SCRIPT = """
    import sys
    sys.path[:0] = {path!r}
    import torch
    from accelerate import Accelerator
    from test_store import lite, pictures, taken, vit
    torch.set_num_threads(1)
    taken([lite(), vit()], pictures(), sys.argv[1], batch_size=4, accelerator=Accelerator(cpu=True))
"""


def launched(processes: int, store: Path) -> None:
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        number = port.getsockname()[1]
    code = textwrap.dedent(SCRIPT).format(path=[str(Path(__file__).parents[1]), str(Path(__file__).parent)])
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(number)}
    shared |= {"WORLD_SIZE": str(processes), "ACCELERATE_USE_CPU": "true"}
    several = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(store)],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(processes)
    ]
    for child in several:
        _, said = child.communicate(timeout=300)
        assert child.returncode == 0, said.decode()


def contents(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def test_two_processes_write_what_one_would_have_written(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    expected = taken([lite(), vit()], pictures(), tmp_path / "one", batch_size=PART)
    torch.set_num_threads(threads)
    launched(2, tmp_path / "two")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    again = taken([lite(), vit()], pictures(), tmp_path / "two", batch_size=PART)
    assert len(again) == B and torch.equal(again["vit"].features, expected["vit"].features)


def test_several_processes_need_a_store(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"store: got None for 2 processes; expected a folder that all of them see"):
        taken([lite()], pictures(), accelerator=Engine(0, 2))


def test_one_process_with_an_accelerator_is_as_without(tmp_path: Path) -> None:
    one = taken([lite()], pictures(), tmp_path, accelerator=Engine(0, 1))
    assert torch.equal(one["lite"].features, taken([lite()], pictures())["lite"].features)
