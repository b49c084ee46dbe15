"""Batches for `training.fit`: a pure function of the seed and the step.

Every draw comes from a generator seeded by (seed, purpose, counter), never from hidden state. A run that is
stopped and resumed at any step therefore sees the batches that it would have seen.
"""
from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SHARE_OF_GPU = 0.5          # data larger than this share of the free memory stay on the CPU


@dataclass
class Batch:
    """x and y on the device; `origin` says in words where they come from, `indices` which examples (if known)."""

    x: Tensor | list[str]
    y: Tensor
    origin: str
    indices: Tensor | None = None


def derived_seed(seed: int, purpose: str, counter: int) -> int:
    """A seed for one draw: 63 bits of a hash of (seed, purpose, counter)."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{counter}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, purpose: str, counter: int) -> torch.Generator:
    """A CPU generator seeded by (seed, purpose, counter): the same numbers on every device."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, counter))


def as_model_input(x, device, *, channels_last: bool = False):
    """Move a batch to the device; uint8 pictures (0 .. 255) become float32 in [0, 1]. Texts and other types stay."""
    if not isinstance(x, Tensor):
        return x
    x = x.to(device, non_blocking=True)
    if x.dtype == torch.uint8:
        x = x.float() / 255
    return x.contiguous(memory_format=torch.channels_last) if channels_last and x.ndim == 4 else x


@dataclass
class Source:
    """What all sources of batches have in common; called with a step, they give its Batch."""

    seed: int
    device: torch.device
    channels_last: bool

    def batch(self, x, y: Tensor, origin: str, indices: Tensor | None = None) -> Batch:
        """The batch, on the device and in the memory format asked for."""
        x = as_model_input(x, self.device, channels_last=self.channels_last)
        return Batch(x, y.to(self.device, non_blocking=True), origin, indices)


class InMemory(Source):
    """Batches from (x, y) held in memory, moved whole to the device where they fit.

    With at most `batch_size` examples each batch is all of them. Otherwise each epoch is a new permutation, cut
    into full batches; what is left over at its end is not used in that epoch.
    """

    def __init__(self, x, y: Tensor, batch_size: int, *common):
        super().__init__(*common)
        self.whole = len(x) <= batch_size
        self.batch_size = min(batch_size, len(x))
        self.per_epoch = len(x) // self.batch_size
        self.epoch, self.order = -1, None
        home = self.device if _fits(x, self.device) else torch.device("cpu")
        self.x, self.y = x, y.to(home)
        if isinstance(x, Tensor):
            self.x = x.to(home)
            if self.channels_last and x.ndim == 4:
                self.x = self.x.contiguous(memory_format=torch.channels_last)

    def __call__(self, step: int) -> Batch:
        index = self.indices(step)
        return self.batch(self._pick(index), self.y if self.whole else self.y[index],
                          f"epoch {step // self.per_epoch + 1}", index)

    def indices(self, step: int) -> Tensor:
        """Which examples the batch of this step holds: (batch_size,) int64."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self.epoch and not (self.whole and self.order is not None):
            n = len(self.x)
            order = torch.arange(n) if self.whole else torch.randperm(n, generator=generator(self.seed, "order", epoch))
            self.epoch, self.order = epoch, order.to(self.y.device)
        return self.order if self.whole else self.order[position * self.batch_size:(position + 1) * self.batch_size]

    def _pick(self, index: Tensor):
        if not isinstance(self.x, Tensor):
            return [self.x[i] for i in index.tolist()]
        # a clone, so that an in-place augmentation or layer can't write into the data
        return self.x.clone() if self.whole else self.x[index]


class Stream(Source):
    """Batches from `draw(generator, batch_size) -> (x, y)`, fresh at every step."""

    def __init__(self, draw: Callable, batch_size: int, *common):
        super().__init__(*common)
        self.draw, self.batch_size = draw, batch_size

    def __call__(self, step: int) -> Batch:
        x, y = check_pair(self.draw(generator(self.seed, "stream", step), self.batch_size), "a batch of the stream")
        return self.batch(x, y, f"drawn with batches.generator({self.seed}, 'stream', {step})")


class Loader(Source):
    """Batches from a torch DataLoader, `group` of them joined to one; repeated epoch after epoch.

    Epochs and fetches are seeded by counter, so a resumed run fetches and drops what it has seen already.
    """

    def __init__(self, loader, group: int, *common):
        super().__init__(*common)
        self.loader, self.group, self.next_step, self.fetched = loader, group, 0, self._fetch()

    def __call__(self, step: int) -> Batch:
        before = torch.default_generator.get_state()
        while self.next_step < step:
            self._joined()
        x, y, origin = self._joined()
        torch.default_generator.set_state(before)       # fetching must not change the step's own draws
        return self.batch(x, y, origin)

    def _joined(self) -> tuple:
        xs, ys, origins = zip(*(next(self.fetched) for _ in range(self.group)), strict=True)
        self.next_step += 1
        x = torch.cat(xs) if isinstance(xs[0], Tensor) else [text for part in xs for text in part]
        return x, torch.cat(ys), ", ".join(origins)

    def _fetch(self) -> Iterator[tuple]:
        epoch = 0
        while True:
            torch.default_generator.manual_seed(derived_seed(self.seed, "epoch", epoch))
            if self.loader.generator is not None:
                self.loader.generator.manual_seed(derived_seed(self.seed, "loader", epoch))
            number = -1
            for number, pair in enumerate(self.loader):
                x, y = check_pair(pair, "a batch of the DataLoader")
                yield x, y, f"number {number} of the loader's epoch {epoch + 1}"
                torch.default_generator.manual_seed(derived_seed(self.seed, f"fetch {epoch}", number))
            if number < 0:
                raise ValueError("train is a DataLoader without a single batch: check its data set and drop_last")
            epoch += 1


def source(train, *, batch_size: int, accumulate: int, seed: int, device, channels_last: bool) -> Source:
    """The source of batches for what `fit` was given: (x, y), a DataLoader or a stream."""
    common = (seed, device, channels_last)
    if isinstance(train, torch.utils.data.DataLoader):
        return Loader(train, accumulate, *common)
    if callable(train):
        return Stream(train, batch_size * accumulate, *common)
    return InMemory(*check_pair(train, "train"), batch_size * accumulate, *common)


def check_pair(pair, name: str) -> tuple:
    """Raise ValueError unless `pair` is (x, y): tensors (x may be a list of texts) of the same length, not empty."""
    if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[1], Tensor)
            and (isinstance(pair[0], Tensor) or is_texts(pair[0]))):
        raise ValueError(f"{name} must be a pair (x, y) of tensors (x may be a list of texts), not {_describe(pair)}")
    x, y = pair
    if len(x) == 0:
        raise ValueError(f"{name} is empty: x has no examples")
    if len(x) != len(y):
        raise ValueError(f"{name}: x has {len(x)} examples, y has {len(y)}; they must be of the same length")
    if isinstance(x, Tensor) and x.dtype == torch.float64:
        raise ValueError(f"{name}: x is float64, networks compute in float32; pass x.float()")
    return x, y


def is_texts(x) -> bool:
    """True for a list or tuple of strings."""
    return isinstance(x, Sequence) and not isinstance(x, str) and all(isinstance(text, str) for text in x)


def _describe(value) -> str:
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of " + (", ".join(type(v).__name__ for v in value[:5]) or "nothing")
    return type(value).__name__


def _fits(x, device: torch.device) -> bool:
    if device.type != "cuda" or not isinstance(x, Tensor):
        return True
    return x.numel() * x.element_size() < SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]
