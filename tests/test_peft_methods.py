"""tlutils.peft_methods: what learns, what it costs, that it starts as the network, merges, ships, and fails aloud."""

import numpy as np
import pytest
import torch

from tlutils import deltas, finetune, freezing, mini_transformers, peft_methods, training, zoo

TEXTS = ["a red circle", "a small blue star on a striped ground", "two squares", "the sky is night"]
LABELS = torch.tensor([0, 1, 0, 1])
PICTURES = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
ON_TEXT = [m for m in peft_methods.METHODS if m != "full"]
ON_PICTURES = [m for m in ON_TEXT if "prompt" not in m]
SAME = 1e-5


def prepared(method, name="bert-mini", **settings):
    return peft_methods.prepare(zoo.load(name), method, **settings)


def trained(method, name="bert-mini", steps=3, **settings):
    """A classifier after a few steps on the texts (or pictures)."""
    model = finetune.Classifier(prepared(method, name, **settings), 2)
    data = (TEXTS, LABELS) if "bert" in name or "gpt" in name else (PICTURES, torch.arange(8) % 2)
    training.fit(model, data, steps=steps, lr=1e-2)
    return model


# ---------------------------------------------------------------------------- how they start and what learns
@pytest.mark.parametrize("name", mini_transformers.NETWORKS)
@pytest.mark.parametrize("method", [m for m in ON_TEXT if "prompt" not in m])
def test_a_text_network_starts_as_it_was(name, method):
    before = zoo.load(name).backbone(TEXTS)
    assert torch.allclose(prepared(method, name).backbone(TEXTS), before, atol=SAME)


@pytest.mark.parametrize("name", zoo.MINIS)
@pytest.mark.parametrize("method", ON_PICTURES)
def test_an_image_network_starts_as_it_was(name, method):
    with torch.no_grad():
        before, now = (net.backbone(zoo.MINI(PICTURES)) for net in (zoo.load(name), prepared(method, name)))
    assert torch.allclose(now, before, atol=1e-4)


@pytest.mark.parametrize("method", ON_TEXT)
def test_only_the_method_learns_and_all_of_it_does(method):
    loaded = prepared(method)
    model = finetune.Classifier(loaded, 2)
    freezing.assert_trains(model, lambda: torch.nn.functional.cross_entropy(model(TEXTS), LABELS))
    before = freezing.frozen_snapshot(model)
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    training.fit(model, (TEXTS, LABELS), steps=3, lr=1e-2)
    changed = {name for name, value in freezing.frozen_tensors(model).items() if not torch.equal(value, before[name])}
    # a key's bias shifts all scores of a query alike: softmax does not see it, its gradient is rounding
    assert changed <= free and all(name.endswith("key.bias") for name in free - changed)
    assert {"head.weight", "head.bias"} <= changed


def test_image_networks_keep_their_batch_norm_statistics():
    for method in ON_PICTURES:
        model = trained(method, "resnet-mini")
        state, fresh = model.backbone.state_dict(), zoo.load("resnet-mini").backbone.state_dict()
        for name in (n for n in state if "running" in n):
            assert torch.equal(state[name], fresh[name.replace(".base_layer", "")]), (method, name)


def test_parameters_by_hand():
    width, layers = mini_transformers.WIDTH, mini_transformers.LAYERS
    count = {"probe": 0, "lora": layers * 2 * 2 * 4 * width, "adapters": layers * 2 * (2 * width * 4 + width + 4), "prompt": 4 * width,
             "deep prompt": layers * 4 * width, "ia3": layers * (2 * width + 4 * width)}
    for method, expected in count.items():
        backbone = prepared(method, rank=4, bottleneck=4, length=4).backbone
        assert freezing.trainable_parameters(backbone) == expected, method
    whole = sum(p.numel() for p in zoo.load("bert-mini").backbone.parameters())
    assert peft_methods.share(prepared("lora", rank=4).backbone) == count["lora"] / whole
    assert peft_methods.share(prepared("full").backbone) == 1
    bias = peft_methods.share(prepared("bitfit").backbone)
    assert 0 < bias < 0.02 and bias < peft_methods.share(prepared("bitfit", norms=True).backbone)


