"""tlutils.multimodal: captions as numbers, the loss against a loop, zero-shot by prompts, recall, the bundled CLIP mini."""

import math

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tlutils import multimodal as mm
from tlutils import paths, shapes, zoo


def unit(n: int, d: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def small() -> mm.CLIPMini:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return mm.CLIPMini(widths=(8, 8, 16), text_width=16).eval()


# ---------------------------------------------------------------------------- captions
def test_every_caption_of_the_world_can_be_written_and_read_back():
    g = torch.Generator().manual_seed(0)
    scenes = shapes.sample(torch.randint(0, 16, (200,), generator=g), torch.randint(0, 16, (200,), generator=g), generator=g)
    captions = shapes.caption(scenes)
    numbers = mm.tokens(captions)
    assert numbers.shape == (200, mm.WINDOW) and numbers.dtype == torch.int64
    for caption, row in zip(captions, numbers.tolist()):
        assert row[0] == mm.START and row.count(mm.END) == 1
        assert " ".join(mm.WORDS[i] for i in row if i > mm.END) == caption
    assert torch.equal(mm.tokens(["A Red ring, on a green background."]), mm.tokens(["a red ring on a green background"]))


@pytest.mark.parametrize("texts, words", [
    (["a red ring", "a red rnig"], r"texts\[1\].*never read the word 'rnig'; did you mean 'ring'"),
    ([""], r"texts\[0\]='' is no caption"), ([" ,. "], "is no caption"), ([3], r"texts\[0\]=3 is no caption"),
    (["a red bow-tie"], "never read the word 'bow-tie'"), (["a <pad> ring"], "never read the word '<pad>'"),
    ("a red ring", "give a list of captions, not one string")])
def test_captions_that_cant_be_read_say_why(texts, words):
    with pytest.raises(ValueError, match=words):
        mm.tokens(texts)


def test_a_caption_that_is_too_long_is_cut_with_a_warning():
    long = "a small red striped ring on a green background " * 2
    with pytest.warns(UserWarning, match=r"texts\[0\] has 18 words, the model reads 14"):
        numbers = mm.tokens([long])
    assert numbers[0, -1] == mm.END and (numbers != mm.PAD).all()


def test_held_out_pairs_leave_every_shape_and_every_colour_seen():
    shape, colour = mm.combinations()
    assert len({*zip(shape.tolist(), colour.tolist())}) == 256
    new = mm.held_out(shape, colour).view(16, 16)
    assert new.sum() == 64 and (new.sum(0) == 4).all() and (new.sum(1) == 4).all()


@pytest.mark.parametrize("new", [False, True])
def test_pairs_are_of_the_kind_asked_for_and_fixed_by_the_generator(new):
    shape, colour = mm.pairs(500, generator=torch.Generator().manual_seed(1), new=new)
    assert (mm.held_out(shape, colour) == new).all()
    assert torch.equal(shape, mm.pairs(500, generator=torch.Generator().manual_seed(1), new=new)[0])


def test_training_never_shows_a_held_out_pair_and_varies_its_captions():
    g = torch.Generator().manual_seed(0)
    scenes = shapes.sample(*mm.pairs(400, generator=g), generator=g)
    captions = mm.describe(scenes, generator=g)
    assert all(shapes.SHAPES[s] in caption.split() for s, caption in zip(scenes.shape.tolist(), captions))
    lengths = {len(caption.split()) for caption in captions}
    assert min(lengths) == 2 and max(lengths) >= 8
    x, numbers = mm.captioned(g, 300)
    assert x.shape == (300, 3, 32, 32) and numbers.shape == (300, mm.WINDOW)
    for row in numbers.tolist():
        words = [mm.WORDS[i] for i in row if i > mm.END]
        spoken = words[:words.index("on")] if "on" in words else words
        shape, colours = shapes.SHAPES.index(spoken[-1]), [shapes.COLOURS.index(w) for w in spoken if w in shapes.COLOURS]
        assert not any(mm.held_out(torch.tensor(shape), torch.tensor(c)) for c in colours)


# ---------------------------------------------------------------------------- the loss
@given(n=st.integers(1, 6), seed=st.integers(0, 1000), scale=st.floats(0.5, 50))
@settings(max_examples=20, deadline=None)
def test_the_loss_against_a_loop(n, seed, scale):
    a, b = unit(n, 5, seed), unit(n, 5, seed + 1)
    total = 0.0
    for i in range(n):
        row = [scale * float(a[i] @ b[j]) for j in range(n)]
        column = [scale * float(a[j] @ b[i]) for j in range(n)]
        total += -row[i] + math.log(sum(map(math.exp, row))) - column[i] + math.log(sum(map(math.exp, column)))
    assert float(mm.contrastive_loss(a, b, scale)) == pytest.approx(total / (2 * n), rel=1e-4, abs=1e-4)


def test_the_loss_is_log_n_without_knowledge_and_small_for_right_pairs():
    same = unit(1, 8, 0).expand(32, 8)
    assert float(mm.contrastive_loss(same, same, 10.0)) == pytest.approx(math.log(32), rel=1e-5)
    eye = torch.eye(8)
    assert mm.contrastive_loss(eye, eye, 50.0) < 1e-4 < 5 < mm.contrastive_loss(eye, eye.roll(1, 0), 50.0)
    assert torch.isclose(mm.contrastive_loss(eye, same[:8], 3.0), mm.contrastive_loss(same[:8], eye, 3.0))
    with pytest.raises(ValueError, match="must be .N, D. alike"):
        mm.contrastive_loss(eye, eye[:4], 1.0)


# ---------------------------------------------------------------------------- the towers
def test_both_towers_end_in_vectors_of_length_one_and_learn():
    model = small()
    x = shapes.render(shapes.sample(torch.arange(6), torch.arange(6), generator=torch.Generator().manual_seed(0)))
    captions = [f"a red {s}" for s in shapes.SOURCE_SHAPES[:6]]
    pictures, texts = model(zoo.MINI(x)), model.texts(captions)
    assert pictures.shape == texts.shape == (6, model.width)
    torch.testing.assert_close(pictures.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(6))
    mm.contrastive_loss(pictures, texts, model.scale).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert without == [], "every parameter learns"


def test_a_caption_means_the_same_whatever_stands_beside_it():
    model = small()
    alone = model.texts(["a red ring"])
    torch.testing.assert_close(model.texts(["a red ring", "a small red striped ring on a green background"])[:1], alone, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(model.texts(["a ring on a red background"]), alone)


def test_the_temperature_is_bounded():
    model = small()
    assert model.scale.item() == pytest.approx(1 / 0.07, rel=1e-5)
    with torch.no_grad():
        model.log_scale.fill_(10.0)
    assert model.scale.item() == 100


# ---------------------------------------------------------------------------- using it
def test_an_ensemble_is_the_mean_of_its_prompts():
    model = small()
    prompts = [["a ring", "a red ring"], ["a star"]]
    classes = mm.class_embeddings(model, prompts)
    torch.testing.assert_close(classes.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(classes[0], F.normalize(model.texts(prompts[0]).mean(0), dim=0))
    for wrong in (["a ring", "a star"], [["a ring"], []]):
        with pytest.raises(ValueError, match="at least one caption for every class"):
            mm.class_embeddings(model, wrong)


def test_recall_counts_right_answers_among_the_first_k():
    table = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.5, 0.1], [0.7, 0.9, 0.2]])
    assert [mm.recall(table, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert mm.recall(torch.zeros(4, 4), 1) == 0, "a tie is no answer"
    for table, k in ((torch.zeros(3, 4), 1), (torch.zeros(3, 3), 0), (torch.zeros(3, 3), 4)):
        with pytest.raises(ValueError, match="must be square"):
            mm.recall(table, k)


# ---------------------------------------------------------------------------- through the zoo
def test_a_clip_of_other_size_names_the_first_wrong_tensor(tmp_path):
    safetensors.torch.save_file(small().state_dict(), tmp_path / "small.safetensors")
    with pytest.raises(ValueError, match=r"log_scale|vision\.stages\.stem\.0\.weight is \(8, 3, 3, 3\) in the file"):
        zoo.load("clip-mini", tmp_path / "small.safetensors")
    state = mm.CLIPMini().state_dict()
    del state["from_text.weight"]
    safetensors.torch.save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(ValueError, match=r"it lacks from_text\.weight \(64, 96\)"):
        zoo.load("clip-mini", tmp_path / "less.safetensors")


def test_wrong_names_list_the_near_ones():
    assert "clip-mini" in zoo.names()
    with pytest.raises(ValueError, match="did you mean .*'clip-mini'"):
        zoo.load("clip-mni")
    with pytest.raises(ValueError, match="weights='caption': .*did you mean 'captions'"):
        zoo.load("clip-mini", "caption")


def test_random_weights_come_from_the_seed():
    a, b, c = (zoo.load("clip-mini", None, seed=seed).backbone.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[key], b[key]) for key in a) and not torch.equal(a["from_text.weight"], c["from_text.weight"])


@torch.no_grad()
def test_the_bundled_clip_reaches_what_was_asked_of_it():
    loaded = zoo.load("clip-mini")
    file = paths.data_dir() / "weights" / loaded.card["file"]
    assert file.stat().st_size < 2.2e6 and loaded.card["seconds"] < 1200
    scores = loaded.card["scores"]
    assert scores["zero_shot_seen"] >= 0.9 and scores["zero_shot_held_out"] >= 0.6 and scores["candidates"] == 256
    shape, colour = mm.combinations()
    words = mm.class_embeddings(loaded.backbone, [[f"a {shapes.COLOURS[c]} {shapes.SHAPES[s]}"] for s, c in zip(shape, colour)])
    scenes = shapes.sample(shape, colour, generator=torch.Generator().manual_seed(4))
    right = (mm.embed(loaded, shapes.render(scenes)) @ words.T).argmax(1) == torch.arange(256)
    new = mm.held_out(shape, colour)
    assert right[~new].float().mean() > 0.9 and right[new].float().mean() > 0.6
