"""Losses by which a small network learns from a large one."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


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
