"""tlutils.pretrain: a recipe from start to card, its resumption, and the weights that the repository holds."""

import json
import re
from dataclasses import replace

import pytest
import torch

from tlutils import features, mini_cnns, paths, pretrain, shapes, training, zoo
from tlutils.pretrain import RECIPES, Recipe

TINY = Recipe(
    "resnet-mini",
    "tiny",
    shapes.Task("four shapes", shapes.SOURCE_SHAPES[:4], 4),
    "tells four shapes apart",
    steps=6,
    batch_size=16,
)


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A data folder of its own; gives the folder of the weights."""
    monkeypatch.setattr(paths, "data_dir", lambda: tmp_path / "data")
    return tmp_path / "data" / "weights"


# ---------------------------------------------------------------------------- training
def test_a_recipe_writes_weights_and_a_card_that_load_back(bundle, tmp_path):
    card = pretrain.train(TINY, progress=False)
    assert sorted(f.name for f in bundle.iterdir()) == ["cards.json", "resnet-mini-tiny.safetensors"]
    loaded = zoo.load("resnet-mini", "tiny")
    assert loaded.card["sha256"] == paths.sha256_file(bundle / "resnet-mini-tiny.safetensors")
    assert loaded.card.items() >= card.items()
    assert card["recipe"] == "python -m tlutils.pretrain resnet-mini-tiny" and card["pictures_seen"] == 96
    assert card["classes"] == list(TINY.task.classes) and card["parameters"] == 77_392
    assert set(card["scores"]) == {"training_loss_last_100", "source_accuracy"}
    assert 0.2 < card["scores"]["training_loss_last_100"] < 5  # a mean, however few the steps
    assert loaded.logits(torch.rand(2, 3, 32, 32)).shape == (2, 4)
    assert not list((tmp_path / "cache").rglob("*.safetensors")), "the checkpoint is gone when the weights are written"


def test_a_recipe_repeats_to_the_bit_from_its_seed(bundle):
    def weights(recipe):
        pretrain.train(recipe, progress=False)
        return zoo.load("resnet-mini", "tiny").card["sha256"]

    first = weights(TINY)
    assert weights(TINY) == first != weights(replace(TINY, seed=1))


def test_noise_is_learned_from_fixed_scenes_with_random_labels(bundle, monkeypatch):
    given = {}
    fit = training.fit

    def spy(model, data, **options):
        given["x"], given["y"] = data
        return fit(model, data, **options)

    monkeypatch.setattr(training, "fit", spy)
    card = pretrain.train(replace(TINY, noise_scenes=200), progress=False)
    assert set(card["scores"]) == {"training_loss_last_100", "training_accuracy"}
    assert given["x"].shape == (200, 3, 32, 32)
    truth = TINY.task.stream(torch.Generator().manual_seed(0), 200)[1]
    assert 0.1 < (given["y"] == truth).float().mean() < 0.4  # chance: a quarter


def test_a_run_that_was_stopped_goes_on(bundle, monkeypatch):
    long = replace(TINY, steps=12)
    pretrain.train(long, progress=False)
    whole = zoo.load("resnet-mini", "tiny").card["sha256"]
    fit = training.fit

    def stop_half_way(model, data, **options):
        class Stop:
            def on_step(self, state):
                if state.step == 7:
                    raise KeyboardInterrupt

        return fit(model, data, **options | {"checkpoint_every": 3, "callbacks": [Stop()]})

    monkeypatch.setattr(training, "fit", stop_half_way)
    with pytest.raises(KeyboardInterrupt):
        pretrain.train(long, progress=False)
    steps = []

    class Count:
        def on_step(self, state):
            steps.append(state.step)

    Count.__name__ = "Stop"  # callbacks are told apart by name when a run is taken up
    monkeypatch.setattr(
        training, "fit", lambda model, data, **options: fit(model, data, **options | {"callbacks": [Count()]})
    )
    pretrain.train(long, progress=False)
    assert steps[0] == 7 and steps[-1] == 12
    assert zoo.load("resnet-mini", "tiny").card["sha256"] == whole


# ---------------------------------------------------------------------------- the command
def test_an_unknown_name_is_refused_before_anything_runs(bundle, capsys, monkeypatch):
    monkeypatch.setattr(pretrain, "train", lambda recipe: pytest.fail("nothing may run"))
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    with pytest.raises(SystemExit):
        pretrain.main(["resnet-mini-shapes", "resnet-mini-shape"])
    error = capsys.readouterr().err
    assert "unknown recipe resnet-mini-shape;" in error and "resnet-mini-colours" in error


@pytest.mark.parametrize(
    "names, expected", [(["all"], list(pretrain.recipes())), (["resnet-mini-half"], ["resnet-mini-half"]), ([], [])]
)
def test_names_choose_the_recipes(names, expected, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    monkeypatch.setattr(pretrain, "_trainer", lambda name: lambda recipe: ran.append(recipe.name) or {"scores": {}, "seconds": 0})
    pretrain.main(names)
    out = "".join(capsys.readouterr().out.split())  # the help text is broken into lines
    assert ran == expected and all(name in out for name in expected or RECIPES)


def test_recipes_differ_from_the_first_in_what_they_say():
    assert {r.variant for r in RECIPES.values()} >= {"shapes", "colours", "noise", "half"}
    assert len({r.teaches for r in RECIPES.values()}) == len(RECIPES)
    first = RECIPES["resnet-mini-shapes"]
    assert RECIPES["resnet-mini-half"].steps * 10 == first.steps
    for recipe in RECIPES.values():
        assert (recipe.seed, recipe.batch_size) == (first.seed, first.batch_size)
        if recipe.model == first.model:
            assert recipe.lr == first.lr
        else:  # the other families: as many pictures of the same task, only the rate is their own (grid `source_rates`)
            assert (recipe.variant, recipe.task, recipe.steps) == (first.variant, first.task, first.steps)
        assert not set(recipe.task.shapes) & {*shapes.TARGET_SHAPES, *shapes.DEV_SHAPES}, (
            "sources never see target shapes"
        )


# ---------------------------------------------------------------------------- what the repository holds
ALL_CARDS = json.loads((paths.data_dir() / "weights" / "cards.json").read_text(encoding="utf-8"))
CARDS = {name: card for name, card in ALL_CARDS.items() if name in RECIPES}  # text and both: in test files of their own


def test_every_recipe_has_its_weights_and_every_file_its_card():
    folder = paths.data_dir() / "weights"
    assert set(ALL_CARDS) == set(pretrain.recipes())
    assert {f.name for f in folder.glob("*.safetensors")} == {card["file"] for card in ALL_CARDS.values()}
    assert sum(f.stat().st_size for f in folder.iterdir()) < 24e6


@pytest.mark.parametrize("name", CARDS)
def test_a_bundled_card_is_whole_and_true(name):
    card, file = CARDS[name], paths.data_dir() / "weights" / CARDS[name]["file"]
    for key in (*zoo.CARD_KEYS, "teaches", "versions", "date", "file", "sha256", "bytes", "parameters"):
        assert card[key] not in (None, "", {}), key
    assert re.fullmatch(r"[0-9a-f]{64}", card["sha256"]) and paths.sha256_file(file) == card["sha256"]
    assert file.stat().st_size == card["bytes"] < 2.2e6 and file.name == f"{name}.safetensors"
    recipe = RECIPES[name]
    assert card["recipe"].endswith(name) and card["classes"] == list(recipe.task.classes)
    assert (card["steps"], card["seed"], card["lr"], card["batch_size"]) == (
        recipe.steps,
        recipe.seed,
        recipe.lr,
        recipe.batch_size,
    )
    assert "/" not in card["hardware"] and "torch" in card["versions"]


@pytest.mark.parametrize("name", CARDS)
def test_bundled_weights_score_what_their_card_says(name):
    recipe = RECIPES[name]
    loaded = zoo.load(recipe.model, recipe.variant)
    if recipe.noise_scenes:
        generator = torch.Generator().manual_seed(recipe.seed)
        x, _ = recipe.task.stream(generator, recipe.noise_scenes)
        y, said = (
            torch.randint(0, len(recipe.task.classes), (len(x),), generator=generator),
            CARDS[name]["scores"]["training_accuracy"],
        )
    else:
        (x, y), said = recipe.task.draw(100, seed=-recipe.seed - 1), CARDS[name]["scores"]["source_accuracy"]
    with torch.no_grad():
        logits = torch.cat([loaded.logits(part) for part in x.split(512)])
    assert float((logits.argmax(1) == y).float().mean()) == pytest.approx(said, abs=0.01)  # stored in half precision


def test_the_wrong_sources_are_as_wrong_as_they_should_be():
    accuracy = {name: card["scores"].get("source_accuracy") for name, card in CARDS.items()}
    assert accuracy["resnet-mini-shapes"] > 0.95 and accuracy["resnet-mini-colours"] > 0.95
    assert 1 / 16 < accuracy["resnet-mini-half"] < accuracy["resnet-mini-shapes"] - 0.1
    assert CARDS["resnet-mini-noise"]["scores"]["training_accuracy"] > 0.95


@pytest.mark.parametrize("name", mini_cnns.MINIS)
def test_the_other_families_know_the_source_as_well(name):
    assert CARDS[f"{name}-shapes"]["scores"]["source_accuracy"] > 0.95
    assert CARDS[f"{name}-shapes"]["seconds"] < 20 * 60


def test_each_variant_gives_features_of_its_own():
    x, _ = shapes.TARGET10.draw(1, seed=0)
    found = [features.extract(zoo.load("resnet-mini", variant), x) for variant in zoo.variants("resnet-mini")]
    assert all(f.shape == (10, 64) and f.isfinite().all() for f in found)
    assert all(not torch.allclose(a, b, atol=1e-2) for i, a in enumerate(found) for b in found[:i])
