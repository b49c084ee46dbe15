"""tlutils.real_experiments: the real tier's protocol, tried on a small made-up data set with networks of the lab."""

from functools import partial

import numpy as np
import pytest
import torch

from tlutils import datasets, evaluation, features, finetune, paths, report, zoo
from tlutils import real_experiments as real
from tlutils.datasets import Dataset

LOCAL = {"near": ("resnet-mini", "shapes"), "random frozen": ("resnet-mini", None)}


def pictures(n, seed, classes=2):
    """Balanced pictures (uint8, 3 x 40 x 40) whose class shows in their mean brightness."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.integers(0, 120, (n, 3, 40, 40)) + 100 * y[:, None, None, None] // (classes - 1)
    return torch.tensor(x, dtype=torch.uint8), torch.tensor(y)


@pytest.fixture(scope="module")
def dataset():
    (x, y), (x_test, y_test) = pictures(160, 0), pictures(30, 1)
    return Dataset("made up", x, y, x_test, y_test, ("dark", "light"), {"sha256": "0"})


# ---------------------------------------------------------------------------- probes on stored features
def test_a_probe_on_stored_features_is_the_probe_on_pictures(dataset):
    made = real.probes(dataset, LOCAL)
    assert set(made) == set(LOCAL)
    x, y, x_test, y_test = evaluation.pool(real.by_index(dataset))(5, 0)
    found = made["near"](x, y, x_test, 0)
    loaded = zoo.load("resnet-mini", "shapes")
    probe = finetune.linear_probe(features.extract(loaded, dataset.x_train[x]), y)
    assert (
        found == probe.predict(features.extract(loaded, dataset.x_test).numpy())
    ).mean() > 0.95  # features in other batches
    assert (y_test == dataset.y_test).all()


def test_features_are_computed_once(dataset, monkeypatch):
    real.probes(dataset, LOCAL)
    files = sorted((paths.cache_dir() / "features").iterdir())
    assert len(files) == 4
    monkeypatch.setattr(features, "_compute", lambda *a: pytest.fail("the features are in the cache"))
    real.probes(dataset, LOCAL)
    assert sorted((paths.cache_dir() / "features").iterdir()) == files


def test_row_numbers_stand_for_the_pictures(dataset):
    numbered = real.by_index(dataset)
    x, y, x_test, y_test = evaluation.pool(numbered)(7, 3)
    pictures_, labels, *_ = evaluation.pool(dataset)(7, 3)
    assert torch.equal(dataset.x_train[x], pictures_) and torch.equal(y, labels)
    assert x_test.tolist() == list(range(30)) and numbered.name == dataset.name


# ---------------------------------------------------------------------------- smaller data sets
def test_small_pictures_for_the_baseline_on_pixels(dataset):
    small = real.small(dataset, size=8)
    assert small.x_train.shape == (160, 3, 8, 8) and small.x_test.shape == (30, 3, 8, 8)
    assert small.x_train.dtype == torch.float32 and small.x_train.min() >= -1e-6 and small.x_train.max() <= 1 + 1e-6
    assert torch.allclose(small.x_train.mean((1, 2, 3)), datasets.as_float(dataset.x_train).mean((1, 2, 3)), atol=1e-3)
    assert torch.equal(small.y_train, dataset.y_train)


def test_thinning_keeps_pairs_and_takes_at_most_so_many_of_each_class(dataset):
    thin = real.thinned(dataset, train=10, test=4)
    assert thin.y_train.bincount().tolist() == [10, 10] and thin.y_test.bincount().tolist() == [4, 4]
    for x, y, whole_x, whole_y in (
        (thin.x_train, thin.y_train, dataset.x_train, dataset.y_train),
        (thin.x_test, thin.y_test, dataset.x_test, dataset.y_test),
    ):
        labels = {picture.numpy().tobytes(): int(label) for picture, label in zip(whole_x, whole_y, strict=True)}
        assert all(labels[picture.numpy().tobytes()] == int(label) for picture, label in zip(x, y, strict=True))
        assert len({picture.numpy().tobytes() for picture in x}) == len(x)
    again = real.thinned(dataset, train=10, test=4)
    assert torch.equal(thin.x_train, again.x_train)
    assert len(real.thinned(dataset, train=1000, test=1000).y_train) == 160


# ---------------------------------------------------------------------------- the protocol
@pytest.fixture
def protocol(dataset, monkeypatch):
    """The experiments' own code, with a small data set, small networks and few steps."""
    monkeypatch.setattr(real, "_load", lambda name: dataset)
    monkeypatch.setattr(real, "probes", partial(real.probes, networks=LOCAL))
    monkeypatch.setattr(
        real,
        "_trained",
        lambda name, rate, steps: real.Train(real.TRAINED[name][0], rate, steps, augment=real.AUGMENT, batch_size=8),
    )
    monkeypatch.setattr(real, "TRAINED", {"fine-tuning": ("shapes", (1e-3, 1e-2), 3), "scratch": (None, (1e-3,), 3)})
    real._rate.cache_clear()
    yield
    real._rate.cache_clear()


