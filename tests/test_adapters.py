"""tlutils.adapters: identity at the start, prompts that leave the text where it was, names that exist."""

import copy

import pytest
import torch
from torch import nn

from tlutils import adapters, mini_transformers, zoo

TEXTS = ["a red circle", "a small blue star on a striped ground", "star"]
SITES = {"bert-mini": r"(attention\.output|layer\.\d+\.output)\.dense", "gpt-mini": r"attn\.c_proj|mlp\.c_proj",
         "distilbert-mini": r"attention\.out_lin|ffn\.lin2"}


@pytest.mark.parametrize("shape", [(3, 8), (2, 5, 8), (2, 8, 4, 4)])
def test_an_adapter_starts_as_the_identity_and_learns(shape):
    adapter = adapters.Adapter(8, 3, spatial=len(shape) == 4)
    x = torch.randn(shape)
    assert torch.equal(adapter(x), x)
    adapter(x).square().sum().backward()
    assert adapter.up.weight.grad.abs().sum() > 0
    with torch.no_grad():
        adapter.up.bias.fill_(2.0)
    assert torch.allclose(adapter(x), x + 2)
    assert sum(p.numel() for p in adapter.parameters()) == 2 * 8 * 3 + 8 + 3


def test_a_spatial_adapter_is_the_plain_one_at_each_position():
    plain, spatial = adapters.Adapter(6, 4), adapters.Adapter(6, 4, spatial=True)
    nn.init.normal_(plain.up.weight)
    with torch.no_grad():
        for part in ("down", "up"):
            getattr(spatial, part).weight.copy_(getattr(plain, part).weight[..., None, None])
            getattr(spatial, part).bias.copy_(getattr(plain, part).bias)
    x = torch.randn(2, 6, 3, 5)
    assert torch.allclose(spatial(x), plain(x.movedim(1, -1)).movedim(-1, 1), atol=1e-6)


@pytest.mark.parametrize("name", SITES)
def test_text_networks_with_adapters_start_as_they_were(name):
    backbone = zoo.load(name).backbone
    before = backbone(TEXTS)
    names = adapters.insert(backbone, SITES[name], bottleneck=4)
    layers = 2 if name == "distilbert-mini" else 4
    assert len(names) == 2 * layers and torch.equal(backbone(TEXTS), before)
    with torch.no_grad():
        backbone.get_submodule(names[0]).adapter.up.bias.fill_(1.0)
    assert not torch.allclose(backbone(TEXTS), before)


@pytest.mark.parametrize("name", zoo.MINIS)
def test_image_networks_with_adapters_start_as_they_were(name):
    backbone, x = zoo.load(name).backbone, torch.randn(2, 3, 32, 32)
    keys, before = set(backbone.state_dict()), backbone(x)
    names = adapters.insert(backbone, r"stages\.[^.]+", bottleneck=4)
    assert len(names) == len(backbone.stages) and torch.equal(backbone(x), before)
    assert keys < set(backbone.state_dict()), "the weights of a file must still fit"


def test_a_copy_has_adapters_of_its_own():
    backbone, x = zoo.load("resnet-mini").backbone, torch.randn(2, 3, 32, 32)
    adapters.insert(backbone, r"stages\.layer\d")
    before, other = backbone(x), copy.deepcopy(backbone)
    with torch.no_grad():
        other.stages.layer3.adapter.up.bias.fill_(1.0)
    assert torch.equal(backbone(x), before) and torch.allclose(other(x), before + 1, atol=1e-5)


