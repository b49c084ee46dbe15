"""The real experiments of Part 3, tried on small made-up data with networks of the lab; what needs the real folders says so."""

import json

import numpy as np
import pytest
import torch

from tlutils import datasets, paths, zoo
from tlutils import practice_domain_experiments as domains
from tlutils import practice_oneshot_experiments as oneshot
from tlutils import practice_real_experiments as photos
from tlutils import practice_text_experiments as texts
from tlutils.datasets import Dataset


def needs(name):
    return pytest.mark.skipif(not datasets.available(name), reason=f"{name} is in no local folder (TLUTILS_DATA)")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TLUTILS_CACHE", str(tmp_path / "cache"))


# ---------------------------------------------------------------------------- what all share
CALLS = []


def counted_run(a, b=0):
    CALLS.append((a, b))
    return [{"sum": a + b}]


def test_a_run_is_kept_under_its_settings(monkeypatch, capsys):
    monkeypatch.setattr(texts.report, "code_hash", lambda part: part)
    CALLS.clear()
    for _ in range(2):
        assert texts.kept(counted_run, 1, b=2) == [{"sum": 3}]
    assert texts.kept(counted_run, 1, b=3) == [{"sum": 4}]
    assert CALLS == [(1, 2), (1, 3)]
    assert len(list((paths.cache_dir() / "practice").iterdir())) == 2
    assert "sum" in capsys.readouterr().out


def test_a_run_is_done_again_when_its_code_changes(monkeypatch):
    CALLS.clear()
    for code in "ab":
        monkeypatch.setattr(texts.report, "code_hash", lambda part, code=code: code)
        texts.kept(counted_run, 5)
    assert len(CALLS) == 2


def test_answers_are_judged_item_by_item():
    assert texts.judged([0, 1, 1, 0], torch.tensor([0, 1, 0, 0])) == {"accuracy": 0.75, "correct": "1101"}


# ---------------------------------------------------------------------------- texts
class Letters:
    """A tokenizer that numbers letters; 0 pads."""

    pad_token_id = 0

    def __call__(self, lines, truncation, max_length):
        return {"input_ids": [[ord(letter) - 96 for letter in line][:max_length] for line in lines]}


class Sum(torch.nn.Module):
    def forward(self, tokens):
        return torch.stack([tokens.sum(1), -tokens.sum(1)], 1).float()


def test_every_sentence_is_in_one_batch_of_sentences_about_as_long():
    tokens = texts.Tokens(["a" * (1 + i % 17) for i in range(200)], Letters())
    groups = tokens.groups(8)
    assert sorted(i for group in groups for i in group) == list(range(200))
    spans = [max(len(tokens.rows[i]) for i in g) - min(len(tokens.rows[i]) for i in g) for g in groups]
    assert np.mean(spans) < 3                                   # in random batches it would be about 14
    assert groups != tokens.groups(8) and len(texts.Bucketed(tokens, 8)) == 25


def test_outputs_come_back_in_the_order_of_the_sentences():
    lines = ["abc", "a", "bb", "abcdef", "z"]
    tokens = texts.Tokens(lines, Letters(), longest=4)
    assert tokens.outputs(Sum())[:, 0].tolist() == [6, 1, 4, 10, 26]
    assert tokens.batch([0, 1]).tolist() == [[1, 2, 3], [1, 0, 0]]
    assert tokens.predict(Sum()).tolist() == [0] * 5


def test_the_rate_is_chosen_on_validation_and_three_seeds_are_judged(monkeypatch):
    asked = []

    def kept(run, *settings, **more):
        if run is not texts.tuned_run:
            return []
        asked.append(more)
        return [{"accuracy": 0.9 if more["rate"] == 1e-4 else 0.8, "rate": more["rate"]}]
    monkeypatch.setattr(texts, "kept", kept)
    texts.sst2_tuning()
    final = [more for more in asked if more["test"]]
    assert [more["seed"] for more in final] == list(texts.SEEDS) and {more["rate"] for more in final} == {1e-4}
    assert all(more["seed"] == texts.DEV_SEED for more in asked if not more["test"])


