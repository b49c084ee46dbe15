"""tlutils.methods: every contestant answers in the same form, and repeats from its seed."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tlutils import finetune, methods, shapes, training, zoo
from tlutils.methods import Pixels, Probe, Train

THREE = shapes.Task("three new shapes", ("pie", "aitch", "spark"), 3)


@pytest.fixture(scope="module")
def draw():
    """Training and test pictures of three new shapes."""
    return (*THREE.draw(3, seed=0), *THREE.draw(15, seed=1))


CONTESTANTS = {
    "pixels": Pixels(),
    "probe": Probe(),
    "random frozen": Probe(None),
    "scratch": Train(None, 3e-3, 3),
    "fine-tuning": Train("shapes", 1e-3, 3),
    "lp-ft": Train("shapes", 1e-3, 3, strategy="lp-ft"),
}


@pytest.mark.parametrize("name", CONTESTANTS)
def test_a_contestant_names_every_test_picture_and_repeats_from_its_seed(name, draw):
    x, y, x_test, _ = draw
    torch.manual_seed(0)
    first = CONTESTANTS[name](x, y, x_test, 7)
    torch.manual_seed(1)
    again = CONTESTANTS[name](x, y, x_test, 7)
    assert isinstance(first, np.ndarray) and first.shape == (45,) and set(first.tolist()) <= {0, 1, 2}
    assert (first == again).all()


@pytest.mark.parametrize(
    "name, differs", [("random frozen", True), ("scratch", True), ("probe", False), ("pixels", False)]
)
def test_the_seed_draws_what_is_random_and_nothing_else(name, differs, draw):
    x, y, x_test, _ = draw
    a, b = (CONTESTANTS[name](x, y, x_test, seed) for seed in (1, 2))
    assert (a != b).any() == differs


def test_a_random_frozen_backbone_is_drawn_anew_from_each_seed(draw):
    x, y, x_test, _ = draw
    features = finetune.Features(zoo.load("resnet-mini", None, seed=3))
    probe = finetune.linear_probe(training.predict(features, x), y)
    assert (Probe(None)(x, y, x_test, 3) == probe.predict(training.predict(features, x_test).numpy())).all()


def test_pixels_is_a_logistic_regression_on_them(draw):
    x, y, x_test, _ = draw
    scaler = StandardScaler().fit(x.flatten(1).numpy())
    model = LogisticRegression(C=0.01, max_iter=300).fit(scaler.transform(x.flatten(1).numpy()), y.numpy())
    assert (Pixels()(x, y, x_test, 0) == model.predict(scaler.transform(x_test.flatten(1).numpy()))).all()


def test_the_pretrained_probe_beats_the_random_one_and_pixels(draw):
    x, y, x_test, y_test = draw
    score = {
        name: float((CONTESTANTS[name](x, y, x_test, 0) == y_test.numpy()).mean())
        for name in ("pixels", "probe", "random frozen")
    }
    assert score["probe"] > 0.2 + max(score["pixels"], score["random frozen"])


def test_a_run_has_its_history_and_trains_anew_each_time(draw):
    x, y, x_test, _ = draw
    contestant = Train("shapes", 1e-2, 4)
    run = contestant.run(x, y, 0, validation=draw[2:], evaluate_every=2)
    assert [row["step"] for row in run.history.rows] == [2, 4]
    assert (run.predict(x_test).numpy() == contestant(x, y, x_test, 0)).all()  # no state left over from the run before


def test_steps_may_depend_on_the_labels_per_class(draw):
    x, y, *_ = draw
    asked = []

    def steps(labels):
        asked.append(labels)
        return 3

    assert len(Train(None, 1e-3, steps).run(x, y, 0).history.losses) == 3 and asked == [3]


def test_scratch_trains_longer_on_more_labels():
    lengths = [methods.scratch_steps(n) for n in (1, 10, 11, 50, 51, 1000)]
    assert lengths == sorted(lengths) and lengths[0] < lengths[-1]


def test_augmentation_changes_training_and_can_be_left_out(draw):
    x, y, *_ = draw
    with_it, without = (Train(None, 1e-3, 2, augment=a).run(x, y, 0).history.losses for a in (methods.AUGMENT, None))
    assert with_it != without


def test_options_go_to_the_strategy(draw):
    x, y, *_ = draw
    with pytest.raises(ValueError, match="k: must be 1 to 4"):
        Train("shapes", 1e-3, 2, strategy="last-k", options={"k": 9}).run(x, y, 0)


def test_an_unknown_source_is_named(draw):
    x, y, x_test, _ = draw
    with pytest.raises(ValueError, match="weights='shape'"):
        Probe("shape")(x, y, x_test, 0)