def test_the_seed_decides_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    downs = []
    for seed in (0, 0, 1):
        backbone = zoo.load("resnet-mini").backbone
        adapters.insert(backbone, r"stages\.layer3", seed=seed)
        downs.append(backbone.stages.layer3.adapter.down.weight)
    assert torch.equal(downs[0], downs[1]) and not torch.equal(downs[0], downs[2])
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------------------- prompts
@pytest.mark.parametrize("name", mini_transformers.NETWORKS)
@pytest.mark.parametrize("deep", [False, True])
def test_prompts_are_read_and_learn(name, deep):
    backbone = adapters.Prompted(zoo.load(name).backbone, 3, deep=deep)
    for p in backbone.parameters():
        p.requires_grad_(False)
    vectors = [p for key, p in backbone.named_parameters() if "prompt" in key]
    assert len(vectors) == ((2 if name == "distilbert-mini" else 4) if deep else 1)
    for p in vectors:
        p.requires_grad_(True)
    features = backbone(TEXTS)
    assert features.shape == (3, backbone.width)
    features.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in vectors)


@pytest.mark.parametrize("name", mini_transformers.NETWORKS)
def test_padding_beside_a_prompt_changes_nothing(name):
    backbone = adapters.Prompted(zoo.load(name).backbone, 3, deep=True)
    together = backbone(TEXTS)
    alone = torch.cat([backbone([text]) for text in TEXTS])
    assert torch.allclose(together, alone, atol=1e-5)
    ids = backbone.encode(TEXTS)["input_ids"]
    assert torch.allclose(backbone(ids), together, atol=1e-5), "tokens are texts"


@pytest.mark.parametrize("name", mini_transformers.NETWORKS)
def test_the_text_keeps_its_positions_behind_a_prompt(name):
    """A prompt that nobody attends to must change nothing: keys of such a prompt are driven to weight zero."""
    loaded = zoo.load(name)
    before = loaded.backbone(TEXTS)
    backbone = adapters.Prompted(loaded.backbone, 2)
    mask = loaded.backbone.model.forward

    def blind(**batch):
        batch["attention_mask"] = batch["attention_mask"].clone()
        batch["attention_mask"][:, :2] = 0
        return mask(**batch)
    backbone.model.forward = blind
    assert torch.allclose(backbone(TEXTS), before, atol=1e-4)


def test_a_copy_has_prompts_of_its_own():
    backbone = adapters.Prompted(zoo.load("bert-mini").backbone, 2, deep=True)
    before, other = backbone(TEXTS), copy.deepcopy(backbone)
    with torch.no_grad():
        for key, p in other.named_parameters():
            if "prompt" in key:
                p.add_(1.0)
    assert torch.equal(backbone(TEXTS), before) and not torch.allclose(other(TEXTS), before)


# ---------------------------------------------------------------------------- bad input
def test_names_that_match_nothing_are_answered_with_those_that_exist():
    backbone = zoo.load("bert-mini").backbone
    with pytest.raises(ValueError, match=r"q_proj.*matches no module.*model\.encoder\.layer\.\*\.attention\.self\.query"):
        adapters.matching(backbone, "q_proj")
    assert len(adapters.matching(backbone, "query|value")) == 8
    assert len(adapters.kinds(backbone)) == len(set(adapters.kinds(backbone))) < 15


@pytest.mark.parametrize("bad", [0, -2, 1.5, True])
def test_bad_sizes(bad):
    with pytest.raises(ValueError, match="bottleneck"):
        adapters.Adapter(8, bad)
    with pytest.raises(ValueError, match="length"):
        adapters.Prompted(zoo.load("bert-mini").backbone, bad)


def test_what_can_not_be_done_is_said():
    backbone = zoo.load("resnet-mini").backbone
    adapters.insert(backbone, "layer1")
    with pytest.raises(ValueError, match="has an adapter already"):
        adapters.insert(backbone, "layer1")
    text = adapters.Prompted(zoo.load("bert-mini").backbone, 2)
    with pytest.raises(ValueError, match="prompt already"):
        adapters.Prompted(text, 2)
    loaded = zoo.load("bert-mini")
    loaded.backbone.model = nn.Linear(2, 2)
    loaded.backbone.model.config = text.model.config
    with pytest.raises(ValueError, match="layers of Linear are not known"):
        adapters.Prompted(loaded.backbone, 2)