def test_the_rank_and_the_targets_are_obeyed():
    sizes = [freezing.trainable_parameters(prepared("lora", rank=r).backbone) for r in (1, 2, 8)]
    assert sizes[1] == 2 * sizes[0] and sizes[2] == 8 * sizes[0]
    assert freezing.trainable_parameters(prepared("lora", targets="query", rank=1).backbone) == sizes[0] // 2
    loaded = zoo.load("bert-mini")
    assert peft_methods.lora(loaded.backbone, r"layer\.0\.attention\.self\.query") == ["model.encoder.layer.0.attention.self.query"]


# ---------------------------------------------------------------------------- merging, shipping, switching
@pytest.mark.parametrize("method, name", [("lora", n) for n in (*mini_transformers.NETWORKS, "resnet-mini", "efficientnet-mini")]
                         + [("ia3", "bert-mini"), ("ia3", "gpt-mini"), ("ia3", "resnet-mini")])
def test_merged_weights_give_the_same_outputs(method, name):
    model = trained(method, name)
    x = PICTURES if name in zoo.MINIS else TEXTS
    plain = peft_methods.merged(model)
    before, after = training.predict(model, x), training.predict(plain, x)
    assert torch.allclose(before, after, atol=SAME, rtol=SAME)
    assert set(plain.backbone.state_dict()) == set(zoo.load(name).backbone.state_dict())
    start = zoo.load(name)
    assert not torch.allclose(model.backbone(start.preprocess(x)), start.backbone(start.preprocess(x)), atol=1e-3), "it had learned something"
    assert torch.equal(training.predict(model, x), before), "the model that came in stays"


def test_only_what_stands_beside_weights_can_be_merged():
    for method in ("probe", "adapters", "prompt", "bitfit"):
        with pytest.raises(ValueError, match="no LoRA"):
            peft_methods.merged(prepared(method).backbone)


@pytest.mark.parametrize("method", ON_TEXT)
def test_what_is_shipped_is_small_and_whole(tmp_path, method):
    model = trained(method)
    written = deltas.save(model, tmp_path / "task.safetensors")
    other = finetune.Classifier(prepared(method, seed=5), 2, seed=5)
    deltas.load(other, tmp_path / "task.safetensors")
    assert torch.equal(training.predict(other, TEXTS), training.predict(model, TEXTS))
    learns = freezing.trainable_parameters(model)
    assert 4 * learns < written < 4 * learns + 12000 and written < 0.1 * deltas.size(finetune.Classifier(prepared("full"), 2))


def test_the_delta_of_another_method_or_rank_is_refused():
    lora = finetune.Classifier(prepared("lora", rank=2), 2)
    for wrong in (prepared("adapters"), prepared("lora", rank=3), prepared("full")):
        with pytest.raises(ValueError, match="prepare|method"):
            deltas.load(finetune.Classifier(wrong, 2), deltas.trained(lora))


@pytest.mark.parametrize("method", ["lora", "deep prompt"])
def test_two_tasks_on_one_network(method):
    model = finetune.Classifier(prepared(method), 2)
    tasks, outputs = deltas.Tasks(model), {}
    tasks.keep("start")
    for name, labels in (("a", LABELS), ("b", 1 - LABELS)):
        tasks.use("start")
        training.fit(model, (TEXTS, labels), steps=3, lr=1e-2)
        tasks.keep(name)
        outputs[name] = training.predict(model, TEXTS)
    assert torch.equal(training.predict(tasks.use("a"), TEXTS), outputs["a"])
    assert torch.equal(training.predict(tasks.use("b"), TEXTS), outputs["b"])


# ---------------------------------------------------------------------------- the contestant
@pytest.mark.parametrize("method", peft_methods.METHODS)
def test_contestants_learn_texts(method):
    x = ["red circle"] * 4 + ["blue star"] * 4
    y = torch.arange(2).repeat_interleave(4)
    contestant = peft_methods.Peft(method, lr=1e-2, steps=12)
    assert (contestant(x, y, x, 0) == y.numpy()).all()
    assert np.array_equal(contestant.fit(x, y, 0)(x[::4]), [0, 1])


