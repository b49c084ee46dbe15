"""Knowledge distillation: losses by which a small network learns from a large one, and `distil`, which trains with them."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import processes, training


def soft_targets(student: Tensor, teacher: Tensor, *, temperature: float = 2.0) -> Tensor:
    """Cross-entropy between the softened outputs of teacher and student (Hinton, Vinyals & Dean 2015), as KL divergence.

    student, teacher: (N, K) logits. Scaled by temperature^2, so that its gradients keep their size. Returns a scalar >= 0,
    zero when both say the same. Raises ValueError for other shapes or a temperature that is not positive.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(f"student and teacher must be logits (N, K) of the same shape; got {tuple(student.shape)} and "
                         f"{tuple(teacher.shape)}")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be greater than 0")
    log_p, log_q = (F.log_softmax(logits / temperature, -1) for logits in (teacher, student))
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature ** 2


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine between the hidden states of student and teacher, averaged (DistilBERT, Sanh et al. 2019).

    student, teacher: (N, width). Returns a scalar from 0 (same directions) to 2. Raises ValueError for other shapes.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(f"student and teacher must be states (N, width) of the same shape; got {tuple(student.shape)} and "
                         f"{tuple(teacher.shape)}")
    return (1 - F.cosine_similarity(student, teacher, dim=-1)).mean()


def loss(student: Tensor, teacher: Tensor, y: Tensor | None = None, *, temperature: float = 4.0, weight: float = 0.9) -> Tensor:
    """Hinton's loss: weight * T^2 * KL(teacher || student, both softened by T) + (1 - weight) * cross-entropy with the labels.

    student, teacher: (N, K) logits; y: (N,) int64 labels or (N, K) probabilities, needed unless weight is 1. weight=0 is training on
    labels alone. No gradient flows into the teacher. Returns a scalar. Raises ValueError for different numbers of classes, a
    temperature not above 0, a weight outside 0 to 1, or missing labels.
    """
    check_settings(temperature, weight)
    if student.ndim == teacher.ndim == 2 and student.shape[1] != teacher.shape[1]:
        raise ValueError(f"the student has {student.shape[1]} classes and the teacher {teacher.shape[1]}: give both a head for the same "
                         "classes, in the same order")
    student, teacher = student.float(), teacher.detach().float()
    total = weight * soft_targets(student, teacher, temperature=temperature)
    if weight == 1:
        return total
    if y is None:
        raise ValueError(f"weight={weight} mixes in cross-entropy with the labels, but there are none: give y, or weight=1")
    return total + (1 - weight) * F.cross_entropy(student, y)


def check_settings(temperature: float, weight: float) -> None:
    """Raise ValueError unless temperature > 0 and 0 <= weight <= 1."""
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature={temperature} must be a number greater than 0: logits are divided by it")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight={weight} must be from 0 (labels alone) to 1 (the teacher alone)")


class Taught(nn.Module):
    """A student beside its teacher: in training mode it gives the answers of both to the very same batch, else the student's.

    The teacher is not a submodule: it stays in evaluation mode, is neither trained nor saved with the student.
    change(logits, y) -> logits alters what the teacher says (for ablations). `loss` is what `training.fit` needs.
    Raises ValueError if the teacher is in training mode, or shares parameters with the student.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, *, temperature: float = 4.0, weight: float = 0.9, change: Callable | None = None):
        super().__init__()
        check_settings(temperature, weight)
        check_teacher(teacher, student)
        self.student, self._teacher = student, (teacher,)
        self.temperature, self.weight, self.change = temperature, weight, change

    @property
    def teacher(self) -> nn.Module:
        """The teacher, kept out of the parameters."""
        return self._teacher[0]

    def forward(self, x):
        """(student's logits, teacher's logits) in training mode, else the student's logits, (N, K) each."""
        if not self.training:
            return self.student(x)
        with torch.no_grad():
            taught = self.teacher(x)
        return self.student(x), taught

    def loss(self, outputs, y: Tensor) -> Tensor:
        """`loss` of this temperature and weight; for the student's outputs alone (in an evaluation) plain cross-entropy."""
        if isinstance(outputs, Tensor):
            return F.cross_entropy(outputs, y)
        student, taught = outputs
        return loss(student, self.change(taught, y) if self.change else taught, y, temperature=self.temperature, weight=self.weight)


