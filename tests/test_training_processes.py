"""tlutils.training in processes of its own: killed at any step and resumed; two processes that train together."""
from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import sys
from pathlib import Path

import pytest
import torch
from tiny import data, distance, network, same

from tlutils import checkpoint, freezing, optim, training

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and a fork server")
STEPS = 40
WHERE = ("after a step", "half written", "before the rename", "after the rename")
DICE = random.Random(20)
KILLS = [(step, WHERE[i % 4]) for i, step in enumerate(sorted(DICE.sample(range(1, STEPS), 20)))]


@pytest.fixture(scope="module")
def start():
    """Start `function(*arguments)` in a new process that has loaded torch and what an optimizer of torch imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "accelerate", "safetensors.torch", "pytest", "torch._dynamo"])

    def go(function, *arguments):
        process = context.Process(target=function, args=arguments)
        process.start()
        return process

    return go


def end(process) -> int:
    process.join(300)
    if process.exitcode is None:
        process.kill()
        pytest.fail("the process hangs")
    return process.exitcode


# ---- killed and resumed

class Kill:
    """Kill this process, as the machine would, when `step` steps are done: between steps or while saving."""

    def __init__(self, step: int | None, where: str):
        self.step, self.where = step, where

    def on_step(self, state) -> None:
        if state.step == self.step:
            if self.where == "after a step":
                die()
            replace, write = os.replace, Path.write_bytes
            if self.where == "half written":
                Path.write_bytes = lambda path, content: (write(path, content[:len(content) // 2]), die())
            else:
                os.replace = lambda *names: (self.where == "after the rename" and replace(*names), die())


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def jitter(x, generator):
    return x + 0.05 * torch.randn(x.shape, generator=generator)


def run(folder: Path, *kills: tuple[int, str]) -> training.History:
    """Everything that has a memory: batch norm, dropout, AdamW, L2-SP, two rates, unfreezing, early stopping."""
    torch.set_num_threads(1)
    model = network(dropout=0.3)
    freezing.freeze(model[0].stages.low)
    step, where = kills[0] if kills else (None, "")
    history = training.fit(
        model, data(50), steps=STEPS, lr=0.02, batch_size=16, weight_decay=0.01, clip=1.0, warmup=5, augment=jitter,
        groups=optim.layerwise(model[0], model[1], lr=0.01, decay=0.5), penalty=optim.l2_sp(model[0], strength=0.1),
        validation=data(20, seed=1), evaluate_every=7, checkpoint=folder / "run.safetensors", checkpoint_every=3,
        callbacks=[training.Unfreeze({11: model[0].stages.low}), training.EarlyStopping(5, "validation_loss"),
                   Kill(step, where)])
    checkpoint.save(folder / "result.safetensors", {"weights": model.state_dict(), "history": history.to_json()})
    return history


def result(folder: Path):
    saved = checkpoint.load(folder / "result.safetensors")
    return saved["weights"], training.History.from_json(saved["history"])


@pytest.fixture(scope="module")
def uninterrupted(start, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert end(start(run, folder)) == 0
    return result(folder)


def check(folder: Path, uninterrupted) -> None:
    weights, history = result(folder)
    assert same(weights, uninterrupted[0]) and history == uninterrupted[1]
    assert sorted(file.name for file in folder.iterdir()) == ["result.safetensors", "run.safetensors"]


@pytest.mark.parametrize("step, where", KILLS, ids=lambda value: str(value).replace(" ", "-"))
def test_killed_and_started_again_it_ends_bit_for_bit_the_same(start, tmp_path, uninterrupted, step, where):
    assert end(start(run, tmp_path, (step, where))) == -signal.SIGKILL
    assert not (tmp_path / "result.safetensors").exists()
    assert end(start(run, tmp_path)) == 0
    check(tmp_path, uninterrupted)


def test_killed_again_and_again(start, tmp_path, uninterrupted):
    for kill in ((9, "after a step"), (9, "half written"), (25, "before the rename"), (39, "after the rename")):
        assert end(start(run, tmp_path, kill)) == -signal.SIGKILL
    assert end(start(run, tmp_path)) == 0
    check(tmp_path, uninterrupted)


# ---- two processes

def two_processes(rank: int, port: int, name: str, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true",
                   "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    try:
        values = TOGETHER[name](folder)
    except Exception as error:                  # a report, so that the test can look at it
        values = {"error": f"{type(error).__name__}: {error}"}
    checkpoint.save(folder / f"{name}-{rank}.safetensors", values)
    torch.distributed.destroy_process_group()


def train(norm: bool, seed: int = 0, n: int = 51, callbacks=(), **options) -> dict:
    model = network(seed, norm=norm)
    freezing.freeze(model[0].stages.low)
    history = training.fit(
        model, data(n), **{"steps": 12, "lr": 0.02, "batch_size": 15, "augment": jitter, "optimizer": "sgd",
                           "penalty": optim.l2_sp(model[0], strength=0.1), "validation": data(20, seed=1),
                           "evaluate_every": 5, **options},
        callbacks=[training.Unfreeze({4: model[0].stages.low}), *callbacks])
    return {"weights": model.state_dict(), "history": history.to_json()}


def without_norm(folder: Path | None = None) -> dict:
    return train(norm=False)


def with_norm(folder: Path | None = None) -> dict:
    return train(norm=True)


def in_parts(folder: Path | None = None) -> dict:
    return train(norm=False, batch_size=5, accumulate=3)


def other_start(folder: Path) -> dict:
    """The processes begin with different weights; the first one's count."""
    return train(norm=False, penalty=None, seed=int(os.environ["RANK"]))


