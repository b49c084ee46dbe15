"""What a fine-tuned network still knows of its source task: with the old head put back, and with a new probe.

The two differ. The old head asks whether the features still lie where it expects them; a new probe asks whether the
source's classes can still be told apart at all. The first can fall to chance while the second hardly moves.
"""
from __future__ import annotations

from torch import Tensor

from . import finetune, inference

PROBE_C = 0.1


def source_kept(loaded, probe: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *, C: float = PROBE_C) -> dict[str, float]:
    """Accuracy on the source task, both ways: {"old_head": share, "new_probe": share}.

    loaded: a `zoo.Loaded` whose backbone was fine-tuned in place; its own head is the one that it came with. probe: source
    pictures (N, 3, H, W) in [0, 1] and labels (N,) to fit the new linear probe on; test: others to score both on.
    The network is not changed. Raises ValueError if it came without a head, if probe or test do not pair up or hold one
    class, or if the test set has a class that the head does not know.
    """
    if loaded.head is None:
        raise ValueError(f"loaded: {loaded.name} came without a classifier of its own; fit one to its features before fine-tuning")
    (x, y), (x_test, y_test) = probe, test
    finetune.check_labelled(x, y, name="probe labels", of="probe")
    finetune.check_labelled(x_test, y_test, name="test labels", of="test")
    maps = inference.predict(_Maps(loaded), x_test)
    logits = loaded.head(maps).detach()
    if int(y_test.max()) >= logits.shape[1]:
        raise ValueError(f"test labels: go up to {int(y_test.max())}, the old head knows {logits.shape[1]} classes; give source labels")
    fitted = finetune.linear_probe(inference.predict(finetune.Features(loaded), x), y, C=C)
    features = maps.mean((2, 3)) if maps.ndim == 4 else maps
    return {"old_head": float((logits.argmax(1) == y_test).float().mean()), "new_probe": float(fitted.score(features.numpy(), y_test.numpy()))}


class _Maps(finetune.Features):
    """Pictures to the last stage's maps, which the old head takes."""

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone.stages(self.preprocess(x))