def check_teacher(teacher: nn.Module, student: nn.Module | None = None) -> None:
    """Raise ValueError if any part of the teacher is in training mode, or if it shares parameters with the student."""
    noisy = [name or type(teacher).__name__ for name, part in teacher.named_modules() if part.training]
    if noisy:
        raise ValueError(f"the teacher is in training mode ({noisy[0]}): its batch norm would follow the student's batches and its dropout "
                         "blur its answers; call teacher.eval() first")
    if student is not None and {id(p) for p in student.parameters()} & {id(p) for p in teacher.parameters()}:
        raise ValueError("student and teacher share parameters: the teacher must stay as it is while the student learns, copy it first")


def distil(student: nn.Module, teacher: nn.Module, train, *, steps: int, temperature: float = 4.0, weight: float = 0.9,
           change: Callable | None = None, **options) -> training.History:
    """Train the student in place on what the teacher says (Hinton, Vinyals & Dean 2015); it ends in evaluation mode.

    train: as for `training.fit`; or (x, None), pictures or texts without labels, which need weight=1. The teacher sees each batch as the
    student does, after `augment`, in evaluation mode and without gradients; it does not change. temperature, weight: see `loss`.
    change: see `Taught`. options go to `training.fit`. Returns its history; the validation scores are the student's.
    Raises ValueError for different class counts, a teacher in training mode, or settings that can't work.
    """
    model = Taught(student, teacher, temperature=temperature, weight=weight, change=change)
    if isinstance(train, (tuple, list)) and len(train) == 2 and train[1] is None:
        if weight != 1:
            raise ValueError(f"weight={weight} mixes in cross-entropy with the labels, but train has none (x, None): use weight=1")
        train = (train[0], torch.zeros(len(train[0]), dtype=torch.int64))
    device = options.get("device")
    teacher.to(processes.team().device if device is None else device)
    return training.fit(model, train, steps=steps, loss=model.loss, **options)


class Ensemble(nn.Module):
    """Several networks as one teacher: the mean of their logits. Raises ValueError for none."""

    def __init__(self, members: Sequence[nn.Module]):
        super().__init__()
        if not len(members):
            raise ValueError("members: an ensemble needs at least one network")
        self.members = nn.ModuleList(members)
        self.eval()

    def forward(self, x) -> Tensor:
        """(N, K) logits."""
        return torch.stack([member(x) for member in self.members]).mean(0)


def agreement(student: Tensor, teacher: Tensor) -> float:
    """Fidelity: the share of examples on which both name the same class (Stanton et al. 2021). student, teacher: (N, K) logits."""
    if student.shape != teacher.shape or not len(student):
        raise ValueError(f"student and teacher must be logits (N, K) of the same shape, N >= 1; got {tuple(student.shape)} and "
                         f"{tuple(teacher.shape)}")
    return (student.argmax(1) == teacher.argmax(1)).float().mean().item()


