"""tlutils.clip_backbones: a CLIP in the hub's layout from a local folder, its preprocessing, its errors."""

import json
import shutil

import pytest
import torch

from tlutils import clip_backbones, multimodal, zoo
from tlutils import transformer_backbones as tb

WORDS = ["<s>", "</s>", "[UNK]", "a", "cat", "dog", "on", "the", "mat"]


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("TLUTILS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TLUTILS_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr(tb, "_reachable", lambda: False)


def save_tokenizer(folder) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="</s>", model_max_length=10).save_pretrained(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A CLIP of one layer in each tower, saved as the hub lays it out."""
    from transformers import CLIPConfig, CLIPModel

    one = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": 8}
    text = {**one, "vocab_size": len(WORDS), "max_position_embeddings": 10, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config={**one, "image_size": 32, "patch_size": 8}, projection_dim=8)
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(0)
    CLIPModel(config).eval().save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture
def clip(made, tmp_path):
    target = tmp_path / "weights" / "tiny" / "clip-of-one-layer"
    shutil.copytree(made, target)
    return target


@torch.no_grad()
def test_a_local_folder_in_the_hubs_layout(clip):
    loaded = zoo.load("tiny/clip-of-one-layer", "DEFAULT")
    x = torch.rand(3, 3, 40, 64, generator=torch.Generator().manual_seed(0))
    texts = ["a cat", "the dog on the mat"]
    pictures = loaded.backbone(loaded.preprocess(x))
    words = loaded.backbone.texts(texts)
    assert pictures.shape == (3, 8) == (3, loaded.width) and words.shape == (2, 8)
    torch.testing.assert_close(pictures.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(loaded.backbone.texts(texts[:1]), words[:1], msg="padding must not change a text")
    batch = loaded.tokenizer(texts, padding=True, return_tensors="pt")
    own = loaded.backbone.model(**{k: batch[k] for k in ("input_ids", "attention_mask")}, pixel_values=loaded.preprocess(x))
    torch.testing.assert_close(own.logits_per_image, loaded.backbone.scale * pictures @ words.T, atol=1e-5, rtol=1e-4)
    assert loaded.backbone.vision(loaded.preprocess(x)).shape == (3, 16) and not loaded.backbone.training
    assert loaded.card["source"] == "a local folder" and len(loaded.card["sha256"]) == 64 and str(clip) not in str(loaded.card)


@torch.no_grad()
def test_it_classifies_by_prompts_like_the_mini(clip):
    loaded = zoo.load("tiny/clip-of-one-layer", "DEFAULT")
    classes = multimodal.class_embeddings(loaded.backbone, [["a cat", "the cat"], ["a dog"]])
    assert (multimodal.embed(loaded, torch.rand(4, 3, 32, 32)) @ classes.T).shape == (4, 2)


def test_texts_that_are_empty_or_too_long(clip):
    loaded = zoo.load("tiny/clip-of-one-layer", "DEFAULT")
    with pytest.raises(ValueError, match="number 1 is empty"):
        loaded.backbone.texts(["a cat", " "])
    with pytest.raises(TypeError, match="not one string"):
        loaded.backbone.texts("a cat")
    with pytest.warns(UserWarning, match=r"texts\[0\] has 14 tokens, the model reads 10"):
        loaded.backbone.texts(["a cat on the mat " * 2 + "a dog"])


def test_weights_that_dont_fit_the_config_name_the_first_wrong_tensor(clip, capfd):
    file = clip / "config.json"
    config = json.loads(file.read_text())
    config["text_config"]["num_hidden_layers"] = 2
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"it asks for text_model\.encoder\.layers\.1\.\S+ .*the weights lack it"):
        zoo.load("tiny/clip-of-one-layer", "DEFAULT")
    config["text_config"]["num_hidden_layers"], config["vision_config"]["intermediate_size"] = 1, 64
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"vision_model\.encoder\.layers\.0\.mlp\.fc1\.weight \(64, 16\), the weights have it in another shape"):
        zoo.load("tiny/clip-of-one-layer", "DEFAULT")
    assert "LOAD REPORT" not in capfd.readouterr().err


def test_pickled_weights_are_refused(clip):
    from safetensors.torch import load_file

    torch.save(load_file(clip / "model.safetensors"), clip / "pytorch_model.bin")
    (clip / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        zoo.load("tiny/clip-of-one-layer", "DEFAULT")


def test_without_network_and_copy_the_error_says_what_to_fetch():
    with pytest.raises(FileNotFoundError, match="put its config.json, model.safetensors and tokenizer files into"):
        zoo.load("openai/clip-vit-base-patch32", "DEFAULT")


def test_what_calls_itself_clip_and_is_none(tmp_path):
    from transformers import BertConfig, BertModel

    folder = tmp_path / "weights" / "tiny" / "no-clip"
    BertModel(BertConfig(vocab_size=9, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)).save_pretrained(folder)
    save_tokenizer(folder)
    with pytest.raises(ValueError, match="is a bert by its config.json, not a clip"):
        zoo.load("tiny/no-clip", "DEFAULT")


@pytest.mark.parametrize("name, is_clip", [("openai/clip-vit-base-patch32", True), ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", True),
                                           ("clip-mini", False), ("sentence-transformers/all-MiniLM-L6-v2", False)])
def test_which_ids_are_clips(name, is_clip):
    assert clip_backbones.is_name(name) == is_clip


def test_preprocessing_keeps_the_middle_and_the_proportions():
    prepare = clip_backbones.CLIPPreprocess(32)
    x = torch.zeros(1, 3, 64, 128)
    x[:, :, :, 32:96] = 1.0                       # the middle square of a wide picture
    inner = (..., slice(2, -2))                   # the edges mix with what is cut off
    torch.testing.assert_close(prepare(x)[inner], prepare(torch.ones(1, 3, 32, 32))[inner])
    assert prepare(torch.rand(2, 3, 50, 40)).shape == (2, 3, 32, 32)
    white = prepare(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8))[0, :, 0, 0]
    expected = [(1 - m) / s for m, s in zip(clip_backbones.MEAN, clip_backbones.STD)]
    torch.testing.assert_close(white, torch.tensor(expected))


def test_the_experiment_on_photographs_runs_with_any_clip(clip, monkeypatch):
    from tlutils import datasets
    from tlutils import multimodal_experiments as experiments

    pictures, labels = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8), torch.arange(12) % 2
    photographs = datasets.Dataset("hymenoptera", pictures, labels, pictures, labels, ("ants", "bees"), {})
    monkeypatch.setattr(datasets, "load", lambda name, size: photographs)
    rows = experiments.clip_photographs("tiny/clip-of-one-layer", budgets=(1, 2))
    assert {row["labels"] for row in rows} == {0, 1, 2} and len({row["seed"] for row in rows}) == 3
    assert all(len(row["correct"]) == 12 and 0 <= row["accuracy"] <= 1 for row in rows)