def test_a_feature_that_is_always_the_same_has_no_weight_in_the_head():
    y = torch.arange(100) % 2
    vectors = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)) + y[:, None]
    vectors[:, 1] = 1e-33 * torch.randn(100)
    head = texts._head(vectors, y)
    assert head.weight.abs().max() < 10 and head.weight[:, 1].abs().max() < 1e-6
    assert (head(vectors).argmax(1) == y).float().mean() > 0.6


# ---------------------------------------------------------------------------- photographs
@pytest.fixture
def made_up(monkeypatch):
    """Pictures whose class shows in their brightness, and the lab's network in the place of MobileNetV2."""
    def pictures(n, seed):
        y = np.arange(n) % 2
        return torch.tensor(np.random.default_rng(seed).integers(0, 120, (n, 3, 40, 40)) + 100 * y[:, None, None, None],
                            dtype=torch.uint8), torch.tensor(y)
    (x, y), (x_test, y_test) = pictures(160, 0), pictures(30, 1)
    data = Dataset("made up", x, y, x_test, y_test, ("dark", "light"), {"sha256": "0"})
    monkeypatch.setattr(photos.datasets, "load", lambda name, size=None: data)
    monkeypatch.setattr(photos, "loaded_network", lambda: zoo.load("resnet-mini", "shapes"))
    return data


@pytest.mark.parametrize("method", ["probe", "kNN", "last-2", "full", "LP-FT"])
def test_every_strategy_runs_from_files_to_answers(made_up, method):
    row, = photos.strategy_run("hymenoptera", method, 3e-3, 2, 0, True)
    assert row["part"] == "development" and row["labels"] == 60 and len(row["correct"]) == 100
    assert row["accuracy"] > 0.9 and row["seconds"] > 0 and abs(row["balanced"] - row["accuracy"]) < 0.1
    assert ("rate" in row) == (method in photos.TRAINED)


def test_the_test_part_is_not_touched_while_rates_are_chosen(made_up):
    own, test = photos._parts("hymenoptera", True), photos._parts("hymenoptera", False)
    assert len(test.y_train) == 160 and torch.equal(test.x_test, made_up.x_test)
    known = set(datasets.content_hashes(made_up.x_train))
    assert set(datasets.content_hashes(own.x_test)) <= known and not set(datasets.content_hashes(own.x_test)) & set(
        datasets.content_hashes(own.x_train))


def test_the_cache_gives_the_same_features_sooner(made_up):
    first, second = photos.cache_run(0)
    assert (first["method"], second["method"], first["labels"]) == ("first pass", "cached", 190)
    assert second["seconds"] < first["seconds"]


# ---------------------------------------------------------------------------- domains
def test_covering_pictures_stay_pictures_and_change():
    x = torch.rand(16, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    seen = domains.covering(x, torch.Generator().manual_seed(1))
    assert seen.shape == x.shape and 0 <= seen.min() and seen.max() <= 1 and not torch.equal(seen, x)
    assert torch.equal(seen, domains.covering(x, torch.Generator().manual_seed(1)))


def test_lines_are_dark_where_brightness_changes_and_white_elsewhere():
    x = torch.zeros(1, 3, 20, 20)
    x[..., 10:] = 1
    drawn = domains.lines(x)[0, 0]
    assert (drawn[:, :6] == 1).all() and (drawn[:, 15:] == 1).all() and (drawn[:, 10] < 0.15).all()


def test_recoloured_features_have_the_targets_covariance():
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(500, 4)) * [1, 2, 3, 4], rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4)) + 7
    found = domains.recoloured(source, target, ridge=1e-9)
    assert np.allclose(np.cov(found.T), np.cov(target.T), atol=1e-6) and np.allclose(found.mean(0), 0, atol=1e-9)
    assert np.allclose(domains.scaled(target, target).mean(0), 0) and np.allclose(domains.scaled(target, target).std(0), 1, atol=0.01)


def test_repairs_undo_a_shift_of_scale_and_place():
    rng = np.random.default_rng(1)

    def draw(n):
        y = np.arange(n) % 3
        return (rng.normal(size=(n, 6)) + 4 * np.eye(6)[y]).astype("float32"), y
    (source, y), (target, y_target), (test, y_test) = draw(300), draw(150), draw(150)
    moved = [part * 2 + [12, 0, 0, 0, 0, 0] for part in (target, test)]
    few = domains.drawn(torch.tensor(y_target), 5, 0)
    found = {name: np.mean(answer() == y_test) for name, answer in
             domains.repairs(source, y, moved[0], moved[1], moved[0][few], y_target[few], y_target).items()}
    assert found["probe"] < 0.6 and min(found["own scale"], found["CORAL"], found["pseudo-labels"], found["all target labels"]) > 0.9