# ---------------------------------------------------------------------------- what is it about the soft labels?
def shuffle_wrong(logits: Tensor, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The teacher's logits with those of the wrong classes shuffled in each example; the right class keeps its own.

    logits: (N, K), y: (N,) int64. As confident as the teacher, as unsure in all: only which wrong class is likely is lost.
    """
    keys = torch.rand(logits.shape, generator=generator).to(logits.device).scatter(1, y[:, None], -1.0)
    wrong_first = logits.scatter(1, y[:, None], float("-inf"))
    order, places = keys.argsort(1)[:, 1:], wrong_first.argsort(1)[:, 1:]         # the right class stands first in both
    return logits.scatter(1, order, logits.gather(1, places))


def flatten_wrong(logits: Tensor, y: Tensor, *, temperature: float = 4.0) -> Tensor:
    """The teacher's softened confidence in the right class, the rest spread evenly over the wrong ones.

    logits: (N, K), y: (N,) int64. Returns logits whose softmax at this temperature is that.
    """
    p = (logits / temperature).softmax(1).gather(1, y[:, None]).clamp(1e-6, 1 - 1e-6)
    rest = (1 - p) / (logits.shape[1] - 1)
    return temperature * rest.expand_as(logits).scatter(1, y[:, None], p).log()


def smoothing_of(entropy: float, classes: int) -> float:
    """The label smoothing eps whose labels, 1 - eps + eps / K on the right class and eps / K elsewhere, have this entropy (nats).

    Raises ValueError for an entropy outside 0 to log(classes).
    """
    highest = torch.log(torch.tensor(float(classes), dtype=torch.float64)).item()
    if not 0 <= entropy <= highest + 1e-6:
        raise ValueError(f"entropy={entropy} must be from 0 to log({classes}) = {highest:.3f}")
    low, high = 0.0, 1.0
    for _ in range(60):                                      # the entropy grows with eps
        eps = (low + high) / 2
        p = torch.full((classes,), eps / classes, dtype=torch.float64)
        p[0] += 1 - eps
        low, high = (eps, high) if float(torch.special.entr(p).sum()) < entropy else (low, eps)
    return (low + high) / 2


def entropy(logits: Tensor, *, temperature: float = 1.0) -> float:
    """Mean entropy (nats) of the softened answers; logits: (N, K)."""
    return float(torch.special.entr((logits.double() / temperature).softmax(1)).sum(1).mean())


def smoothed_teacher(y: Tensor, classes: int, eps: float, *, temperature: float = 4.0) -> Tensor:
    """Logits (N, K) whose softmax at this temperature is the smoothed label: a teacher that knows nothing but y (Yuan et al. 2020)."""
    if not 0 < eps < 1:
        raise ValueError(f"eps={eps} must be between 0 and 1")
    return temperature * (F.one_hot(y, classes) * (1 - eps) + eps / classes).log()


# ---------------------------------------------------------------------------- feature hints
class Hints(nn.Module):
    """FitNets' first stage (Romero et al. 2015): a layer of the student, through a regressor, imitates a layer of the teacher.

    student_layer, teacher_layer: modules inside the two networks whose outputs are maps (N, C, H, W) or features (N, C). The regressor, a
    1x1 convolution or a linear layer, is made at the first batch seen by `prepare`. Maps of different size are averaged to the smaller.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module, student_layer: nn.Module, teacher_layer: nn.Module):
        super().__init__()
        check_teacher(teacher, student)
        for name, layer, network in (("student_layer", student_layer, student), ("teacher_layer", teacher_layer, teacher)):
            if all(layer is not part for part in network.modules()):
                raise ValueError(f"{name} is no part of its network: give one of its modules, such as network.backbone.stages[1]")
        self.student, self._teacher, self.regressor = student, (teacher,), None
        self._layers = (student_layer, teacher_layer)

    def prepare(self, x, *, seed: int = 0) -> Hints:
        """Make the regressor for the widths that x (a batch) shows; x runs through both networks in evaluation mode. Returns self."""
        was = self.student.training
        self.student.eval()
        with torch.no_grad():
            mine, theirs = self._both(x)
        self.student.train(was)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            wide = mine.shape[1], theirs.shape[1]
            self.regressor = (nn.Conv2d(*wide, 1) if mine.ndim == 4 else nn.Linear(*wide)).to(mine.device)
        return self

    def forward(self, x) -> tuple[Tensor, Tensor]:
        """The student's regressed layer and the teacher's, of the same shape."""
        mine, theirs = self._both(x)
        return self.regressor(mine), theirs

    def _both(self, x) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            theirs = _output_of(self._layers[1], self._teacher[0], x)
        mine = _output_of(self._layers[0], self.student, x)
        if mine.ndim != theirs.ndim:
            raise ValueError(f"the two layers give {tuple(mine.shape)} and {tuple(theirs.shape)}: choose two that both give maps, or both features")
        if mine.ndim == 4 and mine.shape[2:] != theirs.shape[2:]:
            side = min(mine.shape[2], theirs.shape[2]), min(mine.shape[3], theirs.shape[3])
            mine, theirs = (F.adaptive_avg_pool2d(maps, side) for maps in (mine, theirs))
        return mine, theirs

    @staticmethod
    def loss(outputs, y: Tensor) -> Tensor:
        """Half the mean squared difference."""
        return F.mse_loss(*outputs) / 2


def _output_of(layer: nn.Module, network: nn.Module, x) -> Tensor:
    """What a layer inside a network gives while the network runs on x."""
    caught: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: caught.append(output))
    try:
        network(x)
    finally:
        handle.remove()
    if not caught:
        raise ValueError(f"the layer {type(layer).__name__} did not run in a forward pass: choose one that does")
    return caught[0]


def learn_hints(student: nn.Module, teacher: nn.Module, train, *, student_layer: nn.Module, teacher_layer: nn.Module, steps: int,
                seed: int = 0, **options) -> training.History:
    """Stage one of FitNets: fit the student's layer (and a regressor, thrown away) to the teacher's; then call `distil`.

    train: (x, y) or (x, None). The student's later layers get no gradient. options go to `training.fit`. Raises ValueError as `Hints` does.
    """
    x, y = train
    model = Hints(student, teacher, student_layer, teacher_layer).prepare(x[:2], seed=seed)
    y = torch.zeros(len(x), dtype=torch.int64) if y is None else y
    return training.fit(model, (x, y), steps=steps, loss=model.loss, seed=seed, **options)
