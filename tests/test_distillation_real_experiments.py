"""The real experiments of distillation, tried on made-up words with a BERT of three small layers in MiniLM's place."""

import copy
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from tlutils import distillation_real_experiments as real
from tlutils.datasets import Dataset
from tlutils.transformer_backbones import TextBackbone

STEP = {"rate": 3e-3, "epochs": 2, "seed": 1, "code": "x"}


class Letters:
    """A tokenizer that numbers letters; 0 pads."""

    pad_token, pad_token_id = "_", 0

    def __call__(self, lines, truncation, max_length):
        return {"input_ids": [[ord(letter) - 96 for letter in line][:max_length] for line in lines]}


def words(n, seed):
    """Words of 2 to 8 letters: class 0 is written with a to m, class 1 with n to z."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    return ["".join(chr(97 + 13 * c + i) for i in rng.integers(0, 13, rng.integers(2, 9))) for c in y], torch.tensor(y)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Texts, a network and caches of the tests' own."""
    from transformers import BertConfig, BertModel

    (x, y), (x_dev, y_dev), (x_test, y_test) = words(256, 0), words(40, 1), words(50, 2)
    whole = Dataset("words", x, y, x_test, y_test, ("early", "late"), {"sha256": "0"}, x_dev, y_dev)
    config = BertConfig(vocab_size=27, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, pad_token_id=0)

    def load(name, weights="DEFAULT", seed=0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed if weights is None else 0)
            backbone = TextBackbone(BertModel(copy.deepcopy(config)).eval(), Letters())
        return SimpleNamespace(backbone=backbone, preprocess=torch.nn.Identity(), width=16, tokenizer=Letters(), card={"sha256": "1"})
    monkeypatch.setattr(real.zoo, "load", load)
    monkeypatch.setattr(real.datasets, "load", lambda name: whole)
    for cached in (real.texts, real.tokens, real.teacher, real.answers):
        cached.cache_clear()
    yield whole
    for cached in (real.texts, real.tokens, real.teacher, real.answers):
        cached.cache_clear()


def test_without_a_validation_part_a_tenth_of_each_class_is_for_development(small, monkeypatch):
    alone = Dataset("words", small.x_train, small.y_train, small.x_test, small.y_test, small.classes, {})
    monkeypatch.setattr(real.datasets, "load", lambda name: alone)
    (x, y), (x_dev, y_dev), (x_test, _) = (real.texts("words")[part] for part in ("train", "dev", "test"))
    assert sorted(x + x_dev) == sorted(small.x_train) and x_test == small.x_test
    assert torch.bincount(y_dev).tolist() == [13, 13] and len(x) == len(y) == 230
    assert (real.every_tenth(small.y_train) == real.every_tenth(small.y_train)).all()
    assert dict(zip(small.x_train, small.y_train.tolist(), strict=True)).items() >= dict(zip(x_dev, y_dev.tolist(), strict=True)).items()


def test_the_student_takes_over_embeddings_and_the_layers_it_is_given():
    whole, student = real.network("words", seed=3), real.network("words", (0, 2), seed=3)
    assert len(student.bert.encoder.layer) == 2 and whole.bert.pooler is None
    for mine, theirs in zip(student.bert.encoder.layer, (0, 2), strict=True):
        assert torch.equal(mine.attention.self.query.weight, whole.bert.encoder.layer[theirs].attention.self.query.weight)
    assert torch.equal(student.bert.embeddings.word_embeddings.weight, whole.bert.embeddings.word_embeddings.weight)
    assert torch.equal(student.head.weight, whole.head.weight)
    tokens = real.tokens("words")["dev"].batch([0, 1, 2])
    out = student.eval()(tokens)
    assert out.shape == (3, 2 + 16)
    torch.testing.assert_close(out[:, :2], student.head(out[:, 2:]))


def test_the_loss_is_cross_entropy_alone_and_zero_for_a_student_that_says_what_the_teacher_says():
    outputs, y = torch.randn(6, 2 + 5), torch.randint(0, 2, (6, 1)).float()
    alone = real.loss(2, **real.LOSSES["alone"])(outputs, y)
    torch.testing.assert_close(alone, torch.nn.functional.cross_entropy(outputs[:, :2], y[:, 0].long()))
    copied = torch.cat([y, outputs], 1)
    assert real.loss(2, temperature=4.0, weight=1.0, hint=1.0)(outputs, copied).abs() < 1e-5
    mixed = real.loss(2, temperature=4.0, weight=0.9, hint=1.0)(outputs, copied)
    torch.testing.assert_close(mixed, 0.1 * alone)
    turned = torch.cat([y, outputs[:, :2], -outputs[:, 2:]], 1)                # all vectors the other way round: cosine -1
    assert real.loss(2, temperature=4.0, weight=1.0, hint=3.0)(outputs, turned) == pytest.approx(6.0, abs=1e-4)


