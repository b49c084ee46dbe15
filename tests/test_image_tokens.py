"""tlutils.image_tokens: plain scenes, nearest codes, a codebook that follows, pictures written and read back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tlutils import image_tokens, multimodal, shapes, training


def small(codes: int = 32) -> image_tokens.ImageTokens:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return image_tokens.ImageTokens(codes, width=16)


def scenes(n: int = 100, seed: int = 0) -> shapes.Scenes:
    g = torch.Generator().manual_seed(seed)
    return image_tokens.plain_scenes(*multimodal.pairs(n, generator=g), generator=g)


def test_plain_scenes_are_solid_upright_and_in_the_middle():
    found = scenes(500)
    assert (found.clutter == 0).all() and (found.texture == 0).all()
    assert found.radius.min() >= 9.5 and found.radius.max() <= 11.5 and found.rotation.abs().max() <= 0.1501
    for place in (found.x, found.y):
        assert (place - 16).abs().max() <= 2 and place.std() > 0.5
    assert len(found.background.unique()) > 8
    again = scenes(500)
    assert torch.equal(shapes.render(found), shapes.render(again))
    x, same = image_tokens.plain_pictures(torch.Generator().manual_seed(0), 3)
    assert x is same and x.shape == (3, 3, 32, 32)


@given(m=st.integers(1, 20), k=st.integers(2, 12), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_the_nearest_code_is_the_nearest(m, k, seed):
    g = torch.Generator().manual_seed(seed)
    book, vectors = image_tokens.Codebook(k, depth=3), torch.randn(m, 3, generator=g)
    book.codes.copy_(torch.randn(k, 3, generator=g))
    chosen = book.nearest(vectors)
    distance = torch.cdist(vectors, book.codes)
    torch.testing.assert_close(distance.gather(1, chosen[:, None])[:, 0], distance.min(1).values, atol=1e-5, rtol=1e-4)


def test_codes_move_to_the_middle_of_what_chose_them_and_idle_ones_start_again():
    torch.manual_seed(0)
    book = image_tokens.Codebook(3, depth=2, memory=0.5)
    book.codes.copy_(torch.tensor([[0.0, 0.0], [10.0, 10.0], [99.0, 99.0]]))
    book.sums.copy_(book.codes)
    vectors = torch.cat([torch.tensor([[1.0, -1.0]]) + 0.01 * torch.randn(30, 2), torch.tensor([[9.0, 11.0]]) + 0.01 * torch.randn(30, 2)])
    for _ in range(30):
        book.follow(vectors, book.nearest(vectors))
    for middle in (torch.tensor([1.0, -1.0]), torch.tensor([9.0, 11.0])):
        assert (book.codes - middle).norm(dim=1).min() < 0.05
    assert book.codes.max() < 12, "the third code, far from everything, started again among the vectors"
    assert book.uses.isfinite().all() and (book.uses > 0).all()


def test_tokens_and_pictures_have_their_forms_and_gradients_pass_the_codes():
    model = small()
    x = shapes.render(scenes(4))
    drawn, distance = model(x)
    assert drawn.shape == x.shape and distance >= 0
    image_tokens.drawing_loss((drawn, distance), x).backward()
    assert model.encoder[0][0].weight.grad.abs().sum() > 0, "the encoder learns through the codes"
    numbers = model.eval().encode(x)
    assert numbers.shape == (4, 64) and numbers.dtype == torch.int64 and 0 <= numbers.min() and numbers.max() < 32
    again = model.decode(numbers)
    assert again.shape == x.shape and 0 <= again.min() and again.max() <= 1
    torch.testing.assert_close(again, model(x)[0].clamp(0, 1))


@pytest.mark.parametrize("numbers, words", [(torch.zeros(2, 63).long(), r"must be \(N, 64\), got \(2, 63\)"),
                                            (torch.full((1, 64), 32), "codes go from 0 to 31, got 32"), (torch.full((1, 64), -1), "got -1")])
def test_wrong_tokens_are_refused(numbers, words):
    with pytest.raises(ValueError, match=words):
        small().decode(numbers)


def test_evaluation_leaves_the_codebook_alone_and_training_moves_it():
    model, x = small().eval(), shapes.render(scenes(16))
    before = model.book.codes.clone()
    model(x)
    assert torch.equal(before, model.book.codes)
    model.train()(x)
    assert not torch.equal(before, model.book.codes)


def test_a_few_steps_lower_the_loss():
    model = small(64)
    history = training.fit(model, image_tokens.plain_pictures, steps=50, lr=4e-3, batch_size=32, loss=image_tokens.drawing_loss, seed=0)
    assert sum(history.losses[-5:]) < 0.7 * sum(history.losses[:5])


def test_the_loss_counts_error_and_distance():
    x = torch.zeros(1, 3, 2, 2)
    assert image_tokens.drawing_loss((x + 0.25, torch.tensor(2.0)), x).item() == pytest.approx(1 + 0.25 * 2)
