"""tlutils.views: k augmented views through a frozen backbone, cached, and what a head makes of them."""
from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tlutils import augmentation, features, finetune, freezing, shapes, training, views, zoo

AUGMENT = augmentation.affine()


@pytest.fixture(scope="module")
def loaded():
    return zoo.load("resnet-mini")


@pytest.fixture(scope="module")
def data():
    return shapes.TARGET10.draw(3, seed=5)


def test_the_first_view_is_the_picture_itself_and_the_others_are_augmented(loaded, data):
    x, _ = data
    found = views.extract_views(loaded, x, 3, augment=AUGMENT, seed=1)
    assert found.shape == (3, 30, loaded.width) and found.dtype == torch.float32
    torch.testing.assert_close(found[0], features.extract(loaded, x))
    again = torch.Generator()
    again.set_state(views.batches.generator(1, "view", 2).get_state())
    torch.testing.assert_close(found[2], features.extract(loaded, AUGMENT(x, again)))
    assert not torch.allclose(found[1], found[2])


def test_views_are_nested_and_follow_the_seed(loaded, data):
    x, _ = data
    four = views.extract_views(loaded, x, 4, augment=AUGMENT, seed=1)
    assert torch.equal(four[:2], views.extract_views(loaded, x, 2, augment=AUGMENT, seed=1))
    assert not torch.equal(four[1], views.extract_views(loaded, x, 2, augment=AUGMENT, seed=2)[1])


def test_the_backbone_stays_frozen(loaded, data):
    with freezing.assert_frozen(loaded.backbone):
        views.extract_views(loaded, data[0], 2, augment=AUGMENT)


def test_a_full_cache_needs_neither_augmentation_nor_network(loaded, data, tmp_path):
    x, _ = data
    first = views.extract_views(loaded, x, 3, augment=AUGMENT, cache=tmp_path, name="affine")

    def never(images, generator):
        raise AssertionError("the cache was not used")
    assert torch.equal(first, views.extract_views(loaded, x, 3, augment=never, cache=tmp_path, name="affine"))
    with pytest.raises(AssertionError, match="was not used"):
        views.extract_views(loaded, x, 3, augment=never, cache=tmp_path, name="another augmentation")
    with pytest.raises(AssertionError, match="was not used"):
        views.extract_views(loaded, x, 3, augment=never, cache=tmp_path, name="affine", seed=9)
    assert len(list(tmp_path.iterdir())) == 3


def test_one_view_needs_no_augmentation(loaded, data):
    assert views.extract_views(loaded, data[0], 1).shape == (1, 30, loaded.width)


@pytest.mark.parametrize("k", [0, -2, 1.5, True, None])
def test_a_wrong_number_of_views_is_named(loaded, data, k):
    with pytest.raises(ValueError, match=f"k={k!r} must be a whole number"):
        views.extract_views(loaded, data[0], k, augment=AUGMENT)


def test_missing_parts_are_named(loaded, data, tmp_path):
    with pytest.raises(ValueError, match="augment: is None, but k=3 asks for 2"):
        views.extract_views(loaded, data[0], 3)
    with pytest.raises(ValueError, match="name: give the augmentation a name"):
        views.extract_views(loaded, data[0], 2, augment=AUGMENT, cache=tmp_path)


def test_a_probe_on_equal_views_is_the_plain_probe(loaded, data):
    """k copies with C / k have the same optimum as one view with C."""
    x, y = data
    plain = features.extract(loaded, x)
    one, many = finetune.linear_probe(plain, y), views.probe(plain.expand(5, -1, -1), y)
    np.testing.assert_allclose(many[-1].coef_, one[-1].coef_, atol=2e-3)


def test_a_head_learns_from_the_stream(loaded, data):
    x, y = data
    found = views.extract_views(loaded, x, 4, augment=AUGMENT)
    head = torch.nn.Linear(loaded.width, 10)
    history = training.fit(head, views.stream(found, y), steps=60, lr=1e-2, batch_size=16)
    assert history.losses[-1] < 0.5 * history.losses[0]
    assert training.evaluate(head, found[0], y)["accuracy"] > 0.9


@given(st.integers(1, 5), st.integers(2, 9), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_the_stream_gives_rows_that_exist_each_with_its_label(k, n, batch):
    y = torch.arange(n)
    made = torch.arange(k)[:, None, None] * 100 + y[None, :, None] * torch.ones(k, 1, 2)
    x, labels = views.stream(made, y)(torch.Generator().manual_seed(0), batch)
    assert len(x) == len(labels) == min(n, batch) == len(set(labels.tolist()))
    assert torch.equal(x[:, 0] % 100, labels.float()) and (x[:, 0] // 100 < k).all()


@pytest.mark.parametrize("use", [views.probe, views.stream])
def test_bad_input_is_named(use):
    good, y = torch.rand(2, 6, 3), torch.arange(6) % 2
    for made, labels, words in [(good[0], y, r"views: must be \(k, N, D\).*got \(6, 3\)"), (good, y[:5], "y: has 5 labels for 6 examples"),
                                (good, torch.zeros(6), "y: all 6 labels are the same class")]:
        with pytest.raises(ValueError, match=words):
            use(made, labels)
    bad = good.clone()
    bad[1, 4, 0] = float("nan")
    with pytest.raises(ValueError, match="views: has values that are not finite, first in example 4"):
        use(bad, y)
