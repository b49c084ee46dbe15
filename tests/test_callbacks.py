"""tlutils.callbacks, inside `training.fit`: early stopping, unfreezing, callbacks of one's own."""
from __future__ import annotations

import pytest
import torch
from tiny import data, network, same, weights

from tlutils import freezing, optim, training
from tlutils.callbacks import EarlyStopping, Unfreeze

X, Y = data(32)


def test_hooks_run_in_order_and_see_the_state():
    class Log:
        seen: list = []

        def on_start(self, state):
            self.seen.append(("start", state.step, state.steps))

        def on_step(self, state):
            self.seen.append(("step", state.step, len(state.history.losses)))

        def on_evaluate(self, state):
            self.seen.append(("evaluate", state.step, state.history.last["step"]))

        def on_end(self, state):
            self.seen.append(("end", state.step, state.stop))

    training.fit(network(), (X, Y), steps=3, evaluate_every=2, callbacks=[Log()])
    assert Log.seen == [("start", 0, 3), ("step", 1, 1), ("step", 2, 2), ("evaluate", 2, 2), ("step", 3, 3),
                        ("evaluate", 3, 3), ("end", 3, False)]


def test_a_step_hook_can_stop_the_run_which_is_then_evaluated():
    class Stop:
        def on_step(self, state):
            state.stop = state.step == 2

    history = training.fit(network(), (X, Y), steps=9, validation=(X, Y), callbacks=[Stop()])
    assert len(history.losses) == 2 and history.last["step"] == 2 and "validation_accuracy" in history.last


class Scripted:
    """Validation scores from a list, and the weights that belonged to each."""

    def __init__(self, scores):
        self.scores, self.weights = iter(scores), []

    def __call__(self, model):
        self.weights.append(weights(model))
        return {"score": next(self.scores), "loss": -len(self.weights)}


@pytest.mark.parametrize("metric, scores, stops, best", [
    ("validation_score", [1, 3, 2, 3, 2, 9], 4, 2),             # 3 again is no improvement
    ("validation_score", [1, 2, 3, 4, 5, 6], 6, 6),
    ("validation_score", [float("nan"), 1, float("nan"), 2, 1, 1], 6, 4)])
def test_early_stopping_waits_and_restores_the_best(metric, scores, stops, best):
    model, scripted = network(), Scripted(scores)
    stopping = EarlyStopping(patience=2, metric=metric)
    history = training.fit(model, (X, Y), steps=6, evaluate_every=1, validation=scripted, callbacks=[stopping])
    assert len(history.rows) == stops and stopping.best_step == best and stopping.best == scores[best - 1]
    assert same(model, scripted.weights[best - 1])


def test_a_loss_is_to_fall():
    stopping, values = EarlyStopping(patience=3, metric="validation_loss"), iter([3.0, 1.0, 2.0, 2.0, 2.0])
    history = training.fit(network(), (X, Y), steps=5, evaluate_every=1, callbacks=[stopping],
                           validation=lambda model: {"loss": next(values)})
    assert len(history.rows) == 5 and stopping.best == 1.0 and stopping.best_step == 2


def test_without_restoring_the_last_weights_stay():
    model, scripted = network(), Scripted([2, 1, 1])
    training.fit(model, (X, Y), steps=3, evaluate_every=1, validation=scripted,
                 callbacks=[EarlyStopping(patience=5, metric="validation_score", restore_best=False)])
    assert same(model, scripted.weights[-1])


def test_early_stopping_can_be_used_again():
    stopping = EarlyStopping(patience=1, metric="validation_score")
    for _ in range(2):
        training.fit(network(), (X, Y), steps=3, evaluate_every=1, validation=Scripted([5, 4, 3]), callbacks=[stopping])
        assert stopping.best_step == 1


def test_early_stopping_refuses():
    with pytest.raises(ValueError, match="patience=0"):
        EarlyStopping(patience=0)
    with pytest.raises(ValueError, match="metric='validation_accuracy' is not measured.*step, loss, lr"):
        training.fit(network(), (X, Y), steps=1, callbacks=[EarlyStopping()])


def test_unfreezing_on_a_schedule_trains_each_part_from_its_step_on():
    model = network()
    freezing.freeze(model[0])
    low, high = model[0].stages
    changed = []

    class Watch:
        def on_start(self, state):
            self.before = [freezing.frozen_snapshot(part) for part in (low, high, model[1])]

        def on_step(self, state):
            now = [freezing.frozen_snapshot(part) for part in (low, high, model[1])]
            changed.append([any(not torch.equal(a[k], b[k]) for k in a) for a, b in zip(self.before, now, strict=True)])
            self.before = now

    training.fit(model, (X, Y), steps=6, weight_decay=0.1, callbacks=[Watch(), Unfreeze({2: high, 4: [low]})])
    assert changed == [[False, False, True]] * 2 + [[False, True, True]] * 2 + [[True, True, True]] * 2


def test_unfreeze_at_zero_acts_before_the_first_step():
    model = freezing.freeze(network())
    before = weights(model)
    training.fit(model, (X, Y), steps=1, callbacks=[Unfreeze({0: model})])
    assert not same(model, before)


def test_unfreeze_refuses_what_the_optimizer_does_not_hold():
    model = network()
    freezing.freeze(model[0])
    with pytest.raises(ValueError, match="unfrozen at step 2"):
        training.fit(model, (X, Y), steps=4, groups=[{"params": model[1].parameters()}],
                     callbacks=[Unfreeze({2: model[0]})])
    training.fit(model, (X, Y), steps=4, groups=optim.layerwise(model[0], model[1], lr=0.1, decay=0.5),
                 callbacks=[Unfreeze({2: model[0]})])
    with pytest.raises(ValueError, match="-1"):
        Unfreeze({-1: model})