def test_a_teacher_is_kept_and_its_student_answers_as_it_does():
    with pytest.raises(FileNotFoundError):
        real.trained_run("words", "taught", (0, 2), **STEP, test=True)
    *_, row = real.trained_run("words", "teacher", None, **STEP, test=True)
    assert row["accuracy"] > 0.9 and row["agreement"] == 1 and row["layers"] == "all" and len(row["correct"]) == 50
    said = real.answers("words", "test")
    assert not real.teacher("words").training and said.shape == (50, 18)
    assert (said[:, :2].argmax(1) == real.texts("words")["test"][1]).float().mean() == pytest.approx(row["accuracy"])
    first, last, row = real.trained_run("words", "taught", (0, 2), **STEP, test=True)
    assert (first["epoch"], last["epoch"], first["part"], row["part"]) == (1, 2, "dev", "test") and last["seconds"] > 0
    assert row["accuracy"] > 0.9 and row["agreement"] > 0.9 and row["training_accuracy"] > 0.9 and row["layers"] == "0+2"


def test_runs_of_a_seed_repeat_and_those_for_choosing_leave_the_test_texts_alone(monkeypatch):
    once, again = (real.trained_run("words", "alone", (0, 1), **STEP, test=False) for _ in range(2))
    assert [row["loss"] for row in once] == [row["loss"] for row in again] and {row["part"] for row in once} == {"dev"}
    other = real.trained_run("words", "from scratch", (0, 1), **STEP, test=False)
    assert other[-1]["loss"] != once[-1]["loss"]


def test_layers_and_rates_are_chosen_on_development_texts_and_every_seed_is_judged(monkeypatch):
    asked = []

    def kept(run, name, *more, **settings):
        if run is real.counted_run:
            return []
        method, layers = more
        asked.append((method, layers, settings))
        good = {"teacher": settings["rate"] == 4e-4, "alone": settings["rate"] == 1.2e-3 or layers == (0, 3),
                "taught": settings["rate"] == 3e-4}.get(method, True)
        return [{"method": method, "layers": "+".join(map(str, layers or ())), "rate": settings["rate"], "seed": settings["seed"],
                 "accuracy": 0.8 + 0.1 * good, "test": settings["test"]}]
    monkeypatch.setattr(real, "kept", kept)
    with pytest.raises(FileNotFoundError, match="the teacher is trained again"):
        real.study("banking77")
    real.stored("banking77", "teacher").parent.mkdir(parents=True)
    real.stored("banking77", "teacher").touch()
    rows = real.study("banking77")
    final = [(method, layers, s) for method, layers, s in asked if s["test"]]
    students = [(m, layers, s) for m, layers, s in final if m in ("alone", "taught")]
    assert {layers for _, layers, _ in students} == {(0, 3)}
    assert {s["rate"] for method, _, s in students if method == "taught"} == {3e-4}
    for method in ("alone", "taught"):
        assert [s["seed"] for m, _, s in students if m == method][-len(real.SEEDS):] == list(real.SEEDS)
    assert all(s["seed"] == real.DEV_SEED for _, _, s in asked if not s["test"])
    assert {s["rate"] for m, _, s in final if m == "teacher"} == {4e-4}
    assert sum(row["test"] for row in rows) == 1 + 2 * len(real.SEEDS) + len(real.SCRATCH_SEEDS)


def test_counted_words_choose_their_strength_on_development_texts():
    dev, test = real.counted_run("words")
    assert dev["C"] == test["C"] and len(test["correct"]) == 50 and dev["part"] == "dev"


def test_costs_are_counted_for_both_in_every_form():
    pytest.importorskip("torchao")
    real.trained_run("words", "teacher", None, **STEP, test=True)
    real.trained_run("words", "taught", (0, 2), **STEP | {"seed": real.SEEDS[0]}, test=True)
    rows = real.cost_run("words", (0, 2), repeats=1, code="x")
    size = {(row["method"], row["form"]): row for row in rows if row["part"] == "test"}
    assert set(size) == {(who, form) for who in ("teacher", "taught") for form in real.FORMS}
    teacher, student = size["teacher", "32 bits"], size["taught", "32 bits"]
    assert student["encoder_parameters"] / teacher["encoder_parameters"] == pytest.approx(2 / 3)
    assert student["encoder_operations"] / teacher["encoder_operations"] == pytest.approx(2 / 3)
    assert student["parameters"] < teacher["parameters"] and student["bytes"] < teacher["bytes"]
    timed = [row for row in rows if row["part"] == "time"]
    assert len(timed) == 8 and all(0 < row["encoder_milliseconds"] < row["milliseconds"] for row in timed)


def test_costs_are_counted_for_the_sets_that_were_studied(monkeypatch):
    asked, studied = [], pd.DataFrame({"method": ["teacher", "taught"], "layers": ["all", "0+3"]})
    monkeypatch.setattr(real.report, "path", lambda kind, name: SimpleNamespace(exists=lambda: name.endswith("sst2")))
    monkeypatch.setattr(real.report, "load", lambda kind, name: studied)
    monkeypatch.setattr(real, "kept", lambda run, *settings, **more: asked.append(settings) or [{"data": settings[0]}])
    assert real.distillation_text_cost() == [{"data": "sst2"}] and asked == [("sst2", (0, 3))]


def test_the_card_names_data_and_weights():
    card = real.provenance("distillation_sst2", [{"data": "sst2"}])
    assert card["data_sha256"] == {"sst2": "0"} and card["weights_sha256"] == {real.MINILM: "1"} and "bfloat16" in card["note"]
