"""tlutils.training: `fit` learns, repeats itself exactly, and says what is wrong."""
from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from tiny import data, distance, fitted, network, same, stream, weights
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tlutils import freezing, optim, training

X, Y = data(64)


@pytest.mark.parametrize("train", [(X, Y), ((X * 255).to(torch.uint8), Y), stream, DataLoader(TensorDataset(X, Y), 16)],
                         ids=["floats", "bytes", "stream", "loader"])
def test_it_learns(train):
    model, history = fitted(train=train, steps=60, lr=0.03)
    assert sum(history.losses[-5:]) < 0.5 * sum(history.losses[:5])
    assert training.evaluate(model, *data(200, seed=1))["accuracy"] > 0.7


@pytest.mark.parametrize("train", [(X, Y), (X[:10], Y[:10]), stream, DataLoader(TensorDataset(X, Y), 16, shuffle=True)],
                         ids=["in memory", "fewer than a batch", "stream", "loader"])
def test_the_seed_decides_everything(train):
    def run(seed):
        return fitted(network(dropout=0.3), train, seed=seed, augment=jitter)

    torch.manual_seed(1)
    a, first = run(3)
    torch.manual_seed(2)
    b, second = run(3)
    assert same(a, b) and first == second
    assert not same(a, run(4)[0])


def jitter(x, generator):
    return x + 0.1 * torch.randn(x.shape, generator=generator)


def test_the_numbers_of_stored_results_stay():
    """Losses of the first version; a change of the batch order or of the random draws would invalidate results."""
    _, history = fitted(network(norm=False), steps=4)
    assert history.losses == pytest.approx(RECORDED_IN_MEMORY, abs=1e-3)
    _, history = fitted(network(norm=False), stream, steps=4, augment=jitter)
    assert history.losses == pytest.approx(RECORDED_STREAM, abs=1e-3)


RECORDED_IN_MEMORY = [1.3977, 1.4004, 1.3793, 1.4296]
RECORDED_STREAM = [1.3889, 1.4567, 1.34, 1.4466]


def test_the_global_generator_is_left_as_it_was():
    before = torch.get_rng_state()
    fitted(network(dropout=0.5))
    assert torch.equal(before, torch.get_rng_state())


def test_it_is_plain_adamw_on_the_batches_it_says():
    """Against a bare loop, written out."""
    from tlutils import batches

    model, history = fitted(network(norm=False), steps=6, weight_decay=0.1, schedule="linear", channels_last=False)
    bare = network(norm=False)
    optimizer = torch.optim.AdamW(bare.parameters(), lr=0.01, weight_decay=0.1)
    losses = []
    for step in range(6):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 6)
        epoch, position = divmod(step, 4)
        order = torch.randperm(64, generator=batches.generator(0, "order", epoch))
        index = order[16 * position:16 * position + 16]
        optimizer.zero_grad()
        loss = F.cross_entropy(bare(X[index]), Y[index])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert distance(model, bare) < 1e-5
    assert history.losses == pytest.approx(losses, rel=1e-5)


def test_without_evaluate_every_there_is_one_row_at_the_end():
    model, history = fitted(validation=(X, Y))
    scores = training.evaluate(model, X, Y)
    assert len(history.rows) == 1
    assert history.last["validation_accuracy"] == scores["accuracy"]
    assert history.last["validation_loss"] == pytest.approx(scores["loss"])


def test_own_loss_on_other_targets_and_own_scores():
    target = X.mean((2, 3))
    model = nn.Sequential(network()[0], nn.Linear(8, 3))
    scored = {"widest": lambda m: {"spread": training.predict(m, X).std()}, "pair": (X, target)}
    for kind, validation in scored.items():
        _, history = fitted(model, (X, target), loss=F.mse_loss, steps=40, validation=validation)
        assert history.losses[-1] < history.losses[0]
        assert ("validation_spread" if kind == "widest" else "validation_loss") in history.last
        assert "validation_accuracy" not in history.last


