"""Two processes train one model as one process does; each sees its rows, and all the same draws."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import grafeat as gf
from grafeat import teaching, training
from grafeat.files import read_tensors
from grafeat.planted import pointer
from grafeat.runs import KIND
from grafeat.sharing import Share
from grafeat.training import training_loss

TRAIN = pointer(43, shape=(2, 3), channels=(3, 5))


class Engine:
    """Stands for one process of several, without the others; `told` is what it has told them, `mean` what it hears."""

    device = torch.device("cpu")
    mean: torch.Tensor | None = None

    def __init__(self, process: int, processes: int) -> None:
        self.process_index, self.num_processes = process, processes

    def reduce(self, tensor: torch.Tensor, reduction: str) -> torch.Tensor:
        self.told = tensor
        return tensor if self.mean is None else self.mean


def built() -> gf.GraFeatMerge:
    return gf.GraFeatMerge.for_grids(TRAIN, num_classes=4, width=12, heads=3, depth=1, components=3, backbone_drop=0.3)


@given(st.integers(1, 40), st.integers(1, 7))
def test_each_row_is_one_processs_and_weights_give_the_mean_of_all(count: int, processes: int) -> None:
    values, rows = torch.randn(count, dtype=torch.float64), torch.arange(100, 100 + count)
    shares = [Share(Engine(process, processes)) for process in range(processes)]
    seen = torch.cat([share.rows(rows) for share in shares if share.weight(count)])
    assert seen.sort().values.tolist() == rows.tolist()
    sums = [float(values[share.rows(rows) - 100].sum()) * share.weight(count) for share in shares]
    assert sum(sums) / processes == pytest.approx(float(values.mean()), abs=1e-12)


def test_where_nothing_of_others_is_mixed_in_each_process_keeps_its_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The share that is mixed in is drawn, and rounds to 0 now and then where its parameter is small."""
    monkeypatch.setattr(teaching, "Beta", lambda *_: SimpleNamespace(sample=lambda: torch.ones(())))
    lesson = teaching.labelled(TRAIN, 4, label_smoothing=0, mixup=0.1, share=Share(Engine(1, 2)))
    own = lesson.rows
    assert 0 < len(own) < len(TRAIN) and len(lesson.targets) == len(lesson.weights) == len(own)
    assert lesson.targets.argmax(dim=1).tolist() == TRAIN.labels[own].tolist()
    assert torch.equal(lesson.grids[0].features, TRAIN.grids[0].features[own])


@pytest.mark.parametrize("processes", [2, 3])
def test_the_mean_of_the_processes_losses_and_gradients_is_that_of_one(processes: int) -> None:
    """With mixing, dropping and a teacher: what is drawn is drawn for the whole batch."""
    options = {"mixup": 0.4, "label_smoothing": 0.1, "own_loss": 1.0}
    teacher = built().eval()
    teacher.head.weight.data.mul_(30)  # sure enough to teach
    options |= {"teacher": teacher, "unlabelled": TRAIN[20:31]}
    engines = [Engine(process, processes) for process in range(processes)]
    losses, slopes = [], []

    def seen(share: Share) -> tuple[torch.Tensor, torch.Tensor]:
        model = built().train()
        torch.manual_seed(5)
        loss = training_loss(model, TRAIN[:17], share=share, **options)
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    for engine in engines:
        seen(Share(engine))
    mean = torch.stack([engine.told for engine in engines]).mean(dim=0)
    for engine in engines:
        engine.mean = mean
    for share in (Share(), *map(Share, engines)):
        loss, slope = seen(share)
        losses.append(loss)
        slopes.append(slope)
    torch.testing.assert_close(torch.stack(losses[1:]).mean(), losses[0])
    torch.testing.assert_close(torch.stack(slopes[1:]).mean(dim=0), slopes[0])


def test_all_processes_must_find_the_same_checkpoint(tmp_path: Path) -> None:
    class Alone(Engine):
        """The others have read another number of epochs."""

        def reduce(self, tensor: torch.Tensor, reduction: str) -> torch.Tensor:
            return tensor + 1

    share = Share(Alone(0, 2))
    settings = {"epochs": 1, "steps": 1, "learning_rate": 1e-3, "weight_decay": 0.0, "average": 0.9}
    run = training._new_run(built(), settings)
    with pytest.raises(ValueError, match=r"checkpoint: process 0 found 0 epochs in .*, others another number"):
        run.go_on(tmp_path / "run", share)


def test_mixed_precision_of_the_engine_is_refused_and_one_process_gets_the_model_itself() -> None:
    model, engine = built(), Engine(0, 1)
    assert Share(engine).wrapped(model) is model
    engine.mixed_precision = "fp16"
    with pytest.raises(ValueError, match=r"accelerator: got mixed_precision='fp16'; expected 'no'"):
        Share(engine).wrapped(model)