def saved_and_resumed(folder: Path) -> dict:
    class Break:
        on = True

        def on_step(self, state):
            if self.on and state.step == 7:
                raise KeyboardInterrupt

    options = {"norm": True, "checkpoint": folder / "run.safetensors", "checkpoint_every": 3}
    try:
        train(callbacks=[Break()], **options)
    except KeyboardInterrupt:
        Break.on = False
    return train(callbacks=[Break()], **options)


def not_finite(folder: Path | None = None) -> dict:
    """Only the second process's slice of the batch has the bad example."""
    x, y = data(10)
    x[9] = float("nan")
    training.fit(network(norm=False), (x, y), steps=2, batch_size=10)
    return {}


def too_small(folder: Path | None = None) -> dict:
    return train(norm=False, n=1)


TOGETHER = {function.__name__: function for function in (without_norm, with_norm, in_parts, other_start,
                                                         saved_and_resumed, not_finite, too_small)}


@pytest.fixture
def together(start, tmp_path):
    """Run one of TOGETHER in two processes; returns what each of them found."""
    def go(function):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        pair = [start(two_processes, rank, port, function.__name__, tmp_path) for rank in (0, 1)]
        assert [end(process) for process in pair] == [0, 0]
        return [checkpoint.load(tmp_path / f"{function.__name__}-{rank}.safetensors") for rank in (0, 1)]

    return go


@pytest.mark.parametrize("function", [without_norm, in_parts])
def test_two_processes_do_what_one_does(together, function):
    first, second = together(function)
    alone = without_norm()
    assert same(first["weights"], second["weights"])
    assert distance(first["weights"], alone["weights"]) < 1e-5
    ours, theirs = (training.History.from_json(found["history"]) for found in (alone, first))
    assert theirs.losses == pytest.approx(ours.losses, rel=1e-4)
    assert theirs.last["validation_loss"] == pytest.approx(ours.last["validation_loss"], rel=1e-4)


def test_with_batch_norm_the_statistics_are_of_slices_and_stay_close(together):
    first, second = together(with_norm)
    assert same(first["weights"], second["weights"])
    assert 0 < distance(first["weights"], with_norm()["weights"]) < 0.2


def test_all_processes_start_from_the_first_ones_weights(together):
    first, second = together(other_start)
    assert same(first["weights"], second["weights"])
    assert distance(first["weights"], train(norm=False, penalty=None)["weights"]) < 1e-5


def test_two_processes_resume_as_if_never_stopped(together):
    first, second = together(saved_and_resumed)
    straight, _ = together(with_norm)
    assert same(first["weights"], second["weights"])
    assert distance(first["weights"], straight["weights"]) < 1e-6      # sums of buffers differ in their order


def test_a_bad_example_in_one_slice_stops_both(together):
    for found in together(not_finite):
        assert found["error"].startswith("NonFiniteLoss: the loss is nan at step 1")


def test_a_batch_smaller_than_the_processes_is_refused(together):
    for found in together(too_small):
        assert "a batch of 1 can't be cut in 2 (2 processes" in found["error"]
