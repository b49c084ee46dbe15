"""tlutils.finetune: what each strategy trains and leaves alone, and that a probe and its layer say the same."""

import numpy as np
import pytest
import torch
from sklearn.pipeline import Pipeline

from tlutils import finetune, freezing, shapes, training, zoo
from tlutils.finetune import STRATEGIES, Classifier, Features, as_linear, linear_probe

STAGES = ("stem", "layer1", "layer2", "layer3")


@pytest.fixture(scope="module")
def data():
    return shapes.TARGET10.draw(3, seed=0)


@pytest.fixture(scope="module")
def two_classes():
    x, y = shapes.TARGET10.draw(4, seed=1)
    return x[y < 2], y[y < 2]


@pytest.fixture
def loaded():
    return zoo.load("resnet-mini", "shapes")


def changed(module, before):
    """Names of the parameters and buffers that differ from the snapshot."""
    return {name for name, tensor in freezing.frozen_tensors(module).items() if not torch.equal(tensor, before[name])}


def stages_of(names):
    return {name.split(".")[1] for name in names}


# ---------------------------------------------------------------------------- probes
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_layer_gives_the_logits_of_the_probe(classes):
    rng = np.random.default_rng(classes)
    centres = rng.normal(size=(classes, 12)) * 2
    y = np.arange(classes).repeat(15)
    x = (centres[y] + rng.normal(size=(len(y), 12)) * rng.uniform(0.1, 30, 12) + rng.normal(size=12) * 50).astype(
        np.float32
    )
    probe = linear_probe(x, y, C=1.0)
    layer = as_linear(probe)
    assert layer.out_features == classes and layer.in_features == 12
    with torch.no_grad():
        logits = layer(torch.tensor(x)).numpy()
    decision = probe.decision_function(x)
    expected = np.stack([np.zeros(len(x)), decision], 1) if classes == 2 else decision
    assert np.allclose(logits, expected, atol=2e-3)
    probabilities = torch.tensor(logits).softmax(1).numpy()
    assert np.allclose(probabilities, probe.predict_proba(x), atol=1e-3)
    assert (logits.argmax(1) == probe.predict(x)).all()


def test_a_probe_is_logistic_regression_on_standardised_features():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    x = rng.normal(size=(60, 5)) + y[:, None]
    probe = linear_probe(torch.tensor(x), torch.tensor(y))
    assert isinstance(probe, Pipeline)
    rescaled = linear_probe(x * np.array([1, 10, 100, 0.01, 5]) + 7, y)  # units don't matter
    assert np.allclose(
        probe.predict_proba(x), rescaled.predict_proba(x * np.array([1, 10, 100, 0.01, 5]) + 7), atol=1e-4
    )
    strict = linear_probe(x, y, C=1e-4)
    assert np.abs(strict[-1].coef_).sum() < np.abs(probe[-1].coef_).sum()


@pytest.mark.parametrize(
    "x, y, message",
    [
        (torch.zeros(4, 2), [0, 1, 0], "labels: has 3 labels for 4 examples; give one label each"),
        (torch.zeros(3, 2), [1, 1, 1], "labels: all 3 labels are the same class; a classifier needs at least two"),
        (
            torch.tensor([[1.0], [2.0], [float("nan")]]),
            [0, 1, 0],
            "features: has values that are not finite, first in example 2",
        ),
        (torch.tensor([[1.0], [float("inf")]]), [0, 1], "features: .* example 1"),
    ],
)
def test_a_probe_refuses_bad_input(x, y, message):
    with pytest.raises(ValueError, match=message):
        linear_probe(x, y)


# ---------------------------------------------------------------------------- Classifier
def test_the_head_comes_from_the_seed_and_the_global_generator_stays(loaded):
    state = torch.get_rng_state()
    a, b, c = (Classifier(loaded, 5, seed=s).head for s in (1, 1, 2))
    assert torch.equal(a.weight, b.weight) and torch.equal(a.bias, b.bias) and not torch.equal(a.weight, c.weight)
    assert torch.equal(torch.get_rng_state(), state)
    assert a.weight.shape == (5, loaded.width)


def test_a_classifier_is_preprocessing_backbone_and_head(loaded, data):
    model = Classifier(loaded, 10).eval()
    x = data[0][:4]
    with torch.no_grad():
        features = loaded.backbone(loaded.preprocess(x))
        assert torch.equal(model(x), model.head(features))
        assert torch.equal(Features(loaded).eval()(x), features) and features.shape == (4, 64)