def test_curves_give_every_method_at_its_budgets_with_its_items(protocol, capsys):
    rates = {"fine-tuning": 1e-3, "scratch": 3e-3}
    rows = real.curves("made up", (2, 5), (3,), rates.get)
    found = {(row["method"], row["labels"], row["seed"]) for row in rows}
    expected = {(m, n, s) for m in (*LOCAL, "pixels") for n in (2, 5) for s in real.DRAWS}
    expected |= {(m, 3, s) for m in ("fine-tuning", "scratch") for s in real.DRAWS}
    assert found == expected and len(rows) == len(expected)
    for row in rows:
        assert len(row["correct"]) == 30 and row["correct"].count("1") / 30 == pytest.approx(row["accuracy"])
        assert row["data"] == "made up" and all(value == value for value in row.values()), "no empty cells"
        assert row.get("rate") == rates.get(row["method"])


def test_the_rate_is_chosen_without_the_test_items(protocol, dataset, monkeypatch):
    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError("the test items were looked at")

        __getitem__ = __len__ = __iter__ = __getattr__

    hidden = real.replace(dataset, x_test=Untouchable(), y_test=Untouchable())
    monkeypatch.setattr(real, "_load", lambda name: hidden)
    draws, best = [], {1e-3: 0.4, 1e-2: 0.8}

    def fake(methods, budgets, seeds, *, draw):
        (method,) = methods.values()
        draws.append(draw(budgets[0], seeds[0]))
        assert list(seeds) == [real.DEV_DRAW]
        return evaluation.pd.DataFrame({"accuracy": [best[method.lr]]})

    monkeypatch.setattr(evaluation, "learning_curve", fake)
    assert real._rate("fine-tuning", "made up", 4) == 1e-2
    for x, y, held, held_y in draws:
        assert len(x) == len(y) == 8 and len(held) == len(held_y) == 100
        assert not {p.numpy().tobytes() for p in x} & {p.numpy().tobytes() for p in held}, (
            "judged on pictures it did not learn from"
        )
        assert torch.equal(held, draws[0][2]), "the same pictures judge every rate"


def test_rates_are_chosen_once_and_read_back_for_the_other_sets(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path / "data")
    with pytest.raises(
        FileNotFoundError, match="no real result named 'ants_bees' is recorded"
    ):
        real._recorded_rates()
    rows = [
        {"method": "probe", "accuracy": 0.9},
        *({"method": m, "accuracy": 0.8, "rate": r} for m, r in (("fine-tuning", 1e-3), ("scratch", 3e-3))),
    ]
    report.save("real", "ants_bees", rows, started=0)
    assert real._recorded_rates() == {"fine-tuning": 1e-3, "scratch": 3e-3}


def test_draws_for_rates_and_for_results_differ():
    assert real.DEV_DRAW not in real.DRAWS and len(real.DRAWS) == 3


def test_methods_of_the_real_tier_know_their_networks():
    names = zoo.names()
    assert all(model in names for model, _ in real.NETWORKS.values())
    assert ("mobilenet_v2", None) in real.NETWORKS.values(), "a random frozen backbone is among the sources"
    for name, (weights, rates, steps) in real.TRAINED.items():
        method = real._trained(name, rates[0], steps)
        assert (
            method.model == "mobilenet_v2"
            and method.weights == weights
            and method.lr == rates[0]
            and method.steps == steps
        )
        assert len(rates) >= 3 and list(rates) == sorted(rates)


def test_every_experiment_says_what_it_asks():
    assert set(real.EXPERIMENTS) == {"ants_bees", "xrays", "sources_targets"}
    assert all(e.__doc__ for e in real.EXPERIMENTS.values())


# ---------------------------------------------------------------------------- real photographs
@pytest.mark.real
def test_real_features_tell_ants_from_bees():
    whole = datasets.load("hymenoptera", size=real.SIZE)
    dataset = real.thinned(whole, train=10, test=15)
    made = real.probes(dataset, {"imagenet": real.NETWORKS["imagenet"]})
    frame = evaluation.learning_curve(made, [10], [0], draw=evaluation.pool(real.by_index(dataset)), items=True)
    assert frame["accuracy"].mean() > 0.75


@pytest.mark.real
def test_provenance_names_the_data_and_weights():
    found = real.provenance([{"data": "hymenoptera"}])
    assert set(found["data_sha256"]) == {"hymenoptera"} and set(found["weights_sha256"]) == set(real.NETWORKS)
    assert found["weights_sha256"]["random frozen"] == "random initialisation"
    assert all(len(v) == 64 for k, v in found["weights_sha256"].items() if k != "random frozen")