def test_contestants_learn_pictures_and_share_their_head():
    x, y = torch.cat([PICTURES[:4] * 0.2, 0.8 + 0.2 * PICTURES[:4]]), torch.arange(2).repeat_interleave(4)
    heads = []
    for method in ON_PICTURES:
        contestant = peft_methods.Peft(method, lr=1e-2, steps=20, model="resnet-mini")
        heads.append(contestant.classifier(2, 3).head.weight)
        assert (contestant(x, y, x, 0) == y.numpy()).all(), method
    assert all(torch.equal(head, heads[0]) for head in heads)
    run = peft_methods.Peft("lora", lr=1e-2, steps=lambda labels: 2 * labels, model="resnet-mini").run(x, y, 0)
    assert len(run.history.losses) == 8


def test_full_is_the_fine_tuning_of_the_other_runner():
    y = torch.arange(8) % 2
    contestant = peft_methods.Peft("full", lr=1e-3, steps=4, model="resnet-mini", weights="shapes")
    run = finetune.finetune(zoo.load("resnet-mini", "shapes"), PICTURES, y, lr=1e-3, steps=4, seed=2, weight_decay=0.05, batch_size=32, clip=1.0)
    assert torch.equal(training.predict(contestant.run(PICTURES, y, 2).model, PICTURES), training.predict(run.model, PICTURES))


# ---------------------------------------------------------------------------- the silent no-op and bad input
def test_lora_on_a_module_whose_output_is_unused_trains_nothing_and_the_check_says_so():
    loaded = prepared("lora", targets=r"pooler\.dense")
    model = finetune.Classifier(loaded, 2)
    before = freezing.frozen_snapshot(loaded.backbone)
    training.fit(model, (TEXTS, LABELS), steps=2, lr=1e-2)              # no complaint
    freezing.assert_frozen(loaded.backbone, before)
    with pytest.raises(AssertionError, match="2 of 4 trainable parameters receive no gradient: .*pooler.dense.lora_A"):
        freezing.assert_trains(model, lambda: torch.nn.functional.cross_entropy(model(TEXTS), LABELS))


@pytest.mark.parametrize("settings, words", [
    ({"method": "lora", "rank": 0}, "rank=0 must be a whole number"), ({"method": "lora", "rank": 1.5}, "rank=1.5"),
    ({"method": "lora", "alpha": 0.0}, "alpha"), ({"method": "adapters", "bottleneck": 0}, "bottleneck"),
    ({"method": "prompt", "length": 0}, "length"), ({"method": "lora", "targets": "q_proj"}, r"q_proj.*there are .*self\.query"),
    ({"method": "ia3", "targets": "q_proj"}, "matches no module"),
    ({"method": "lora", "targets": r"encoder\.layer\.0"}, "can't all be replaced"), ({"method": "LoRA"}, "method: must be one of"),
])
def test_bad_settings(settings, words):
    with pytest.raises(ValueError, match=words):
        peft_methods.prepare(zoo.load("bert-mini"), **settings)


def test_what_can_not_be_prepared():
    with pytest.raises(ValueError, match="needs a text backbone"):
        prepared("prompt", "resnet-mini")
    for method in ("lora", "ia3", "adapters", "prompt"):
        with pytest.raises(ValueError, match="prepared for a method already"):
            peft_methods.prepare(prepared(method), "lora")
    loaded = zoo.load("bert-mini")
    loaded.backbone.model.config.model_type = "unheard"
    with pytest.raises(ValueError, match=r"unheard is not known.*self\.query"):
        peft_methods.prepare(loaded, "lora")
    with pytest.raises(ValueError, match="not among the targets"):
        peft_methods.ia3(zoo.load("bert-mini").backbone, "key", feedforward=r"layer\.\d+\.output\.dense")