def test_a_classifier_of_one_class_is_refused(loaded):
    with pytest.raises(ValueError, match="classes: a classifier needs at least 2, got 1"):
        Classifier(loaded, 1)


# ---------------------------------------------------------------------------- strategies
def test_the_probe_leaves_the_backbone_as_it_was_bit_for_bit(loaded, data):
    with freezing.assert_frozen(loaded.backbone):
        run = finetune.finetune(loaded, *data, strategy="probe")
        run.predict(data[0])
    assert run.history is None
    assert all(freezing.is_frozen(part) for part in loaded.backbone.modules())
    assert not any(p.requires_grad for p in loaded.backbone.parameters())
    assert run.predict(data[0]).shape == (30,) and run.predict(data[0]).dtype == torch.int64


def test_the_probe_predicts_what_the_logistic_regression_predicts(loaded, data):
    run = finetune.finetune(loaded, *data, strategy="probe", C=0.1)
    test_x, _ = shapes.TARGET10.draw(5, seed=9)
    features = Features(loaded)
    expected = linear_probe(training.predict(features, data[0]), data[1], C=0.1).predict(
        training.predict(features, test_x).numpy()
    )
    assert run.predict(test_x).tolist() == expected.tolist()


def test_a_pretrained_probe_beats_chance_by_far(loaded):
    x, y = shapes.TARGET10.draw(5, seed=3)
    test_x, test_y = shapes.TARGET10.draw(20, seed=4)
    run = finetune.finetune(loaded, x, y, strategy="probe")
    assert (run.predict(test_x) == test_y).float().mean() > 0.6


@pytest.mark.parametrize("k", [1, 2, 4])
def test_last_k_trains_the_last_k_stages_and_the_head_only(loaded, data, k):
    before = freezing.frozen_snapshot(loaded.backbone)
    head = Classifier(loaded, 10, seed=5).head.weight.clone()
    run = finetune.finetune(loaded, *data, strategy="last-k", k=k, steps=2, lr=1e-2, seed=5)
    assert stages_of(changed(loaded.backbone, before)) == set(STAGES[-k:])
    for name, tensor in freezing.frozen_tensors(loaded.backbone).items():  # and all of these stages' weights do
        if name.split(".")[1] in STAGES[-k:] and name.endswith("weight"):
            assert not torch.equal(tensor, before[name]), name
    assert not torch.equal(run.model.head.weight, head)


def test_full_trains_everything(loaded, data):
    before = freezing.frozen_snapshot(loaded.backbone)
    run = finetune.finetune(loaded, *data, strategy="full", steps=2, lr=1e-2)
    same = freezing.frozen_tensors(loaded.backbone).keys() - changed(loaded.backbone, before)
    assert not [name for name in same if name.endswith(("weight", "bias", "running_mean", "running_var"))]
    assert len(run.history.losses) == 2


def test_full_learns_what_was_frozen_before(loaded, data):
    freezing.freeze(loaded.backbone)
    before = freezing.frozen_snapshot(loaded.backbone)
    finetune.finetune(loaded, *data, strategy="full", steps=1, lr=1e-2)
    assert stages_of(changed(loaded.backbone, before)) == set(STAGES)


def test_lp_ft_starts_where_the_probe_ended(data):
    probe = finetune.finetune(zoo.load("resnet-mini", "shapes"), *data, strategy="probe")
    start = finetune.finetune(zoo.load("resnet-mini", "shapes"), *data, strategy="lp-ft", steps=1, lr=0.0)
    assert torch.equal(start.model.head.weight, probe.model.head.weight)
    assert start.model.backbone.training is False
    learned = finetune.finetune(zoo.load("resnet-mini", "shapes"), *data, strategy="lp-ft", steps=3, lr=1e-2)
    assert not torch.equal(learned.model.backbone.stages[0][0].weight, probe.model.backbone.stages[0][0].weight)
    # The one step in training mode moves batch norm's running statistics, so the outputs are near, not equal.
    x, y = shapes.TARGET10.draw(20, seed=8)
    accuracies = [float((run.predict(x) == y).float().mean()) for run in (probe, start)]
    random_head = finetune.finetune(zoo.load("resnet-mini", "shapes"), *data, strategy="full", steps=1, lr=0.0)
    assert abs(accuracies[0] - accuracies[1]) < 0.1
    assert accuracies[1] > 0.3 + float((random_head.predict(x) == y).float().mean())


