"""tlutils.mini_transformers: the text minis, their tokenizer, their heads, and what they answer to bad input."""

import json
import warnings

import pytest
import safetensors.torch
import torch

from tlutils import finetune, mini_transformers, paths, text, training, zoo
from tlutils.mini_transformers import NETWORKS

SENTENCE = "the soup was not tasty but the bread was crisp"
CARDS = zoo.cards()


# ---------------------------------------------------------------------------- tokenizer
def test_known_words_stay_whole_and_unknown_ones_fall_into_pieces():
    tokens = mini_transformers.tokenizer()
    assert tokens.tokenize("The soup was great") == ["the", "soup", "was", "great"]
    pieces = tokens.tokenize("unforgettable")
    assert len(pieces) > 1 and "".join(p.removeprefix("##") for p in pieces) == "unforgettable"
    assert tokens.tokenize("naïve 東") == ["[UNK]", "[UNK]"]  # letters that it never saw
    whole = sum(len(tokens.tokenize(word)) == 1 for word in text.vocabulary())
    assert 0.7 < whole / len(text.vocabulary()) < 1
    assert tokens.convert_tokens_to_ids(list(mini_transformers.SPECIAL)) == [0, 1, 2, 3, 4]
    first, second = tokens("the soup", "the bread")["input_ids"], [2, *tokens("the soup the bread", add_special_tokens=False)["input_ids"], 3]
    assert first[0] == 2 and first[3] == first[-1] == 3 and len(first) == len(second) + 1


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=mini_transformers.TOKENIZER):
        mini_transformers.tokenizer(folder=tmp_path)


# ---------------------------------------------------------------------------- networks
@pytest.fixture(scope="module")
def untrained():
    return {name: zoo.load(name, None, seed=1) for name in NETWORKS}


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
def test_features_of_texts_and_of_their_tokens_agree(name, untrained):
    loaded = untrained[name]
    texts = [SENTENCE, "the film was witty"]
    features = loaded.backbone(loaded.preprocess(texts))
    assert features.shape == (2, 128) == (2, loaded.width) and features.isfinite().all()
    ids = loaded.tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]
    torch.testing.assert_close(loaded.backbone(loaded.preprocess(ids)), features)
    torch.testing.assert_close(features[1:], loaded.backbone(texts[1:]), msg="padding must not change the mean")
    assert mini_transformers.word_logits(loaded, texts)[1].shape == (*ids.shape, 1600)


@pytest.mark.parametrize("name", NETWORKS)
def test_random_weights_follow_the_seed(name):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = (zoo.load(name, None, seed=seed).backbone(["the soup"]) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c) and torch.equal(before, torch.get_rng_state())


def test_distilbert_has_half_the_layers():
    teacher, student = (mini_transformers.encoder_parameters(mini_transformers.network(n)) for n in ("bert-mini", "distilbert-mini"))
    assert teacher == 793_088 and student <= 0.6 * teacher


