"""What a training run measured."""
from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass
class History:
    """What a run measured.

    rows: one dict per evaluation point: step (steps done), loss (mean training loss since the row before, without
    the penalty), lr (the largest rate of any group), and validation_loss, validation_accuracy where measured.
    losses: the training loss of every step. seconds: time spent in training steps up to each row, evaluation and
    checkpoints not counted. Two histories are equal when all but the seconds is.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list, compare=False)

    @property
    def last(self) -> dict[str, Any]:
        """The last row, with its seconds; empty before the first evaluation point."""
        return {**self.rows[-1], "seconds": self.seconds[-1]} if self.rows else {}

    def frame(self):
        """The rows as a pandas DataFrame, seconds included."""
        import pandas as pd
        return pd.DataFrame([{**row, "seconds": seconds} for row, seconds in zip(self.rows, self.seconds, strict=True)])

    def to_json(self) -> str:
        """The history as JSON text, the loss of every step included."""
        return json.dumps({"rows": self.rows, "losses": self.losses, "seconds": self.seconds})

    @classmethod
    def from_json(cls, text: str) -> History:
        """The history that `to_json` wrote."""
        return cls(**json.loads(text))
