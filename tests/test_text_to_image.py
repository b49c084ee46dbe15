"""tlutils.text_to_image: captions for drawing, sampling, the painter, the judge, the bundled DALL-E mini."""

import pytest
import torch

from tlutils import image_tokens, multimodal, paths, shapes
from tlutils import text_to_image as t2i


@pytest.fixture(scope="module")
def small() -> t2i.DALLEMini:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return t2i.DALLEMini(codes=20, width=16, layers=2, heads=2).eval()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CAPTIONS = ["a red ring on a green background", "a blue star"]


# ---------------------------------------------------------------------------- captions
def test_captions_for_drawing():
    numbers = t2i.caption_tokens(CAPTIONS)
    assert numbers.shape == (2, t2i.TEXT) and torch.equal(numbers, multimodal.tokens(CAPTIONS)[:, :t2i.TEXT])
    nothing = t2i.no_caption(3)
    assert nothing.shape == (3, t2i.TEXT) and (nothing[:, 2:] == multimodal.PAD).all()
    g = generator()
    scenes = image_tokens.plain_scenes(*multimodal.pairs(50, generator=g), generator=g)
    full, short = t2i.drawing_captions(scenes), t2i.drawing_captions(scenes, background=False)
    assert all(a.startswith(b + " on a ") for a, b in zip(full, short))
    t2i.caption_tokens(full + short)


@pytest.mark.parametrize("texts, words", [
    (["a red ring", "a small red ring"], r"texts\[1\].*'small' is no word for drawing"), (["a striped ring"], "'striped' is no word"),
    (["a red rign"], "did you mean 'ring'"), ([""], "is no caption"),
    (["a red ring on a green background on a blue background"], "longer than the 8 words")])
def test_captions_that_cant_be_drawn_say_why(texts, words):
    with pytest.raises(ValueError, match=words):
        t2i.caption_tokens(texts)


# ---------------------------------------------------------------------------- the model
def test_each_token_is_predicted_from_what_stands_before_it_only(small):
    captions, numbers = t2i.caption_tokens(CAPTIONS), torch.randint(0, 20, (2, 64), generator=generator())
    logits = small(small.join(captions, numbers))
    assert logits.shape == (2, 20, 64)
    later = numbers.clone()
    later[:, 40:] = (later[:, 40:] + 1) % 20
    changed = small(small.join(captions, later))
    torch.testing.assert_close(changed[:, :, :41], logits[:, :, :41])
    assert not torch.allclose(changed[:, :, 41:], logits[:, :, 41:])
    other = small(small.join(captions.flip(0), numbers))
    assert not torch.allclose(other[:, :, 0], logits[:, :, 0]), "the caption is read from the first token on"


def test_drawing_step_by_step_takes_the_tokens_that_the_whole_sequence_gives(small):
    captions = t2i.caption_tokens(CAPTIONS)
    drawn = small.sample(captions, generator=generator(), temperature=0)
    assert drawn.shape == (2, 64)
    assert torch.equal(small(small.join(captions, drawn)).argmax(1), drawn)


def test_samples_are_fixed_by_the_generator(small):
    captions = t2i.caption_tokens(CAPTIONS)
    first, same, other = (small.sample(captions, generator=generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_guidance_one_is_the_model_itself_and_zero_ignores_the_caption(small):
    captions = t2i.caption_tokens(CAPTIONS)
    alone = small.sample(t2i.no_caption(2), generator=generator(), temperature=0)
    torch.testing.assert_close(small.sample(captions, generator=generator(), temperature=0, guidance=0), alone)


@pytest.mark.parametrize("setting", [{"temperature": -1}, {"guidance": -0.5}, {"top_k": 0}])
def test_settings_out_of_range_are_refused(small, setting):
    with pytest.raises(ValueError, match="must be at least 0, top_k=.* at least 1"):
        small.sample(t2i.caption_tokens(CAPTIONS), generator=generator(), **setting)


def test_pick_obeys_temperature_and_top_k():
    logits = torch.tensor([[0.0, 1.0, 3.0, 2.0]]).expand(2000, -1)
    assert (t2i.pick(logits, generator=generator(), temperature=0) == 2).all()
    assert set(t2i.pick(logits, generator=generator(), top_k=2).tolist()) == {2, 3}
    assert torch.equal(t2i.pick(logits, generator=generator(), top_k=9), t2i.pick(logits, generator=generator()))
    for temperature in (0.5, 1.0, 2.0):
        found = t2i.pick(logits, generator=generator(), temperature=temperature).bincount(minlength=4) / 2000
        torch.testing.assert_close(found, (logits[0] / temperature).softmax(0), atol=0.04, rtol=0)


def test_loading_names_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="weights='drawing': .*did you mean 'drawings'"):
        t2i.load("drawing")
    with pytest.raises(ValueError, match="there are no such weights of vqvae-mini"):
        t2i.load(folder=tmp_path)


# ---------------------------------------------------------------------------- judge and bundled pair
def test_the_judge_knows_plain_scenes():
    shape, colour = multimodal.combinations()
    scenes = image_tokens.plain_scenes(shape, colour, generator=generator(3))
    seen = t2i.judge(shapes.render(scenes))
    assert (seen["shape"] == scenes.shape).float().mean() > 0.98
    assert (seen["colour"] == scenes.colour).float().mean() > 0.98
    assert (seen["background"] == scenes.background).float().mean() > 0.98
    grey = t2i.judge(torch.full((4, 3, 32, 32), 0.5))
    assert all(value.shape == (4,) for value in grey.values())


@pytest.fixture(scope="module")
def painter() -> t2i.Painter:
    return t2i.load()


def test_the_bundled_pair_is_small_and_says_how_it_was_made(painter):
    seconds = 0
    for name, card in painter.card.items():
        assert (paths.data_dir() / "weights" / card["file"]).stat().st_size < 2.2e6 and name in card["recipe"]
        seconds += card["seconds"]
    assert seconds < 1500


def test_it_draws_what_captions_say(painter):
    g = generator(11)
    for new, wanted in ((False, 0.8), (True, 0.5)):
        scenes = image_tokens.plain_scenes(*multimodal.pairs(48, generator=g, new=new), generator=g)
        pictures = painter.draw(t2i.drawing_captions(scenes), seed=1, temperature=0.7)
        assert pictures.shape == (48, 3, 32, 32) and 0 <= pictures.min() and pictures.max() <= 1
        seen = t2i.judge(pictures)
        assert ((seen["shape"] == scenes.shape) & (seen["colour"] == scenes.colour)).float().mean() > wanted - 0.15


def test_drawing_is_fixed_by_the_seed_and_batches_change_nothing_but_chance(painter):
    captions = CAPTIONS * 2
    one, same = (painter.draw(captions, seed=3) for _ in range(2))
    assert torch.equal(one, same)
    assert painter.draw(captions, seed=3, batch_size=1).shape == one.shape