@pytest.mark.parametrize("name", NETWORKS)
def test_a_later_word_changes_what_a_masked_model_makes_of_an_earlier_one_and_a_gpt_never(name, untrained):
    a, b = (mini_transformers.hidden_states(untrained[name], f"the soup was {word}")[1] for word in ("tasty", "bland"))
    earlier = slice(0, 4)  # [CLS] the soup was
    assert a.shape[0] == (3 if name == "distilbert-mini" else 5)
    if name == "gpt-mini":
        torch.testing.assert_close(a[:, earlier], b[:, earlier])
    else:
        assert (a[-1, earlier] - b[-1, earlier]).abs().max() > 1e-3
    assert (a[-1, 4] - b[-1, 4]).abs().max() > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_attention_sums_to_one_and_a_gpt_looks_back_only(name, untrained):
    tokens, weights = mini_transformers.attention(untrained[name], "the soup was great")
    assert tokens == ["[CLS]", "the", "soup", "was", "great", "[SEP]"] and weights.shape[1:] == (4, 6, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    ahead = torch.ones(6, 6).triu(1).bool()
    assert (weights[..., ahead].max() < 1e-6) == (name == "gpt-mini")
    assert untrained[name].backbone.model.config._attn_implementation != "eager"  # as it was


# ---------------------------------------------------------------------------- saving and loading
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_saved_is_loaded_and_tied_tensors_are_stored_once(name, tmp_path):
    net = mini_transformers.network(name)
    card = {"recipe": "r", "seed": 0, "steps": 1, "seconds": 1.0, "hardware": "h", "scores": {}}
    file = zoo.save_bundled(net, name, "text", card, folder=tmp_path, leave_out=mini_transformers.tied(net))
    assert file.stat().st_size < 2.2e6
    loaded, ids = zoo.load(name, folder=tmp_path), torch.tensor([[2, 20, 30, 3]])
    hidden = mini_transformers.encoder(net.half().float().eval())(input_ids=ids).last_hidden_state
    torch.testing.assert_close(loaded.backbone.model(input_ids=ids).last_hidden_state, hidden)
    torch.testing.assert_close(loaded.head(hidden), mini_transformers.Words(net)(hidden))


def test_weights_of_another_network_are_refused_with_the_first_wrong_tensor(tmp_path):
    net = mini_transformers.network("bert-mini", width=64, layers=2)
    file = tmp_path / "small.safetensors"
    safetensors.torch.save_file({k: v.clone() for k, v in net.state_dict().items()}, file)
    with pytest.raises(ValueError, match=r"does not fit this network: bert.embeddings.word_embeddings.weight is \(1600, 64\)"):
        zoo.load("bert-mini", file)
    state = mini_transformers.network("bert-mini").state_dict()
    del state["bert.encoder.layer.1.attention.self.query.weight"]
    safetensors.torch.save_file({k: v.clone() for k, v in state.items()}, file)
    with pytest.raises(ValueError, match=r"lacks bert.encoder.layer.1.attention.self.query.weight"):
        zoo.load("bert-mini", file)


def test_wrong_names_are_answered():
    with pytest.raises(ValueError, match="did you mean 'bert-mini'"):
        mini_transformers.network("bert-mimi")
    assert set(NETWORKS) <= set(zoo.names())
    with pytest.raises(ValueError, match="weights='txt': there are no such weights of bert-mini"):
        zoo.load("bert-mini", "txt")


# ---------------------------------------------------------------------------- bad input
def test_long_texts_are_cut_with_a_warning_that_names_them(untrained):
    loaded = untrained["bert-mini"]
    long = "the soup was tasty and " * 20
    with pytest.warns(UserWarning, match=r"1 of 2 texts are longer than the 64 tokens .* \(first: number 1\)"):
        cut = loaded.backbone(["the soup", long])
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        loaded.backbone(["the soup"])
        with pytest.raises(UserWarning):
            loaded.backbone([long])
    assert cut.isfinite().all()


@pytest.mark.parametrize("name", NETWORKS)
def test_empty_texts_and_single_strings_are_refused_and_unknown_words_read_in_pieces(name, untrained):
    backbone = untrained[name].backbone
    with pytest.raises(ValueError, match="number 1 is empty"):
        backbone(["the soup", " "])
    with pytest.raises(ValueError, match="texts is empty"):
        backbone([])
    with pytest.raises(TypeError, match="not one string"):
        backbone("the soup")
    assert backbone(["zebras émigré 東"]).isfinite().all()


def test_questions_to_the_wrong_kind_of_model(untrained):
    with pytest.raises(ValueError, match="use continue_text"):
        mini_transformers.fill_mask(untrained["gpt-mini"], "the [MASK] was")
    with pytest.raises(ValueError, match="has no \\[MASK\\]"):
        mini_transformers.fill_mask(untrained["bert-mini"], "the soup was")
    with pytest.raises(ValueError, match="load gpt-mini"):
        mini_transformers.continue_text(untrained["bert-mini"], "the")
    with pytest.raises(ValueError, match="temperature=-1"):
        mini_transformers.continue_text(untrained["gpt-mini"], "the", temperature=-1)
    with pytest.raises(ValueError, match="'zebra' is not a single token"):
        mini_transformers.choose(untrained["bert-mini"], "the [MASK] was", ("zebra", "soup"))


def test_generation_repeats_from_its_generator_and_stays_in_the_window(untrained):
    def write(seed):
        return mini_transformers.continue_text(untrained["gpt-mini"], "the soup", generator=torch.Generator().manual_seed(seed), longest=200)

    assert write(1) == write(1) != write(2)
    assert len(untrained["gpt-mini"].tokenizer.tokenize(write(1))) <= mini_transformers.WINDOW + 8
    greedy = {mini_transformers.continue_text(untrained["gpt-mini"], "", temperature=0, longest=5) for _ in range(2)}
    assert len(greedy) == 1


def test_a_classifier_learns_from_texts_and_from_tokens():
    x, y = text.SENTIMENT.draw(4, seed=0)
    ids = mini_transformers.tokenizer()(x, padding=True, return_tensors="pt")["input_ids"]
    losses = {}
    for kind, data in (("texts", x), ("tokens", ids)):
        model = finetune.Classifier(zoo.load("bert-mini", None, seed=0), 2, seed=0)
        losses[kind] = training.fit(model, (data, y), steps=12, lr=1e-3, seed=0, channels_last=False).losses
    assert losses["texts"][-1] < 0.5 * losses["texts"][0]
    torch.testing.assert_close(torch.tensor(losses["texts"]), torch.tensor(losses["tokens"]), atol=1e-3, rtol=1e-2)


# ---------------------------------------------------------------------------- the bundled minis
BUNDLED = [name for name in NETWORKS if f"{name}-text" in CARDS]


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_cards_are_whole_and_true(name):
    card = CARDS[f"{name}-text"]
    file = paths.data_dir() / "weights" / card["file"]
    assert paths.sha256_file(file) == card["sha256"] and file.stat().st_size == card["bytes"] < 2.2e6
    for key in (*zoo.CARD_KEYS, "teaches", "versions", "date", "parameters", "encoder_parameters", "training_seconds", "documents_seen"):
        assert card[key] not in (None, "", {}), key
    assert card["training_seconds"] < 20 * 60 and "/" not in card["hardware"] and json.dumps(card)


@pytest.mark.skipif("bert-mini" not in BUNDLED, reason="bert-mini is not trained yet")
def test_bert_mini_knows_number_and_topic():
    loaded = zoo.load("bert-mini")
    (best,) = mini_transformers.fill_mask(loaded, "the soups near the steak [MASK] very tasty", top=2)
    assert {word for word, _ in best} == {"are", "were"} and sum(p for _, p in best) > 0.8


@pytest.mark.skipif("gpt-mini" not in BUNDLED, reason="gpt-mini is not trained yet")
def test_gpt_mini_writes_the_language():
    loaded, generator = zoo.load("gpt-mini"), torch.Generator().manual_seed(0)
    written = [mini_transformers.continue_text(loaded, temperature=0.7, generator=generator) for _ in range(20)]
    assert sum(text.is_sentence(sentence) for sentence in written) >= 12 and len(set(written)) > 15
