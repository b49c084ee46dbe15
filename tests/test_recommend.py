"""The advice: right where the answer is known, unsure where it must be, and clear about what it refuses."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from tlutils import recommend as module
from tlutils import shapes, zoo
from tlutils.recommend import Advice, decide, recommend

TASK = shapes.TARGET10


def features(n=60, classes=3, distance=3.0, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 8)) + distance * rng.normal(size=(classes, 8))[np.arange(n) % classes]


Y60 = np.arange(60) % 3


def test_new_shapes_get_a_network_that_knows_shapes_and_colours_one_that_knows_colours():
    minis = ["resnet-mini-shapes", "resnet-mini-colours", "resnet-mini-noise"]
    said = recommend(*TASK.draw(10, seed=1), candidates=minis)
    assert (said.base, said.strategy, said.sure) == ("resnet-mini-shapes", "probe", True)
    colours = shapes.Task("colours", shapes.TARGET_SHAPES, 1, 16)
    assert recommend(*colours.draw(6, seed=1), candidates=minis).base == "resnet-mini-colours"


def test_the_default_is_every_bundled_network_for_pictures():
    said = recommend(*TASK.draw(5, seed=2))
    assert {row.name for row in said.table} == {f"{m}-{v}" for m in zoo.MINIS for v in zoo.variants(m)} | {"pixels"}
    assert [row.accuracy for row in said.table] == sorted((row.accuracy for row in said.table), reverse=True)


def test_an_advice_reads_as_a_sentence_with_its_reasons():
    said = recommend(*TASK.draw(5, seed=1), candidates=["resnet-mini-shapes", "resnet-mini-noise"])
    text = str(said)
    assert text.startswith("Advice: keep resnet-mini-shapes frozen and fit a linear probe")
    assert "held-out labels" in text and "resnet-mini-noise" in text and f"{said.table[0].accuracy:.0%}" in text


@pytest.mark.parametrize("kind", ["loaded", "pair", "dict", "features"])
def test_candidates_come_in_many_forms(kind):
    x, y = TASK.draw(4, seed=1)
    loaded = zoo.load("resnet-mini", "shapes")
    given = {"loaded": [loaded], "pair": [("resnet-mini", "shapes")], "dict": {"mine": "resnet-mini-shapes"},
             "features": {"mine": module.features.extract(loaded, x)}}[kind]
    said = recommend(x, y, candidates=given)
    assert said.base == ("mine" if isinstance(given, dict) else "resnet-mini-shapes")
    if kind == "features":
        assert recommend(None, y, candidates=given).base == "mine"


def test_features_alone_are_enough_and_labels_may_be_words():
    words = np.array(["ant", "bee", "wasp"])[Y60]
    said = recommend(None, words[:24], candidates={"good": features()[:24], "noise": features(distance=0.0)[:24]})
    assert said.base == "good" and said.sure and not said.rivals and said.table[0].parameters is None


def test_two_of_a_kind_are_rivals():
    said = recommend(None, Y60, candidates={"one": features(seed=1), "two": features(seed=1) + 1e-6, "noise": features(distance=0)})
    other = {"one": "two", "two": "one"}[said.base]
    assert said.rivals == (other,) and f"can't be told from {other}" in str(said)


def test_where_nobody_knows_anything_the_advice_is_unsure():
    said = recommend(None, Y60, candidates={"one": features(distance=0, seed=1), "two": features(distance=0, seed=2)})
    assert not said.sure and "unsure" in str(said)


def test_a_spent_budget_leaves_candidates_out_and_says_which():
    x, y = TASK.draw(4, seed=1)
    said = recommend(x, y, candidates=["resnet-mini-shapes", "vgg-mini-shapes"], budget_seconds=1e-6)
    assert not said.sure and "before vgg-mini-shapes could be tried" in str(said) and said.base == "resnet-mini-shapes"


def test_the_same_call_gives_the_same_advice():
    x, y = TASK.draw(3, seed=1)
    one, two = (recommend(x, y, candidates=["resnet-mini-half", "resnet-mini-bits2"]) for _ in range(2))
    assert (one.base, one.strategy, one.reasons) == (two.base, two.strategy, two.reasons)


def test_every_strategy_has_words():
    for strategy in module.STRATEGIES:
        assert len(Advice("net", strategy, True, (), (), (), 0.0).todo.split()) > 1


# ---------------------------------------------------------------------------- bad input
def bad_cases():
    x, y = TASK.draw(3, seed=1)
    broken = x.clone()
    broken[4, 0, 0, 0] = float("nan")
    one = y.clone()
    one[:] = torch.arange(30) % 5
    one[7] = 9
    yield "lengths", x, y[:20], {}, r"y: \(20,\) for 30 rows of x"
    yield "one class", x, torch.zeros(30), {}, "y: all 30 labels are 0"
    yield "one example", x, one, {}, "y: class 5 has 1 example"
    yield "as many classes as examples", x, torch.arange(30), {}, "y: 30 classes for 30 examples"
    yield "nan in x", broken, y, {}, "x: picture 4 has a value that is nan"
    yield "nan in y", x, torch.full((30,), float("nan")), {}, "y: label 0 is nan"
    yield "no picture", x.flatten(1), y, {}, "x: must be a tensor of pictures"
    yield "no candidates", x, y, {"candidates": []}, "candidates: the list is empty"
    yield "a word", x, y, {"candidates": "resnet-mini"}, "candidates: give a list or a dict"
    yield "an unknown name", x, y, {"candidates": ["resnet-mini-shape"]}, "candidates: 'resnet-mini-shape' is none of the bundled"
    yield "a strange thing", x, y, {"candidates": [3]}, "candidates: 3 is none of"
    yield "budget", x, y, {"budget_seconds": 0}, "budget_seconds: must be greater than 0, got 0"
    yield "by", x, y, {"by": "size"}, "by: must be None, 'score' or 'probe', got 'size'"
    yield "no pictures", None, y, {"candidates": {"a": "resnet-mini-shapes"}}, "x: None, but the candidate 'a' is a network"
    yield "nan in features", None, Y60, {"candidates": {"a": np.full((60, 3), np.nan)}}, r"candidates\['a'\]: has the value nan in row 0, column 0"
    yield "short features", x, y, {"candidates": {"a": features(12)}}, "candidates: 'a' has features of 12 examples, x has 30"


@pytest.mark.parametrize(("x", "y", "options", "words"), [case[1:] for case in bad_cases()], ids=[case[0] for case in bad_cases()])
def test_what_is_refused_says_the_argument_and_the_value(x, y, options, words):
    with pytest.raises(ValueError, match=words):
        recommend(x, y, **options)


def test_deciding_alone():
    classes = np.arange(40) % 4
    right = {"a": np.ones(40), "b": np.tile([1, 0], 20), "pixels": np.zeros(40)}
    base, strategy, sure, reasons, rivals = decide(right, classes)
    assert (base, strategy, sure, rivals) == ("a", "probe", True, ()) and "100%" in reasons[0]


def hits(share, n=400, seed=0):
    return (np.random.default_rng(seed).random(n) < share).astype(float)


def test_many_labels_are_for_fine_tuning_unless_nothing_is_left_to_gain():
    classes = np.arange(400) % 4          # 100 labels per class
    assert decide({"a": hits(0.8)}, classes)[1] == "fine-tune"
    assert decide({"a": hits(1.0)}, classes)[1] == "probe"
    assert decide({"a": hits(0.8)[:40]}, classes[:40])[1] == "probe"


def test_pixels_win_with_few_labels_only_and_are_a_doubt_otherwise():
    classes = np.arange(40) % 4
    base, strategy, sure, *_ = decide({"a": hits(0.4, 40), "pixels": hits(0.7, 40)}, classes)
    assert (base, strategy) == ("", "pixels")
    *_, reasons, _ = decide({"a": hits(0.7, 40, 1), "pixels": hits(0.65, 40, 2)}, classes)
    assert any("can't be told from plain pixels" in reason for reason in reasons)


def test_between_few_and_many_labels_the_advice_is_unsure():
    classes = np.arange(80) % 4           # 20 labels per class
    *_, sure, reasons, _ = decide({"a": hits(0.9, 80)}, classes)
    assert not sure and "try both" in reasons[-1]


def test_what_can_be_told_apart():
    assert module.told_apart(np.ones(40), np.tile([1, 0], 20)) and not module.told_apart(np.ones(40), np.ones(40))
    assert not module.told_apart(hits(0.5, 30, 1), hits(0.5, 30, 2))


def test_where_probes_are_level_logme_decides():
    classes = np.arange(80) % 4
    right = {"a": hits(0.9, 80, 1), "b": hits(0.88, 80, 2), "far": hits(0.5, 80, 3)}
    assert decide(right, classes)[0] == max(("a", "b"), key=lambda name: right[name].mean())
    assert decide(right, classes, {"a": 0.1, "b": 0.2, "far": 0.9})[0] == "b"
    assert decide(right, classes, {"a": 0.2, "b": 0.1, "far": 0.9})[0] == "a"


def test_for_fine_tuning_the_h_score_decides_and_a_better_probe_is_a_doubt():
    classes = np.arange(400) % 4
    right, logme = {"knows": hits(0.9, 400, 1), "learns": hits(0.6, 400, 2)}, {"knows": 0.9, "learns": 0.1}
    base, strategy, sure, reasons, _ = decide(right, classes, logme, {"knows": 1.0, "learns": 2.0})
    assert (base, strategy, sure) == ("learns", "fine-tune", False)
    assert any("H-score is the highest, 2.00" in r for r in reasons) and any("knows is shown to be better (" in r for r in reasons)
    assert decide(right, classes, logme)[0] == "knows"


def test_with_fewer_pictures_than_features_the_h_score_is_not_asked():
    classes = np.arange(400) % 4
    base, _, sure, reasons, _ = decide({"a": hits(0.8), "b": hits(0.5)}, classes, None, {"a": 1.0, "b": np.nan})
    assert base == "a" and not sure and any("too few pictures for the H-score" in reason for reason in reasons)


def test_with_few_labels_logme_decides_alone_unless_the_probe_is_asked_for():
    classes, logme = np.arange(40) % 4, {"a": 0.1, "b": 0.9}
    right = {"a": hits(0.95, 40, 1), "b": hits(0.7, 40, 2)}
    base, strategy, _, reasons, _ = decide(right, classes, logme, level=1.0)
    assert (base, strategy) == ("b", "probe") and any("its LogME is the highest; by the probe alone it would be a" in r for r in reasons)
    assert decide(right, classes, logme)[0] == "a"


def test_the_earlier_versions_can_still_be_asked():
    x, y = TASK.draw(20, seed=1)
    both = ["resnet-mini-shapes", "vgg-mini-shapes"]
    assert any("H-score" in reason for reason in recommend(x, y, candidates=both, by="score").reasons)
    assert not any("H-score" in reason for reason in recommend(x, y, candidates=both, by="probe").reasons)


# ---------------------------------------------------------------------------- the third version
def test_probe_and_logme_decide_together_whatever_their_units():
    right, logme = {"a": hits(0.9, 80, 1), "b": hits(0.6, 80, 2), "c": hits(0.5, 80, 3)}, {"a": 0.1, "b": 0.12, "c": 0.0}
    found = module.together(logme, right)
    assert max(found, key=found.get) == "a" and abs(sum(found.values())) < 1e-9
    scaled = module.together({name: 1000 * value + 5 for name, value in logme.items()}, right)
    assert scaled == pytest.approx(found)
    assert module.together({"a": 0.3}, {"a": hits(0.5, 80)}) == {"a": 0.0}


@pytest.fixture
def races(monkeypatch):
    """Learners that learn nothing and name all, or nothing, rightly: VGG, or scratch, is told to win."""
    ran = []

    def learner(loaded, *, scratch=False):
        ran.append(("scratch" if scratch else "fine-tune", loaded.name))

        def fit(x, y, seed):
            colour = {float(one.mean()): int(label) for one, label in zip(all_x, all_y)}
            good = scratch if wins == "scratch" else loaded.name == wins and not scratch
            return lambda items: torch.tensor([colour[float(one.mean())] if good else 0 for one in items])
        return fit
    wins, (all_x, all_y) = "vgg-mini", TASK.draw(20, seed=1)

    def with_winner(name, **options):
        nonlocal wins
        wins = name
        ran.clear()
        candidates = ["resnet-mini-noise", "resnet-mini-half", "vgg-mini-shapes"]
        return recommend(all_x, all_y, candidates=candidates, **options), list(ran)
    monkeypatch.setattr(module.trials, "learner", learner)
    return with_winner


def test_one_network_of_each_family_runs_and_scratch_and_the_winner_is_named(races):
    said, ran = races("vgg-mini")
    assert sorted(ran) == [("fine-tune", "resnet-mini"), ("fine-tune", "vgg-mini"), ("scratch", "resnet-mini")]
    assert (said.base, said.strategy) == ("vgg-mini-shapes", "fine-tune") and "in a trial on labels kept apart" in str(said)
    assert said.trials[0] == ("fine-tune vgg-mini-shapes", 1.0) and "fine-tune vgg-mini-shapes" in str(said)
    assert ("fine-tune resnet-mini-half", "fine-tune resnet-mini-noise")[0] in dict(said.trials)


def test_scratch_wins_if_it_wins_the_trial(races):
    said, _ = races("scratch")
    assert (said.base, said.strategy) == ("resnet-mini", "scratch") and said.todo == "train resnet-mini from scratch"


def test_no_trial_where_it_is_not_wanted_or_can_not_be_paid(races):
    said, ran = races("vgg-mini", try_out=False)
    assert not ran and not said.sure and "nothing was trained to see what it can learn (try_out=False)" in said.reasons[-1]
    said, ran = races("vgg-mini", budget_seconds=3.0)
    assert not ran and not said.sure and "trials would take about" in str(said)


def test_large_networks_are_tried_only_if_that_is_asked_for(races, monkeypatch):
    monkeypatch.setattr(module, "SMALL", 1000)
    said, ran = races("vgg-mini")
    assert not ran and "try_out=True does, and may take long" in said.reasons[-1]
    assert races("vgg-mini", try_out=True)[0].strategy == "fine-tune"


def test_features_of_no_more_pictures_than_columns_stay_frozen():
    rng, y = np.random.default_rng(0), np.arange(80) % 4
    wide = {name: np.pad(rng.normal(size=(80, 8)) + d * np.eye(8)[y], ((0, 0), (0, 100))) for name, d in (("far", 0.5), ("near", 2.0))}
    said = recommend(None, y, candidates=wide)
    assert (said.base, said.strategy, said.sure) == ("near", "probe", False) and "it stays frozen" in str(said)
    assert recommend(None, y, candidates=wide, by="score").strategy in ("fine-tune", "probe")


def test_a_runner_up_that_may_be_much_better_is_a_doubt():
    classes = np.arange(200) % 4
    close = {"fine-tune a": hits(0.9, 200, 1), "fine-tune b": hits(0.5, 200, 2)}
    base, strategy, sure, _, rivals = module.decide_by_trials(["fine-tune a", "fine-tune b"], close, classes)
    assert (base, strategy, sure, rivals) == ("a", "fine-tune", True, ())
    few = {"fine-tune a": hits(0.7, 200, 1), "pixels": hits(0.68, 200, 2)}
    few["fine-tune a"][40:] = np.nan
    *_, sure, reasons, rivals = module.decide_by_trials(["fine-tune a", "pixels"], few, classes)
    assert not sure and rivals == ("pixels",) and "pixels may still be better by more than 5 points" in reasons[-1]
    assert module.decide_by_trials(["pixels", "fine-tune a"], few, classes)[:2] == ("", "pixels")