def test_draws_hold_as_many_of_each_class():
    y = torch.arange(60) % 3
    assert np.bincount(y.numpy()[domains.drawn(y, 7, 0)]).tolist() == [7, 7, 7]
    assert set(domains.drawn(y, 7, 0)) != set(domains.drawn(y, 7, 1))


@needs("amazon")
def test_no_review_stands_in_two_parts_or_domains(monkeypatch):
    monkeypatch.setattr(domains, "POOL", 60)
    domains.reviews.cache_clear()
    every = [text for part in domains.reviews().values() for texts_ in (part[0], part[2]) for text in texts_]
    domains.reviews.cache_clear()
    assert len(every) == 5 * (120 + 500) and len(set(datasets.content_hashes(every))) == len(every)


# ---------------------------------------------------------------------------- one example
@pytest.fixture
def alphabets(monkeypatch):
    """Two alphabets of four characters, each a pattern of its own with some noise."""
    patterns = torch.rand(8, 1, 12, 12, generator=torch.Generator().manual_seed(0)) > 0.5
    y = torch.arange(8).repeat_interleave(6)
    x = (patterns[y].expand(-1, 3, -1, -1) * 200 + torch.randint(50, (48, 3, 12, 12))).to(torch.uint8)
    monkeypatch.setattr(oneshot, "characters", lambda size=32: (x, y, np.where(y < 4, "Greek", "Latin")))
    return x, y


def test_an_episode_holds_examples_first_then_queries_of_the_same_turn(alphabets):
    x, y = oneshot.Episodes(["Greek"])(torch.Generator().manual_seed(0), 10 * (1 + oneshot.QUERIES))
    assert x.shape == (50, 3, 12, 12) and y.tolist() == list(range(10)) * 5
    examples, queries = x[:10].flatten(1), x[10:].flatten(1)
    assert (torch.cdist(queries, examples).argmin(1) == y[10:]).float().mean() > 0.95
    assert len(oneshot.Episodes(["Greek"]).members) == 4


def test_the_loss_is_small_where_queries_lie_on_their_examples_and_chance_where_all_are_one():
    apart, y = 10 * torch.eye(5).repeat(3, 1), torch.arange(5).repeat(3)
    assert oneshot.prototype_loss(apart, y) < 1e-6
    assert oneshot.prototype_loss(torch.zeros(15, 5), y).item() == pytest.approx(np.log(5))


@needs("omniglot")
def test_the_official_runs_are_read_and_hold_nothing_seen():
    examples, tests, answers = oneshot.official()
    assert examples.shape == tests.shape == (20, 20, 3, 32, 32) and all(sorted(row) == list(range(20)) for row in answers.tolist())
    assert examples.float().mean() < 60                          # ink is white, paper black
    assert oneshot.overlap() == 0


@needs("omniglot")
def test_alphabets_seen_and_not_seen_have_nothing_in_common():
    names = {name.split("/")[0] for name in datasets.load("omniglot").classes}
    assert set(oneshot.SEEN) | set(oneshot.UNSEEN) == names and not set(oneshot.SEEN) & set(oneshot.UNSEEN)
    assert oneshot.DEV in oneshot.SEEN


# ---------------------------------------------------------------------------- what is recorded
@pytest.mark.parametrize("name", [n for part in (texts, photos, domains, oneshot) for n in part.REAL])
def test_a_recorded_result_says_what_it_rests_on(name):
    file = texts.report.path("real", name)
    if not file.exists():
        pytest.skip(f"{name} has not been recorded on this machine")
    stored = json.loads(file.read_text(encoding="utf-8"))
    assert {"data_sha256", "weights_sha256", "note", "hardware", "date"} <= set(stored["card"])
    assert all({"method", "seed"} <= set(row) for row in stored["rows"])
    for row in stored["rows"]:
        if "correct" in row:
            assert row["accuracy"] == pytest.approx(row["correct"].count("1") / len(row["correct"]), abs=1e-6)