def test_gradual_unfreezing_goes_from_the_head_down_to_the_stem(loaded, data):
    seen = []

    class Watch:
        def on_start(self, state):
            self.before = freezing.frozen_snapshot(state.model.backbone)
            self.head = state.model.head.weight.detach().clone()

        def on_step(self, state):
            seen.append(stages_of(changed(state.model.backbone, self.before)))
            assert not torch.equal(state.model.head.weight, self.head)

    finetune.finetune(loaded, *data, strategy="gradual", steps=10, lr=1e-2, callbacks=[Watch()])
    order = [set(), {"layer3"}, {"layer2", "layer3"}, {"layer1", "layer2", "layer3"}, set(STAGES)]
    assert seen == [stage for stage in order for _ in range(2)]


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "probe"])
def test_all_strategies_share_the_head_of_their_seed_and_repeat_exactly(strategy, data):
    runs = [
        finetune.finetune(zoo.load("resnet-mini", "shapes"), *data, strategy=strategy, steps=5, lr=3e-3, seed=seed)
        for seed in (4, 4)
    ]
    assert all(
        torch.equal(a, b)
        for a, b in zip(runs[0].model.state_dict().values(), runs[1].model.state_dict().values(), strict=True)
    )
    assert runs[0].history == runs[1].history


def test_options_reach_the_training_loop(loaded, data):
    run = finetune.finetune(loaded, *data, steps=4, validation=data, evaluate_every=2, weight_decay=0.1, batch_size=8)
    assert [row["step"] for row in run.history.rows] == [2, 4]
    assert all("validation_accuracy" in row for row in run.history.rows)


def test_two_classes_work_with_every_strategy(two_classes):
    for strategy in STRATEGIES:
        run = finetune.finetune(zoo.load("resnet-mini", "shapes"), *two_classes, strategy=strategy, steps=5)
        assert run.model.head.out_features == 2 and set(run.predict(two_classes[0]).tolist()) <= {0, 1}


def test_more_classes_than_labels_may_be_asked_for(loaded, two_classes):
    run = finetune.finetune(loaded, *two_classes, classes=10, steps=1)
    assert run.model.head.out_features == 10


@pytest.mark.parametrize(
    "options, message",
    [
        ({"strategy": "magic"}, "strategy: must be one of probe, last-k, full, lp-ft, gradual; got 'magic'"),
        ({"strategy": "last-k", "k": 0}, "k: must be 1 to 4, the number of stages; got 0"),
        ({"strategy": "last-k", "k": 5}, "k: must be 1 to 4, the number of stages; got 5"),
        ({"strategy": "gradual", "steps": 4}, "steps: gradual unfreezing of 4 stages needs at least 5, got 4"),
        (
            {"strategy": "probe", "classes": 12},
            "y: has 10 classes in it, 12 are asked for; a probe needs an example of each",
        ),
        ({"classes": 9}, "y: labels must be 0 to classes - 1; they run from 0 to 9, classes=9"),
    ],
)
def test_settings_that_can_not_work_are_named(loaded, data, options, message):
    before = freezing.frozen_snapshot(loaded.backbone)
    with pytest.raises(ValueError, match=message):
        finetune.finetune(loaded, *data, **options)
    freezing.assert_frozen(loaded.backbone, before)


def test_data_that_can_not_be_learned_from_are_named(loaded, data):
    x, y = data
    with pytest.raises(ValueError, match="y: has 29 labels for 30 examples"):
        finetune.finetune(loaded, x, y[:-1])
    with pytest.raises(ValueError, match="y: all 30 labels are the same class"):
        finetune.finetune(loaded, x, torch.zeros_like(y))
    with pytest.raises(ValueError, match="y: labels must be 0 to classes - 1; they run from -1 to 8"):
        finetune.finetune(loaded, x, y - 1)
    broken = x.clone()
    broken[7, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="x: has values that are not finite, first in example 7"):
        finetune.finetune(loaded, broken, y)


@pytest.mark.gpu
def test_pictures_on_a_gpu_are_probed_and_trained(data):
    x, y = (t.cuda() for t in data)
    for strategy in STRATEGIES:
        run = finetune.finetune(zoo.load("resnet-mini", "shapes"), x, y, strategy=strategy, steps=5)
        assert run.predict(x).is_cuda
