"""tlutils.aligned_training: where source-only training fails and alignment repairs it, what is fed, and bad input."""

import numpy as np
import pytest
import torch

from tlutils import aligned_training, batches, peft_methods, training, zoo
from tlutils.aligned_training import adapt, on_features, self_train

WEIGHTS = {"coral": {"coral": 1.0}, "mmd": {"mmd": 3.0}, "transport": {"transport": 0.1}, "dann": {"dann": 1.0}, "mix": {"mmd": 2.0, "dann": 0.5}}


def world(n=200, seed=0, target=False, kind="offset", width=8):
    """Two classes; feature 0 tells them apart everywhere. Feature 1 helps in the source only: in the target it is 6, or loud noise."""
    rng = np.random.default_rng([seed, target])
    y = np.arange(n) % 2
    x = rng.normal(size=(n, width))
    x[:, 0] += np.where(y, 2, -2)
    if kind == "noise":
        x[:, 1] = rng.normal(size=n) * 8 if target else x[:, 1] + np.where(y, 4, -4)
    else:
        x[:, 1] += 6 if target else np.where(y, 1, -1)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


SOURCE, (TARGET, _), TEST = world(), world(seed=1, target=True), world(400, seed=2, target=True)


def accuracy(run, data=TEST):
    return float((run.predict(data[0]) == data[1]).float().mean())


def learned(losses, **more):
    return adapt(on_features(8, 32), SOURCE, TARGET, losses, **{"lr": 0.01, "steps": 200, "weight_decay": 0.01} | more)


PLAIN = learned({})


def test_source_only_training_fails_in_the_target():
    assert accuracy(PLAIN, SOURCE) > 0.98 and accuracy(PLAIN) < 0.8


@pytest.mark.parametrize("name", ["mmd", "transport", "dann", "mix"])
def test_alignment_repairs_it(name):
    run = learned(WEIGHTS[name], steps=400 if name == "dann" else 200)          # an adversary takes its time
    assert accuracy(run) > 0.9 > 0.8 > accuracy(PLAIN) and accuracy(run, SOURCE) > 0.95


def test_coral_sees_loud_noise_but_no_offset():
    assert accuracy(learned({"coral": 1.0})) < 0.8
    source, (target, _), test = (world(seed=s, target=s > 0, kind="noise") for s in (0, 1, 2))
    plain, aligned = (adapt(on_features(8, 32), source, target, losses, lr=0.01, steps=200) for losses in ({}, WEIGHTS["coral"]))
    assert accuracy(plain, test) < 0.75 and accuracy(aligned, test) > accuracy(plain, test) + 0.1


def test_a_weight_of_zero_is_source_only_but_for_the_batches():
    assert abs(accuracy(learned({"mmd": 0.0})) - accuracy(PLAIN)) < 0.1


def test_the_trace_shows_every_step():
    run = learned({"dann": 1.0, "coral": 0.1}, steps=20)
    assert len(run.trace) == 20 and [row["progress"] for row in run.trace] == [i / 20 for i in range(20)]
    assert {"source", "dann", "coral", "strength", "told apart"} <= run.trace[0].keys()
    assert run.trace[0]["strength"] == 0 and 0 <= run.trace[-1]["told apart"] <= 1
    assert run.trace[-1]["source"] < run.trace[0]["source"] and len(run.history.losses) == 20
    whole = run.trace[3]
    assert run.history.losses[3] == pytest.approx(whole["source"] + whole["dann"] + 0.1 * whole["coral"], rel=1e-4)


