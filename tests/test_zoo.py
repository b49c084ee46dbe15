"""tlutils.zoo: minis with bundled, random and own weights; cards and checksums; preprocessing."""

import json

import pytest
import safetensors.torch
import torch
from torch import nn

from tlutils import paths, zoo

CARD = {"recipe": "python -m somewhere", "seed": 0, "steps": 3, "seconds": 1.0, "hardware": "a machine", "scores": {}}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TLUTILS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bundle(tmp_path):
    """A bundle with the two variants "shapes" (with a head of 5 classes) and "noise"."""
    folder = tmp_path / "bundle"
    for seed, variant in enumerate(("shapes", "noise")):
        backbone = zoo.load("resnet-mini", None, seed=seed).backbone
        backbone.train()(torch.rand(8, 3, 32, 32))  # so that batch norm has statistics of its own
        head = nn.Linear(64, 5) if variant == "shapes" else None
        zoo.save_bundled(backbone, "resnet-mini", variant, CARD, head=head, folder=folder)
    return folder


def test_names():
    assert {"resnet-mini", "resnet18", "mobilenet_v2"} <= set(zoo.names())


def test_a_wrong_name_lists_the_near_ones():
    with pytest.raises(ValueError, match="name='resnet-mimi' is no network.*did you mean 'resnet-mini'"):
        zoo.load("resnet-mimi")


def test_what_is_saved_is_loaded_in_half_precision(tmp_path):
    backbone = zoo.load("resnet-mini", None, seed=4).backbone
    backbone.train()(torch.rand(8, 3, 32, 32))
    file = zoo.save_bundled(backbone, "resnet-mini", "shapes", CARD, folder=tmp_path)
    loaded = zoo.load("resnet-mini", folder=tmp_path)
    for key, value in loaded.backbone.state_dict().items():
        saved = backbone.state_dict()[key]
        assert torch.equal(value, saved.half().float() if saved.is_floating_point() else saved), key
    assert file.stat().st_size < 180_000 and not loaded.backbone.training
    assert all(p.dtype == torch.float32 for p in loaded.backbone.parameters())


def test_the_card_says_what_was_saved(bundle):
    loaded = zoo.load("resnet-mini", folder=bundle)
    card = loaded.card
    assert card["name"] == "resnet-mini" and card["weights"] == "shapes" and card["recipe"] == CARD["recipe"]
    assert card["sha256"] == paths.sha256_file(bundle / card["file"])
    assert card["bytes"] == (bundle / card["file"]).stat().st_size and card["parameters"] == 77_392
    assert card["versions"]["torch"] and loaded.width == 64


def test_variants_are_listed_and_near_ones_named(bundle):
    assert zoo.variants("resnet-mini", bundle) == ["noise", "shapes"]
    assert zoo.load("resnet-mini", "noise", folder=bundle).card["weights"] == "noise"
    with pytest.raises(ValueError, match="weights='shape'.*did you mean 'shapes'"):
        zoo.load("resnet-mini", "shape", folder=bundle)


def test_variants_of_what_has_none_are_refused(tmp_path):
    assert zoo.variants("bert-mini", tmp_path) == []
    with pytest.raises(ValueError, match="name='resnet-mimi' is no network with bundled weights; did you mean 'resnet-mini'"):
        zoo.variants("resnet-mimi")
    with pytest.raises(ValueError, match="name='resnet18' is no network with bundled weights"):
        zoo.variants("resnet18")


def test_a_network_without_bundled_weights_asks_for_a_name():
    with pytest.raises(ValueError, match=r'resnet18 has no bundled weights: say which, as in load\("resnet18", "IMAGENET1K_V1"\)'):
        zoo.load("resnet18")


@pytest.mark.parametrize("name", ["resnet-mini", "bert-mini", "resnet18", "bert-base-uncased"])
def test_a_folder_in_place_of_a_file_is_called_a_folder(name, tmp_path):
    for weights in (tmp_path, str(tmp_path)):
        with pytest.raises(ValueError, match="is a folder: name the file in it, or give it as folder="):
            zoo.load(name, weights)


def test_the_head_it_was_trained_with_is_kept(bundle):
    loaded, x = zoo.load("resnet-mini", folder=bundle), torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded.logits(x), loaded.head[-1](loaded.backbone(loaded.preprocess(x))))
    assert loaded.logits(x).shape == (2, 5)
    with pytest.raises(ValueError, match="without a classifier"):
        zoo.load("resnet-mini", "noise", folder=bundle).logits(x)


def test_a_changed_file_is_noticed(bundle):
    file = bundle / "resnet-mini-shapes.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    expected = json.loads((bundle / "cards.json").read_text())["resnet-mini-shapes"]["sha256"]
    with pytest.raises(ValueError) as error:
        zoo.load("resnet-mini", folder=bundle)
    for part in (file.name, expected[:8], paths.sha256_file(file)[:8], "again"):
        assert part in str(error.value)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="cards.json"):
        zoo.load("resnet-mini", folder=bundle)


