"""tlutils.pretrain_multimodal: recipes run small, go on after a stop, and their cards tell the truth."""

import dataclasses
import json
import re

import pytest
import torch

from tlutils import multimodal, optim, paths, pretrain, pretrain_multimodal, zoo
from tlutils.pretrain_multimodal import RECIPES

CARDS = {name: card for name, card in json.loads((paths.data_dir() / "weights" / "cards.json").read_text(encoding="utf-8")).items()
         if name in RECIPES}


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """Weights land in a folder of the test; judges and tokens still come from the repository."""
    save, find = zoo.save_bundled, zoo.bundled_file
    monkeypatch.setattr(zoo, "save_bundled", lambda *a, **k: save(*a, **k, folder=tmp_path / "bundle"))
    monkeypatch.setattr(pretrain_multimodal, "POOL", 64)
    for name in ("zero_shot_scores", "token_scores"):
        full = getattr(pretrain_multimodal, name)
        monkeypatch.setattr(pretrain_multimodal, name, lambda model, each, full=full: full(model, 1))
    monkeypatch.setattr(pretrain_multimodal, "drawing_scores", lambda painter, each: {"faithful_seen": 0.0})
    assert find("resnet-mini", "shapes")
    return tmp_path / "bundle"


def short(name: str, steps: int = 4):
    return dataclasses.replace(RECIPES[name], steps=steps, batch_size=8, evaluate_every=steps, horizon=0, cooldown=0)


def test_recipes_are_known_to_the_command_and_say_what_they_teach():
    assert set(RECIPES) <= set(pretrain.recipes()) and list(RECIPES)[:2] == ["clip-mini-captions", "vqvae-mini-drawings"]
    for name, recipe in RECIPES.items():
        assert recipe.name == name and len(recipe.teaches.split()) > 8 and pretrain._trainer(name) is pretrain_multimodal.train


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs_and_writes_weights_with_a_card(name, bundle, capsys):
    card = pretrain_multimodal.train(short(name), progress=False)
    assert all(key in card for key in zoo.CARD_KEYS) and card["pictures_seen"] == 32 and "code" in card
    stored = json.loads((bundle / "cards.json").read_text())[name]
    assert (bundle / stored["file"]).is_file() and stored["scores"] == card["scores"] and stored["parameters"] > 1e5
    assert not list((paths.cache_dir() / "pretrain").glob("*.safetensors")), "the checkpoint is removed at the end"
    assert capsys.readouterr().out == ""


def test_a_run_that_was_stopped_goes_on_exactly(bundle, monkeypatch):
    recipe = dataclasses.replace(short("clip-mini-captions"), precision="no")
    pretrain_multimodal.train(recipe, progress=False)
    whole = zoo.load("clip-mini", "captions", folder=bundle).backbone.state_dict()

    class Stopped(Exception):
        pass

    loss, calls = multimodal.contrastive_loss, []

    def stop(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise Stopped
        return loss(*arguments)

    fit = pretrain_multimodal.training.fit
    monkeypatch.setattr(pretrain_multimodal.training, "fit", lambda *a, **k: fit(*a, **{**k, "checkpoint_every": 2}))
    monkeypatch.setattr(multimodal, "contrastive_loss", stop)
    with pytest.raises(Stopped):
        pretrain_multimodal.train(recipe, progress=False)
    monkeypatch.setattr(multimodal, "contrastive_loss", loss)
    pretrain_multimodal.train(recipe, progress=False)
    again = zoo.load("clip-mini", "captions", folder=bundle).backbone.state_dict()
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_the_rate_follows_its_long_cosine_and_falls_to_zero_at_the_end():
    recipe = RECIPES["dalle-mini-drawings"]
    rate, long = optim.schedule(recipe.rate, recipe.steps, warmup=recipe.warmup), optim.schedule("cosine", recipe.horizon, warmup=recipe.warmup)
    held = recipe.steps - recipe.cooldown
    assert [rate(t) for t in range(held)] == [long(t) for t in range(held)]
    last = [rate(t) for t in range(held, recipe.steps)]
    assert last == sorted(last, reverse=True) and last[-1] < 1e-4 < rate(held) / 2


def test_zero_shot_scores_split_seen_and_held_out():
    torch.manual_seed(0)
    scores = pretrain_multimodal.zero_shot_scores(multimodal.CLIPMini(widths=(8, 8, 16), text_width=16), 1)
    assert set(scores) == {"zero_shot_seen", "zero_shot_held_out"} and all(value < 0.1 for value in scores.values())


@pytest.mark.parametrize("name", RECIPES)
def test_a_bundled_card_is_whole_and_true(name):
    card, recipe = CARDS[name], RECIPES[name]
    file = paths.data_dir() / "weights" / card["file"]
    for key in (*zoo.CARD_KEYS, "teaches", "versions", "date", "file", "sha256", "bytes", "parameters"):
        assert card[key] not in (None, "", {}), key
    assert re.fullmatch(r"[0-9a-f]{64}", card["sha256"]) and paths.sha256_file(file) == card["sha256"]
    assert file.stat().st_size == card["bytes"] < 2.2e6 and card["recipe"].endswith(name)
    for key in ("steps", "seed", "lr", "batch_size", "precision", "teaches"):
        assert card[key] == getattr(recipe, key), key
    assert card["seconds"] < 1500 and "/" not in card["hardware"]


def test_the_numbers_that_were_asked_for():
    clip, draw = CARDS["clip-mini-captions"]["scores"], CARDS["dalle-mini-drawings"]["scores"]
    assert clip["zero_shot_seen"] >= 0.9 and clip["zero_shot_held_out"] >= 0.6
    assert draw["faithful_seen"] >= 0.8 and draw["faithful_held_out"] >= 0.5
    assert CARDS["vqvae-mini-drawings"]["scores"]["faithful_seen"] > draw["faithful_seen"] - 0.05