EPOCHS = 8
PATH = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
WAITING = """
    import sys, time
    sys.path[:0] = {path!r}
    from datetime import timedelta
    from accelerate import Accelerator, InitProcessGroupKwargs
    from grafeat.sharing import Share
    short = InitProcessGroupKwargs(timeout=timedelta(seconds=2))
    share = Share(Accelerator(cpu=True, kwargs_handlers=[short]))
    for late in (0, 1):
        time.sleep(4 * (share.process == late))
        share.wait()
"""
DEAD = """
    import os, sys
    sys.path[:0] = {path!r}
    from accelerate import Accelerator
    from grafeat.sharing import Share
    share = Share(Accelerator(cpu=True))
    if share.process == 1:
        os._exit(7)
    share.wait()
"""
SCRIPT = """
    import sys
    sys.path[:0] = {path!r}
    import accelerate

    def work():
        import torch
        import grafeat as gf
        from test_sharing import built, fitted
        torch.set_num_threads(1)
        accelerator, model = accelerate.Accelerator(cpu=True), built()
        fitted(model, accelerator=accelerator, checkpoint=sys.argv[1])
        if accelerator.is_main_process:
            gf.save(model, sys.argv[2])

    {start}
"""


def fitted(model: gf.GraFeatMerge, **options: object) -> gf.History:
    return gf.fit(model, TRAIN, val=TRAIN[:11], epochs=EPOCHS, batch_size=10, progress=False, **options)


def command(folder: Path, start: str) -> list[str]:
    """Trains a model and keeps run and model in a folder."""
    code = textwrap.dedent(SCRIPT).format(path=PATH, start=start)
    return [sys.executable, "-c", code, str(folder / "run.safetensors"), str(folder / "model.safetensors")]


def free_port() -> str:
    """One on which processes can meet."""
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        return str(port.getsockname()[1])


@contextmanager
def launched(processes: int, command: list[str]) -> Iterator[list[subprocess.Popen]]:
    """So many processes that run the same and talk over gloo; what is left of them at the end is killed."""
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    shared |= {"WORLD_SIZE": str(processes), "ACCELERATE_USE_CPU": "true"}
    with ExitStack() as stack:
        children = []
        for rank in range(processes):
            own = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            children.append(stack.enter_context(subprocess.Popen(command, env=own, stderr=subprocess.PIPE)))
            stack.callback(children[-1].kill)
        yield children


def all_end_well(command: list[str]) -> None:
    """Two processes that run it."""
    with launched(2, command) as children:
        for child in children:
            _, said = child.communicate(timeout=300)
            assert child.returncode == 0, said.decode()


def losses(folder: Path) -> list[float]:
    """The training loss of each epoch of a run."""
    _, about = read_tensors(folder / "run.safetensors", kind=KIND)
    return [row[0] for row in about["rows"]]


@pytest.mark.parametrize("killed", [[1, 0], [1], [0]])  # a launcher ends the others when one is gone
def test_two_processes_of_which_some_were_killed_have_the_loss_curve_of_one(tmp_path: Path, killed: list[int]) -> None:
    alone = built()
    expected = [row.train_loss for row in fitted(alone).epochs]
    with launched(2, command(tmp_path, "work()")) as children:
        while not (tmp_path / "run.safetensors").exists() and children[1].poll() is None:
            time.sleep(0.01)
        for number in killed:
            children[number].kill()
        for number, child in enumerate(children):  # one that is left ends with an error, as it hears nothing any more
            _, said = child.communicate(timeout=300)
            assert child.returncode != 0, said.decode()
            assert (child.returncode == -signal.SIGKILL) == (number in killed), said.decode()
    assert not (tmp_path / "model.safetensors").exists()
    all_end_well(command(tmp_path, "work()"))
    trained = gf.load(tmp_path / "model.safetensors")
    torch.testing.assert_close(trained(TRAIN).logits, alone(TRAIN).logits, atol=1e-3, rtol=1e-3)
    assert losses(tmp_path) == pytest.approx(expected, rel=1e-4)


def test_processes_that_a_notebook_starts_have_the_loss_curve_of_one(tmp_path: Path) -> None:
    alone = built()
    expected = [row.train_loss for row in fitted(alone).epochs]
    start = f"accelerate.notebook_launcher(work, num_processes=2, use_port='{free_port()}')"
    calm = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command(tmp_path, start), env=calm, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr.decode()
    assert "on 2 " in done.stdout.decode()
    assert losses(tmp_path) == pytest.approx(expected, rel=1e-4)
    trained = gf.load(tmp_path / "model.safetensors")
    torch.testing.assert_close(trained(TRAIN).logits, alone(TRAIN).logits, atol=1e-3, rtol=1e-3)


def test_who_waits_for_another_does_not_give_up_when_it_takes_long() -> None:
    code = textwrap.dedent(WAITING).format(path=PATH)
    all_end_well([sys.executable, "-c", code])


def test_who_waits_for_one_that_died_before_it_ever_waited_hears_of_it() -> None:
    with launched(2, [sys.executable, "-c", textwrap.dedent(DEAD).format(path=PATH)]) as (waiting, dead):
        _, said = waiting.communicate(timeout=120)
        assert dead.wait(timeout=120) == 7
    assert waiting.returncode == 1, said.decode()
    assert "in wait\n" in said.decode(), said.decode()