def test_texts_can_be_trained_on():
    class Lengths(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(1, 2)

        def forward(self, texts):
            return self.head(torch.tensor([[float(len(t))] for t in texts]))

    texts, y = ["ab", "abcdef"] * 8, torch.tensor([0, 1] * 8)
    model, _ = fitted(Lengths(), (texts, y), steps=200, lr=0.1, batch_size=8)
    assert training.evaluate(model, texts, y)["accuracy"] == 1


def test_frozen_modules_stay_and_the_rest_learns():
    model = network(dropout=0.3)
    freezing.freeze(model[0])
    head = weights(model[1])
    with freezing.assert_frozen(model[0]):
        fitted(model, weight_decay=0.5, evaluate_every=3, validation=(X, Y))
    assert not same(head, model[1])


def test_groups_with_rate_zero_stand_still():
    model = network(norm=False)
    backbone = weights(model[0])
    fitted(model, groups=[{"params": model[0].parameters(), "lr": 0.0}, {"params": model[1].parameters()}])
    assert same(backbone, model[0])


def test_layerwise_groups_are_used_and_can_be_used_again():
    model = network(norm=False)
    groups = optim.layerwise(model[0], model[1], lr=0.01, decay=0.5)
    start = weights(model)
    fitted(model, groups=groups)
    first = weights(model)
    model.load_state_dict(start)
    fitted(model, groups=groups)
    assert same(first, model)


def test_a_penalty_pulls_back():
    start = network(norm=False)
    free, held = (network(norm=False) for _ in range(2))
    fitted(free, steps=30)
    fitted(held, steps=30, penalty=optim.l2_sp(held, strength=10.0))
    assert 0 < distance(held, start) < 0.5 * distance(free, start)


def test_the_recorded_loss_is_without_the_penalty():
    _, free = fitted(evaluate_every=4)
    _, charged = fitted(evaluate_every=4, penalty=lambda model: torch.tensor(100.0))
    assert free == charged


def test_a_strong_penalty_on_frozen_parameters_does_nothing():
    a, b = network(), network()
    for model in (a, b):
        freezing.freeze(model[0])
    fitted(a)
    fitted(b, penalty=optim.l2_sp(b[0], {k: v + 1 for k, v in b[0].state_dict().items()}, strength=9.0))
    assert same(a, b)


def test_channels_last_is_only_a_layout():
    a, b = (fitted(channels_last=channels_last, optimizer="sgd")[0] for channels_last in (True, False))
    assert a[0].stages.low[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert distance(a, b) < 1e-5


def test_accumulating_halves_equals_the_whole_batch():
    whole, one = fitted(network(norm=False), batch_size=16)
    halves, two = fitted(network(norm=False), batch_size=8, accumulate=2)
    assert distance(whole, halves) < 1e-5 and one.losses == pytest.approx(two.losses, rel=1e-5)
    thirds, three = fitted(network(norm=False), (X[:10], Y[:10]), batch_size=16, accumulate=3)      # 3, 3 and 4 of 10
    whole, one = fitted(network(norm=False), (X[:10], Y[:10]), batch_size=16)
    assert distance(whole, thirds) < 1e-5 and one.losses == pytest.approx(three.losses, rel=1e-5)


def test_accumulating_with_a_penalty_counts_it_once():
    models = [network(norm=False) for _ in range(2)]
    for model, options in zip(models, (dict(batch_size=16), dict(batch_size=4, accumulate=4)), strict=True):
        fitted(model, penalty=optim.l2_sp(model, {k: v + 1 for k, v in model.state_dict().items()}, strength=1.0),
               optimizer="sgd", **options)
    assert distance(*models) < 1e-5


def test_clipping_bounds_the_step():
    def moved(clip):
        model, start = network(norm=False), network(norm=False)
        fitted(model, steps=1, lr=1.0, clip=clip, optimizer=torch.optim.SGD, schedule="constant")
        pairs = zip(model.parameters(), start.parameters(), strict=True)
        return sum((a - b).square().sum() for a, b in pairs).sqrt().item()

    free = moved(None)
    assert moved(free / 4) == pytest.approx(free / 4, rel=1e-3)
    assert moved(free * 4) == pytest.approx(free, rel=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", functools.partial(torch.optim.RMSprop, alpha=0.9)])
def test_optimizers(optimizer):
    _, history = fitted(steps=30, optimizer=optimizer)
    assert history.losses[-1] < history.losses[0]


def test_warmup_and_own_schedule_reach_the_optimizer():
    class Rates:
        seen: list = []

        def on_step(self, state):
            self.seen.append(state.optimizer.param_groups[0]["lr"])

    fitted(steps=4, lr=1e-3, warmup=2, schedule=lambda done: 1 - done, callbacks=[Rates()])
    assert Rates.seen == pytest.approx([5e-4, 1e-3, 1e-3, 5e-4])


def test_bf16_is_close_and_keeps_float32_weights():
    plain, one = fitted(steps=30)
    half, two = fitted(steps=30, precision="bf16", validation=(X, Y))
    assert one.losses != two.losses and one.losses == pytest.approx(two.losses, abs=0.1)
    assert all(p.dtype == torch.float32 for p in half.parameters())
    again, _ = fitted(steps=30)                 # precisions can follow one another in one process
    assert same(plain, again)


def test_compiled_is_the_same_run():
    a, b = fitted(network(dropout=0.3)), fitted(network(dropout=0.3), compile="eager")
    assert distance(a[0], b[0]) < 1e-3


@pytest.mark.parametrize("wrong, message", [
    (dict(steps=0), "steps=0"), (dict(steps=2.5), "steps=2.5"), (dict(lr=-0.1), "lr=-0.1"),
    (dict(weight_decay=-1.0), "weight_decay"), (dict(batch_size=0), "batch_size=0"),
    (dict(accumulate=0), "accumulate=0"), (dict(evaluate_every=0), "evaluate_every=0"), (dict(clip=0), "clip=0"),
    (dict(schedule="cosin"), "schedule='cosin'"), (dict(warmup=9), "warmup=9"), (dict(optimizer="x"), "optimizer='x'"),
    (dict(precision="fp8"), "precision='fp8' is unknown"), (dict(train=(X, Y[:5])), "64 examples, y has 5"),
    (dict(train=(X[:0], Y[:0])), "train is empty"), (dict(train=(X.double(), Y)), "float64"),
    (dict(validation=(X, Y[:5])), "validation: x has 64"), (dict(train=(X[:2], Y[:2]), accumulate=3), "batch of 2"),
    (dict(loss=lambda outputs, y: F.cross_entropy(outputs, y, reduction="none")), "loss must be a scalar"),
    (dict(groups=[{"params": []}]), "leave out the trainable parameters"), (dict(groups=[]), "empty")])
def test_bad_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        fitted(**wrong)


def test_a_model_that_is_frozen_whole_is_refused():
    with pytest.raises(ValueError, match="trainable parameter"):
        fitted(freezing.freeze(network()))


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
@pytest.mark.parametrize("wrong, message", [
    (dict(device="cuda"), "no CUDA device"), (dict(precision="fp16"), "needs a GPU")])
def test_what_needs_a_gpu_says_so(wrong, message):
    with pytest.raises(ValueError, match=message):
        fitted(**wrong)


def test_progress_goes_to_stderr_and_only_when_asked(capfd):
    fitted()
    assert capfd.readouterr() == ("", "")
    fitted(progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "8/8" in err


# ---- checkpoints (killed runs: test_training_processes.py)

def interrupted(file, stop_at: int, **options):
    """A run that raises after `stop_at` steps."""
    class Break:
        def on_step(self, state):
            if state.step == stop_at:
                raise KeyboardInterrupt

        def state_dict(self):
            return {}

        def load_state_dict(self, saved):
            pass

    class Go(Break):
        def on_step(self, state):
            pass

    Go.__name__ = "Break"
    with pytest.raises(KeyboardInterrupt):
        fitted(network(dropout=0.2), checkpoint=file, callbacks=[Break()], **options)
    return fitted(network(7, dropout=0.2), checkpoint=file, callbacks=[Go()], **options)


@pytest.mark.parametrize("options", [
    dict(), dict(optimizer="sgd"), dict(precision="bf16"), dict(channels_last=False), dict(train=stream),
    dict(train=DataLoader(TensorDataset(X, Y), 16, shuffle=True)), dict(accumulate=2, clip=0.5)],
    ids=["plain", "sgd", "bf16", "contiguous", "stream", "loader", "accumulate and clip"])
def test_a_resumed_run_ends_as_if_never_stopped(tmp_path, options):
    options = {"steps": 10, "evaluate_every": 3, "validation": (X, Y), "augment": jitter, **options}
    expected, history = fitted(network(dropout=0.2), **options)
    model, resumed = interrupted(tmp_path / "run.safetensors", 6, checkpoint_every=4, **options)
    assert same(model, expected) and resumed == history and len(resumed.seconds) == len(resumed.rows)
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]


def test_a_finished_run_is_only_read(tmp_path):
    model, history = fitted(checkpoint=tmp_path / "run.safetensors")
    again, read = fitted(network(5), checkpoint=tmp_path / "run.safetensors")
    assert same(model, again) and read == history and read.seconds == history.seconds


def test_early_stopping_and_freezing_survive(tmp_path):
    def build():
        model = network()
        freezing.freeze(model[0])
        return model, [training.EarlyStopping(3, "validation_loss"), training.Unfreeze({3: model[0].stages.high})]

    class Break:
        def __init__(self, at):
            self.at = at

        def on_step(self, state):
            if state.step == self.at:
                raise KeyboardInterrupt

    results = []
    for at in (None, 2, 5, 7):
        file, options = tmp_path / f"{at}.safetensors", dict(steps=12, lr=0.3, evaluate_every=1, validation=(X, Y))
        if at is not None:
            model, callbacks = build()
            with pytest.raises(KeyboardInterrupt):
                fitted(model, checkpoint=file, checkpoint_every=1, callbacks=[*callbacks, Break(at)], **options)
        model, callbacks = build()
        _, history = fitted(model, checkpoint=file, checkpoint_every=1, callbacks=[*callbacks, Break(None)], **options)
        results.append((model, history, callbacks[0]))
    for model, history, stopping in results[1:]:
        assert same(model, results[0][0]) and history == results[0][1]
        assert (stopping.best, stopping.best_step) == (results[0][2].best, results[0][2].best_step)


def test_a_run_that_had_decided_to_stop_does_not_go_on(tmp_path):
    class StopAtThree:
        interrupt = True

        def on_step(self, state):
            state.stop = state.stop or state.step == 3

        def on_end(self, state):
            if self.interrupt:
                raise KeyboardInterrupt

    options = dict(checkpoint=tmp_path / "run.safetensors", checkpoint_every=1, callbacks=[StopAtThree()])
    with pytest.raises(KeyboardInterrupt):
        fitted(**options)
    StopAtThree.interrupt = False
    assert len(fitted(**options)[1].losses) == 3


def test_what_a_callback_without_memory_froze_stays_frozen(tmp_path):
    class FreezeOnce:
        stop_at = None

        def on_step(self, state):
            if state.step == 2:
                freezing.freeze(state.model[0])
            if state.step == self.stop_at:
                raise KeyboardInterrupt

    options = dict(steps=8, callbacks=[FreezeOnce()], checkpoint_every=1)
    expected, _ = fitted(**options)
    FreezeOnce.stop_at = 5
    with pytest.raises(KeyboardInterrupt):
        fitted(checkpoint=tmp_path / "run.safetensors", **options)
    FreezeOnce.stop_at = None
    assert same(fitted(checkpoint=tmp_path / "run.safetensors", **options)[0], expected)


@pytest.mark.parametrize("changed", [
    dict(lr=0.02), dict(steps=9), dict(seed=1), dict(batch_size=8), dict(optimizer="sgd"), dict(schedule="linear"),
    dict(weight_decay=0.1), dict(train=(X + 1, Y)), dict(train=(X, Y.flip(0))), dict(train=stream), dict(clip=1.0),
    dict(validation=(X, Y)), dict(precision="bf16"), dict(augment=jitter), dict(callbacks=[training.EarlyStopping()]),
    dict(model=network(norm=False))], ids=lambda changed: next(iter(changed)))
def test_other_settings_or_data_are_refused_by_name(tmp_path, changed):
    fitted(checkpoint=tmp_path / "run.safetensors")
    written = (tmp_path / "run.safetensors").read_bytes()
    with pytest.raises(ValueError, match=rf"checkpoint .*run\.safetensors was written with {next(iter(changed))}="):
        fitted(**{"checkpoint": tmp_path / "run.safetensors", **changed})
    assert (tmp_path / "run.safetensors").read_bytes() == written


def test_a_missing_folder_and_a_damaged_file_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.*does not exist"):
        fitted(checkpoint=tmp_path / "nowhere" / "run.safetensors")
    (tmp_path / "run.safetensors").write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="damaged"):
        fitted(checkpoint=tmp_path / "run.safetensors")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_the_same_call_on_a_gpu(precision, tmp_path):
    options = dict(steps=60, lr=0.03, precision=precision, augment=on_any_device, clip=1.0, validation=(X, Y),
                   evaluate_every=25, checkpoint=tmp_path / "run.safetensors")
    model, history = fitted(network(dropout=0.2), **options)
    assert next(model.parameters()).device.type == "cuda" and len(history.losses) == 60
    assert training.evaluate(model, *data(200, seed=1))["accuracy"] > 0.7
    again, read = fitted(network(3, dropout=0.2), **options)
    assert same(model, again) and read == history


def on_any_device(x, generator):
    return x + 0.1 * torch.randn(x.shape, generator=generator).to(x.device)