def test_the_seed_decides():
    a, b, c = (training.predict(learned({"dann": 1.0}, steps=5, seed=s).model, TEST[0]) for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.allclose(a, c)


def test_labels_of_the_target_play_no_part_and_validation_is_only_measured():
    a = learned({"coral": 1.0}, steps=10)
    b = learned({"coral": 1.0}, steps=10, validation=TEST, evaluate_every=5)
    assert torch.equal(training.predict(a.model, TEST[0]), training.predict(b.model, TEST[0]))
    assert [row["validation_accuracy"] for row in b.history.rows][-1] == pytest.approx(accuracy(b))


def test_a_run_that_was_stopped_goes_on_exactly(tmp_path):
    class Stop:
        def on_step(self, state):
            if state.step == 7:
                raise KeyboardInterrupt

    whole = learned({"dann": 1.0}, steps=12, checkpoint=tmp_path / "a", checkpoint_every=3)
    with pytest.raises(KeyboardInterrupt):
        learned({"dann": 1.0}, steps=12, checkpoint=tmp_path / "b", checkpoint_every=3, callbacks=[Stop()])

    class Idle:
        pass
    Idle.__name__ = "Stop"
    again = learned({"dann": 1.0}, steps=12, checkpoint=tmp_path / "b", checkpoint_every=3, callbacks=[Idle()])
    assert torch.equal(training.predict(whole.model, TEST[0]), training.predict(again.model, TEST[0])) and whole.trace == again.trace


# ---------------------------------------------------------------------------- batches, starts, other inputs
def test_batches_take_turns():
    x, y = aligned_training.pairs(SOURCE, TARGET)(batches.generator(0, "stream", 0), 16)
    assert x.shape == (16, 8) and (y[1::2] == -1).all() and (y[::2] >= 0).all()
    assert all(any(torch.equal(row, t) for t in TARGET) for row in x[1::2])
    for row, label in zip(x[::2], y[::2], strict=True):
        assert SOURCE[1][(SOURCE[0] == row).all(1).nonzero()[0, 0]] == label
    alone, labels = aligned_training.pairs(SOURCE)(batches.generator(0, "stream", 0), 16)
    assert torch.equal(alone, x[::2]) and torch.equal(labels, y[::2]), "source-only training sees the same source examples"
    few, _ = aligned_training.pairs(SOURCE, TARGET[:3])(batches.generator(0, "stream", 0), 16)
    assert len(few) == 16


def test_it_can_start_from_the_probe():
    run = learned({"mmd": 1.0}, start="probe", steps=1, lr=1e-8)
    assert run.trace[0]["source"] < 0.2 < learned({"mmd": 1.0}, steps=1).trace[0]["source"]


def test_a_rate_of_its_own_for_what_is_new():
    loaded = on_features(8, 32)
    before = loaded.backbone[0].weight.clone()
    run = adapt(loaded, SOURCE, TARGET, {"dann": 1.0}, lr=0.0, new_lr=0.01, steps=30)
    assert torch.equal(loaded.backbone[0].weight, before) and run.trace[-1]["source"] < run.trace[0]["source"]


def test_pictures_texts_and_frozen_networks():
    x = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(12) % 3
    run = adapt(zoo.load("resnet-mini"), (x, y), x.flip(0), {"mmd": 1.0, "coral": 1.0}, steps=3, batch_size=8, accumulate=2)
    assert run.predict(x).shape == (12,) and np.isfinite([row["mmd"] for row in run.trace]).all() and len(run.trace) == 6
    loaded = peft_methods.prepare(zoo.load("bert-mini"), "lora", rank=2)
    texts = ["red circle", "blue star", "red square", "blue moon"]
    before = loaded.backbone.state_dict()["model.encoder.layer.0.output.dense.weight"].clone()
    run = adapt(loaded, (texts, y[:4] % 2), ["green star", "grey moon"], {"dann": 1.0}, steps=2, batch_size=4)
    assert run.predict(texts).shape == (4,)
    assert torch.equal(loaded.backbone.state_dict()["model.encoder.layer.0.output.dense.weight"], before), "LoRA alone learned"


def test_contestants():
    contestant = aligned_training.Aligned({"coral": 1.0}, 1e-3, lambda seed: torch.rand(10, 3, 32, 32), steps=2, settings={"batch_size": 8})
    x, y = torch.rand(10, 3, 32, 32), torch.arange(10) % 2
    assert contestant(x, y, x[:4], 0).shape == (4,)


# ---------------------------------------------------------------------------- self-training
def test_self_training_names_more_and_more():
    near = SOURCE[0] * 0.8 + 0.3
    run = self_train(on_features(8, 32), SOURCE, near, rounds=2, lr=0.01, steps=60)
    assert [row["round"] for row in run.trace] == [1, 2] and all(0 < row["taken"] <= row["of"] == 200 for row in run.trace)
    assert run.trace[0]["classes"] == 2 and accuracy(run, (near, SOURCE[1])) > 0.95


def test_self_training_ends_where_nothing_is_sure():
    run = self_train(on_features(8, 32), SOURCE, TARGET, rounds=3, threshold=1.0, lr=1e-5, steps=2)
    assert len(run.trace) == 1 and run.trace[0]["taken"] == 0


# ---------------------------------------------------------------------------- bad input
@pytest.mark.parametrize("change, words", [
    ({"target": TARGET[:0]}, "target: is empty"), ({"target": TARGET[:, :5]}, "of one kind"), ({"target": ["a", "b"]}, "of one kind.*texts"),
    ({"target": TARGET * float("nan")}, "not finite, first in example 0"), ({"losses": {"corral": 1.0}}, "'corral' is unknown; there are coral"),
    ({"losses": {"coral": -1.0}}, "weight of coral"), ({"batch_size": 2}, "at least 4"), ({"source": (SOURCE[0], SOURCE[1] * 0)}, "same class"),
    ({"source": (SOURCE[0], SOURCE[1][:5])}, "5"), ({"classes": 1}, "classes=1"), ({"start": "linear"}, "start"),
    ({"validation": (TEST[0], TEST[1] + 1)}, "has the classes 2, which the source lacks"),
])
def test_bad_input(change, words):
    settings = {"source": SOURCE, "target": TARGET, "losses": {"coral": 1.0}, "steps": 1} | change
    with pytest.raises(ValueError, match=words):
        adapt(on_features(8, 4), settings.pop("source"), settings.pop("target"), settings.pop("losses"), **settings)


def test_bad_rounds():
    for more, words in (({"rounds": 0}, "rounds=0"), ({"threshold": 0.0}, "threshold"), ({"target": TARGET[:0]}, "is empty")):
        target = more.pop("target", TARGET)
        with pytest.raises(ValueError, match=words):
            self_train(on_features(8, 4), SOURCE, target, steps=1, **more)