def test_an_incomplete_card_saves_nothing(tmp_path):
    backbone = zoo.load("resnet-mini", None).backbone
    with pytest.raises(ValueError, match="lacks seconds, scores"):
        card = {key: CARD[key] for key in CARD if key not in ("seconds", "scores")}
        zoo.save_bundled(backbone, "resnet-mini", "shapes", card, folder=tmp_path)
    with torch.no_grad():
        backbone.stages.stem[0].weight[0] = 1e6
    with pytest.raises(ValueError, match=r"stages\.stem\.0\.weight.*not finite in half precision"):
        zoo.save_bundled(backbone, "resnet-mini", "shapes", CARD, folder=tmp_path)
    assert not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob("*.json"))


def test_saving_again_replaces_one_card_and_keeps_the_others(bundle):
    backbone = zoo.load("resnet-mini", None, seed=9).backbone
    zoo.save_bundled(backbone, "resnet-mini", "shapes", CARD | {"steps": 7}, folder=bundle)
    assert zoo.load("resnet-mini", folder=bundle).card["steps"] == 7
    assert zoo.load("resnet-mini", "noise", folder=bundle).card["steps"] == 3
    assert sorted(f.name for f in bundle.iterdir()) == [
        "cards.json",
        "resnet-mini-noise.safetensors",
        "resnet-mini-shapes.safetensors",
    ]


def test_random_weights_come_from_the_seed_and_leave_the_generator_alone(bundle):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = (zoo.load("resnet-mini", None, seed=seed) for seed in (1, 1, 2))
    zoo.load("resnet-mini", folder=bundle)
    assert torch.equal(torch.get_rng_state(), before)
    weights = [loaded.backbone.stages.layer3.conv1.weight for loaded in (a, b, c)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert a.card == {"name": "resnet-mini", "weights": None, "seed": 1, "recipe": "random initialisation"}


def test_a_checkpoint_of_ones_own(tmp_path):
    source = zoo.load("resnet-mini", None, seed=3).backbone
    state = {f"backbone.{key}": value for key, value in source.state_dict().items()}
    safetensors.torch.save_file(
        state | {"head.weight": torch.ones(2, 64), "head.bias": torch.ones(2)}, tmp_path / "m.safetensors"
    )
    loaded, x = zoo.load("resnet-mini", tmp_path / "m.safetensors"), torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded.backbone(x), source(x)) and loaded.logits(x).shape == (2, 2)
    assert loaded.card["weights"] == "m.safetensors" and str(tmp_path) not in str(loaded.card)
    torch.save({"stages.stem.0.weight": torch.zeros(16, 3, 5, 5)}, tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match=r"wrong\.pth.*stages\.stem\.0\.weight is \(16, 3, 5, 5\)"):
        zoo.load("resnet-mini", tmp_path / "wrong.pth")
    with pytest.raises(FileNotFoundError, match="none.pth does not exist"):
        zoo.load("resnet-mini", str(tmp_path / "none.pth"))


def test_preprocessing_takes_bytes_and_floats_alike():
    x = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    preprocess = zoo.load("resnet-mini", None).preprocess
    assert torch.equal(preprocess(x), preprocess(x / 255))
    grey = torch.full((1, 3, 32, 32), 0.5)
    assert torch.equal(preprocess(grey), torch.zeros_like(grey))


def test_preprocessing_stretches_to_the_minis_size_only():
    x = torch.rand(2, 3, 48, 64)
    assert zoo.MINI(x).shape == (2, 3, 32, 32) and zoo.IMAGENET(x).shape == x.shape
    constant = torch.full((1, 3, 50, 70), 0.25)
    torch.testing.assert_close(zoo.MINI(constant), torch.full((1, 3, 32, 32), -1.0))


def test_imagenet_preprocessing_is_torchvisions():
    from torchvision.transforms.functional import normalize

    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(zoo.IMAGENET(x), normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    with pytest.raises(ValueError, match="divide"):
        zoo.IMAGENET(x * 255)


def test_every_bundled_file_is_described_and_intact():
    bundle = paths.data_dir() / "weights"
    cards = zoo._cards(bundle)
    assert {f.stem for f in bundle.glob("*.safetensors")} == set(cards)
    for mini in zoo.MINIS:
        for variant in zoo.variants(mini):
            loaded = zoo.load(mini, variant)
            assert set(zoo.CARD_KEYS) <= set(loaded.card) and loaded.card["sha256"]
    assert sum(f.stat().st_size for f in bundle.glob("*.safetensors")) < 24e6


@pytest.mark.parametrize("slip, meant", [("bert-minni", "bert-mini"), ("gpt2-mini", "gpt-mini"), ("roberta-min", "roberta-mini")])
def test_a_slip_in_the_name_of_a_text_mini_is_not_looked_for_on_the_hub(slip, meant):
    with pytest.raises(ValueError, match=f"name='{slip}' is no network of the zoo; did you mean '{meant}'"):
        zoo.load(slip)
