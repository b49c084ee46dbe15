"""tlutils.loop: what a step does, what is measured between steps, and where a loss that is not finite is found."""
from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch
from tiny import data, fitted, network, same, stream, weights

from tlutils import loop, training

X, Y = data(64)


# ---------------------------------------------------------------------------- measuring
def test_rows_hold_what_was_measured():
    _, history = fitted(steps=5, evaluate_every=2, validation=(X, Y), schedule="linear")
    assert [row["step"] for row in history.rows] == [2, 4, 5]
    assert [row["lr"] for row in history.rows] == pytest.approx([0.008, 0.004, 0.002])
    assert history.rows[1]["loss"] == pytest.approx(sum(history.losses[2:4]) / 2)
    assert history.seconds == sorted(history.seconds) and history.seconds[0] > 0
    assert set(history.rows[0]) == {"step", "loss", "lr", "validation_loss", "validation_accuracy"}


def test_measuring_does_not_change_the_run():
    a, _ = fitted(network(dropout=0.3))
    b, _ = fitted(network(dropout=0.3), evaluate_every=1, validation=(X, Y), progress=True)
    assert same(a, b)


def test_the_clock_stands_still_while_it_measures():
    def slow(model):
        time.sleep(0.2)
        return {"score": 1.0}

    _, history = fitted(network(norm=False), steps=4, evaluate_every=1, validation=slow)
    assert history.last["seconds"] < 0.4 and len(history.rows) == 4      # 0.8 s were slept


def test_hooks_come_in_order_and_see_the_mode_they_may_change():
    class Ears:
        def __init__(self):
            self.heard = []

        def on_start(self, state):
            self.heard.append("start")

        def on_step(self, state):
            self.heard.append(f"step {state.step}")
            state.model.eval()                      # undone before the next step

        def on_evaluate(self, state):
            self.heard.append(f"row {state.history.last['step']}")

        def on_end(self, state):
            self.heard.append("end")

    ears = Ears()
    heard, _ = fitted(network(dropout=0.5), steps=3, evaluate_every=2, callbacks=[ears])
    assert ears.heard == ["start", "step 1", "step 2", "row 2", "step 3", "row 3", "end"]
    assert same(heard, fitted(network(dropout=0.5), steps=3, evaluate_every=2)[0])


# ---------------------------------------------------------------------------- the slices of a step
def parts(n: int, processes: int = 1, rank: int = 0, accumulate: int = 1) -> list[tuple[int, int]]:
    team = SimpleNamespace(num_processes=processes, process_index=rank)
    found = loop.Run._parts(SimpleNamespace(team=team, accumulate=accumulate), n)
    return [(part.start, part.stop) for part in found]


@pytest.mark.parametrize("n, processes, accumulate", [(16, 1, 1), (16, 2, 2), (10, 1, 3), (7, 3, 2), (6, 3, 2)])
def test_the_slices_of_all_processes_cover_the_batch_once(n, processes, accumulate):
    found = [part for rank in range(processes) for part in parts(n, processes, rank, accumulate)]
    assert [i for start, stop in found for i in range(start, stop)] == list(range(n))
    sizes = [stop - start for start, stop in found]
    assert len(found) == processes * accumulate and max(sizes) - min(sizes) <= 1


def test_a_batch_with_too_few_examples_is_refused():
    with pytest.raises(ValueError, match=r"a batch of 3 can't be cut in 4 \(2 processes x accumulate=2\): use fewer"):
        parts(3, processes=2, accumulate=2)


def test_dropout_differs_between_processes_and_steps_but_not_between_runs():
    def draw(rank: int, step: int) -> float:
        run = SimpleNamespace(team=SimpleNamespace(process_index=rank), seed=3, device=torch.device("cpu"))
        with torch.random.fork_rng(devices=[]):
            loop.Run._seed_global(run, step)
            return torch.rand(()).item()

    assert draw(0, 5) == draw(0, 5) and len({draw(0, 5), draw(0, 6), draw(1, 5)}) == 3


@pytest.mark.parametrize("values, words", [
    ([], ""), ([0.01], "0.01"), ([1, 2], "1, 2"), (["low.weight"], "low.weight"), (range(12), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 ... (12 in all)")])
def test_the_first_few(values, words):
    assert loop.first_few(values) == words


# ---------------------------------------------------------------------------- losses that are not finite
def poisoned(position: int):
    x = X.clone()
    x[position] = float("nan")
    return x, Y


def test_a_loss_that_is_not_finite_names_step_rate_and_batch_and_leaves_the_weights():
    model = network(norm=False)
    before = {}

    class Keep:
        def on_step(self, state):
            before[state.step] = weights(state.model)

    with pytest.raises(training.NonFiniteLoss) as caught:
        fitted(model, poisoned(17), callbacks=[Keep()], schedule="constant")
    error = caught.value
    assert isinstance(error, FloatingPointError) and 1 <= error.step <= 4 and error.rates == [0.01]
    assert 17 in error.indices and len(error.indices) == 16
    assert f"the loss is nan at step {error.step} (learning rate 0.01; batch: epoch 1, examples " in str(error)
    if error.step > 1:
        assert same(model, before[error.step - 1])
    assert not model.training


def test_a_rate_that_is_too_high_is_found_too():
    with pytest.raises(training.NonFiniteLoss, match="learning rate 1e\\+3[0-9]"):
        fitted(network(norm=False), lr=1e30, schedule="constant", optimizer="sgd")


def test_a_stream_says_how_to_draw_its_batch_again():
    def bad(generator, n):
        x, y = stream(generator, n)
        return x * float("inf"), y

    with pytest.raises(training.NonFiniteLoss, match=r"batches\.generator\(5, 'stream', 0\)") as caught:
        fitted(train=bad, seed=5)
    assert caught.value.indices is None


def test_a_penalty_that_is_not_finite_is_found():
    with pytest.raises(training.NonFiniteLoss):
        fitted(penalty=lambda model: next(model.parameters()).sum() * float("nan"))


@pytest.mark.parametrize("window", [2, 5, 100])
def test_where_losses_are_read_late_the_step_is_still_exact(window, monkeypatch):
    """As on a GPU, where they are read every CHECK_EVERY steps."""
    original = loop.Run._look

    def late(self):
        if len(self.pending) >= window or self.state.step >= self.state.steps:
            original(self)

    with pytest.raises(training.NonFiniteLoss) as exact:
        fitted(network(norm=False), poisoned(17))
    monkeypatch.setattr(loop.Run, "_look", late)
    with pytest.raises(training.NonFiniteLoss) as found:
        fitted(network(norm=False), poisoned(17))
    assert found.value.step == exact.value.step and found.value.indices == exact.value.indices


@pytest.mark.gpu
def test_a_gpu_names_the_exact_step():
    with pytest.raises(training.NonFiniteLoss) as on_cpu:
        fitted(network(norm=False), poisoned(17), device="cpu")
    with pytest.raises(training.NonFiniteLoss) as on_gpu:
        fitted(network(norm=False), poisoned(17), device="cuda")
    assert on_gpu.value.step == on_cpu.value.step and on_gpu.value.indices == on_cpu.value.indices
