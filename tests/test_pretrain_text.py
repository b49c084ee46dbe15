"""tlutils.pretrain_text: masking, documents, the four objectives, a recipe from start to card, and what the repository holds."""

import shutil
from dataclasses import replace

import pytest
import torch

from tlutils import mini_transformers, paths, pretrain, pretrain_text, text, zoo
from tlutils.mini_transformers import CLS, MASK, PAD, SEP
from tlutils.pretrain_text import IGNORED, RECIPES, Documents, TextRecipe

TINY = TextRecipe("bert-mini", "nothing yet", masks="static", pairs=True, documents=200, steps=6, batch_size=8, width=32, layers=2)


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A data folder of its own, with the tokenizer; gives the folder of the weights."""
    source = paths.data_dir() / "weights"
    folder = tmp_path / "data" / "weights"
    folder.mkdir(parents=True)
    shutil.copy(source / mini_transformers.TOKENIZER, folder)
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path / "data")
    monkeypatch.setenv("TLUTILS_CACHE", str(tmp_path / "cache"))
    return folder


# ---------------------------------------------------------------------------- masking
def test_masking_keeps_to_its_shares():
    x = torch.randint(5, 1600, (400, 60), generator=draw(1))
    x[:, 0], x[:, -1], x[:200, -2] = CLS, SEP, PAD
    masked, labels = pretrain_text.mask_words(x, draw(2))
    asked = labels != IGNORED
    assert torch.equal(labels[asked], x[asked]) and torch.equal(masked[~asked], x[~asked])
    assert not asked[(x == CLS) | (x == SEP) | (x == PAD)].any()
    assert asked[:, 1:-1].float().mean() == pytest.approx(0.15, abs=0.01) and asked.any(1).all()
    kinds = masked[asked]
    assert (kinds == MASK).float().mean() == pytest.approx(0.8, abs=0.03)
    assert (kinds == x[asked]).float().mean() == pytest.approx(0.1, abs=0.02)



def test_each_row_is_asked_for_a_word_and_wrong_shares_are_refused():
    x = torch.tensor([[CLS, 9, SEP, PAD], [CLS, 8, 7, SEP]])
    for seed in range(20):
        _, labels = pretrain_text.mask_words(x, draw(seed), share=0.01)
        assert ((labels != IGNORED).sum(1) == 1).all() and labels[0, 1] == 9
    with pytest.raises(ValueError, match="share=0"):
        pretrain_text.mask_words(x, draw(), share=0)


# ---------------------------------------------------------------------------- documents
def test_static_masks_repeat_and_dynamic_ones_do_not():
    def seen(masks):
        stream, found = Documents(replace(TINY, masks=masks, pairs=False, documents=60)), {}
        for step in range(30):
            x, y = stream(draw(step), 8)
            for masked, labels in zip(x, y, strict=True):
                whole = torch.where(labels == IGNORED, masked, labels)
                found.setdefault(tuple(whole.tolist()), set()).add(tuple(masked.tolist()))
        return [len(versions) for versions in found.values()]

    assert set(seen("static")) == {1} and sum(seen("dynamic")) / len(seen("dynamic")) > 2


def test_half_of_the_pairs_are_swapped_and_say_so():
    pairs = text.documents(400, seed=1)
    swapped, true = pretrain_text.swap_half(pairs, 0)
    assert 160 < sum(true) < 240
    for now, before, kept in zip(swapped, pairs, true, strict=True):
        assert now[0] == before[0] and (now == before or not kept)
    assert sum(now == before for now, before in zip(swapped, pairs, strict=True)) - sum(true) < 10
    x, y = Documents(TINY)(draw(), 8)
    assert set(y[:, 0].tolist()) <= {0, 1} and (x[:, 0] == CLS).all() and (x[:, -1] == SEP).all() and (x == SEP).sum(1).tolist() == [2] * 8


def test_a_batch_holds_one_length_and_follows_its_generator():
    stream = Documents(TINY)
    shapes = {tuple(stream(draw(seed), 8)[0].shape) for seed in range(20)}
    assert len(shapes) > 3 and all(n == 8 for n, _ in shapes)
    (a, b), (c, d) = stream(draw(3), 8), Documents(TINY)(draw(3), 8)
    assert torch.equal(a, c) and torch.equal(b, d)


def test_sentence_types_begin_after_the_first_mark():
    net = mini_transformers.network("bert-mini", width=32, layers=1).eval()
    x = torch.tensor([[CLS, 9, SEP, 8, 7, SEP]])
    with torch.no_grad():
        by_hand = net.bert(input_ids=x, token_type_ids=torch.tensor([[0, 0, 0, 1, 1, 1]])).last_hidden_state
        torch.testing.assert_close(pretrain_text._states(net, x), by_hand)
    tokens = mini_transformers.tokenizer()(["the soup"], ["the bread"])
    ids = torch.tensor(tokens["input_ids"])
    assert tokens["token_type_ids"] == (((ids == SEP).cumsum(1) - (ids == SEP).int()) > 0).long().tolist()


# ---------------------------------------------------------------------------- objectives
@pytest.mark.parametrize("change", [{}, {"masks": "dynamic"}, {"pairs": False}, {"model": "roberta-mini", "pairs": False},
                                    {"model": "gpt-mini", "objective": "next", "pairs": False}])  # fmt: skip
def test_the_loss_falls(change):
    recipe = replace(TINY, steps=40, lr=5e-3, batch_size=16, documents=100, **change)
    losses = pretrain_text.pretrain(recipe)[1].losses
    assert sum(losses[-8:]) < 0.85 * sum(losses[:8])


def test_next_words_are_predicted_from_those_before():
    recipe = replace(TINY, model="gpt-mini", objective="next", pairs=False)
    model = pretrain_text.learner(recipe).eval()
    x = torch.tensor([[CLS, 9, 8, SEP]])
    logits = model.words(model(x))
    by_hand = -logits.log_softmax(-1)[0, [0, 1, 2], [9, 8, SEP]].mean()
    torch.testing.assert_close(model.loss(model(x), x), by_hand)


def test_a_student_starts_from_every_other_layer_and_learns_from_its_teacher():
    torch.manual_seed(0)
    teacher = mini_transformers.network("bert-mini", width=32, layers=4).eval()
    student = pretrain_text.student_of(teacher).eval()
    mine, theirs = student.state_dict(), teacher.state_dict()
    assert student.config.n_layers == 2
    assert torch.equal(mine["distilbert.transformer.layer.1.attention.q_lin.weight"], theirs["bert.encoder.layer.2.attention.self.query.weight"])
    assert torch.equal(mine["vocab_transform.weight"], theirs["cls.predictions.transform.dense.weight"])
    copied = mini_transformers.network("bert-mini", width=32, layers=2).eval()  # the same two layers as a BERT: same states
    state = {k: theirs[k.replace("encoder.layer.1.", "encoder.layer.2.")] for k in copied.state_dict()}
    copied.load_state_dict(state)
    x = torch.tensor([[CLS, 9, 8, 7, SEP]])
    with torch.no_grad():
        torch.testing.assert_close(student.distilbert(input_ids=x).last_hidden_state, copied.bert(input_ids=x).last_hidden_state)
    recipe = TextRecipe("distilbert-mini", "", documents=100, steps=30, batch_size=16, lr=3e-3, teacher="bert-mini")
    before = {k: v.clone() for k, v in theirs.items()}
    model, history = pretrain_text.pretrain(recipe, teacher=teacher)
    assert sum(history.losses[-5:]) < sum(history.losses[:5])
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items()), "a teacher does not learn"
    assert not any(p is q for p in model.parameters() for q in teacher.parameters())


# ---------------------------------------------------------------------------- a recipe from start to card
def test_a_recipe_writes_weights_and_a_card_that_load_back(bundle, monkeypatch):
    monkeypatch.setattr(pretrain_text, "TEST_DOCUMENTS", 50)
    recipe = replace(TINY, variant="tiny", width=128, layers=4, documents=60)
    card = pretrain_text.train(recipe, progress=False)
    loaded = zoo.load("bert-mini", "tiny")
    assert loaded.card.items() >= card.items() and card["documents_seen"] == 48
    assert set(card["scores"]) == {"training_loss_last_100", "loss", "perplexity", "word_accuracy"}
    assert not list((bundle.parents[1] / "cache").rglob("*.safetensors"))
    first = loaded.card["sha256"]
    pretrain_text.train(recipe, progress=False)
    assert zoo.load("bert-mini", "tiny").card["sha256"] == first


def test_a_run_that_was_stopped_goes_on(tmp_path):
    class Stop:
        def on_step(self, state):
            if state.step == 4 and stop:
                raise KeyboardInterrupt

    file, data = tmp_path / "run.safetensors", Documents(TINY)
    stop = False
    whole = pretrain_text.pretrain(TINY, data=data, callbacks=[Stop()])[0].state_dict()
    stop = True
    with pytest.raises(KeyboardInterrupt):
        pretrain_text.pretrain(TINY, data=data, checkpoint=file, checkpoint_every=2, callbacks=[Stop()])
    stop = False
    again = pretrain_text.pretrain(TINY, data=Documents(TINY), checkpoint=file, checkpoint_every=2, callbacks=[Stop()])[0].state_dict()
    assert all(torch.equal(whole[k], again[k]) for k in whole)


def test_recipes_are_what_they_say():
    bert, roberta, gpt, distilbert = (RECIPES[f"{name}-text"] for name in mini_transformers.NETWORKS)
    assert (bert.masks, bert.pairs) == ("static", True) and (roberta.masks, roberta.pairs) == ("dynamic", False)
    assert roberta.steps * roberta.batch_size > bert.steps * bert.batch_size and roberta.batch_size > bert.batch_size
    assert gpt.objective == "next" and distilbert.teacher == "bert-mini"
    assert set(RECIPES) <= set(pretrain.recipes()) and pretrain._trainer("gpt-mini-text") is pretrain_text.train


# ---------------------------------------------------------------------------- what the repository holds
CARDS = {name: card for name, card in zoo.cards().items() if name in RECIPES}


@pytest.mark.parametrize("name", CARDS)
def test_bundled_weights_score_what_their_card_says(name):
    recipe, card = RECIPES[name], CARDS[name]
    assert (card["steps"], card["seed"], card["lr"], card["batch_size"], card["documents"]) == (
        recipe.steps, recipe.seed, recipe.lr, recipe.batch_size, recipe.documents)  # fmt: skip
    model = pretrain_text.Learner(pretrain_text.whole_network(recipe.model), recipe)
    found = pretrain_text.score(model)
    assert found["loss"] == pytest.approx(card["scores"]["loss"], abs=0.02)
    assert found["word_accuracy"] == pytest.approx(card["scores"]["word_accuracy"], abs=0.01)


def test_the_tokenizer_is_the_one_that_its_text_gives():
    stored = set(mini_transformers.tokenizer().get_vocab())
    said = (sentence for pair in text.documents(pretrain_text.TOKENIZER_DOCUMENTS, seed=-1) for sentence in pair)
    made = set(mini_transformers.train_tokenizer(said).get_vocab())  # the order of ties is not fixed, nor are the numbers
    assert len(stored) == len(made) == 1600 and len(stored & made) > 1550


def test_held_out_text_is_held_out():

    groups = pretrain_text.heldout(30)
    assert sum(len(g) for g in groups) == 30 and all((g[:, 0] == CLS).all() for g in groups)
