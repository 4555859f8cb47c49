"""How the errors of several properties are added up to one loss."""

from __future__ import annotations

import torch

from recinet_ase.nn.norm import over_processes
from recinet_ase.training.config import TASK_WEIGHTS

_MEMORY = 0.99  # of the moving error of a property, per step


class TaskWeights:
    """Weight of a label of each property in the loss.

    * ``"labels"``: one. A property with many labels counts more than one with few.
    * ``"equal"``: inverse to the property's number of labels, so that in the course of an
      epoch all properties count alike (linear scalarisation with equal weights).
    * ``"uncertainty"``: inverse to the property's present error. This is the weighting by
      homoscedastic uncertainty of Kendall et al. (2018) for an L1 loss: with a Laplace
      distribution of scale ``b_t`` for the errors of property t, the negative log-likelihood
      is ``sum |e| / b_t + log b_t``. Its minimum over ``b_t`` is the mean absolute error, which
      a moving average over the steps follows; nothing has to be learnt by gradient. What is
      minimised is then the sum of log errors: relative progress counts the same for an easy
      property and a hard one.

    The weights are scaled so that the mean over all labels is one, which keeps the size of
    the gradients.

    Args:
        kind: One of the above.
        labels: Number of training labels of each property ``[outputs]``.
    """

    def __init__(self, kind: str, labels: torch.Tensor) -> None:
        assert kind in TASK_WEIGHTS
        self.kind = kind
        self.labels = labels.to(torch.get_default_dtype())
        self.state = torch.ones(2, len(labels), device=labels.device)  # errors, counts

    @property
    def values(self) -> torch.Tensor:
        """The weights ``[outputs]``."""
        if self.kind == "labels":
            return torch.ones_like(self.labels)
        if self.kind == "equal":
            weight = 1 / self.labels
        else:
            weight = self.state[1] / self.state[0].clamp(min=1e-12)
        return weight * self.labels.sum() / (weight * self.labels).sum()

    @torch.no_grad()
    def update(self, errors: torch.Tensor, known: torch.Tensor) -> None:
        """Let a step's errors in.

        Args:
            errors: Absolute errors ``[B, outputs]`` of this process, zero where no label is.
            known: Where there is one.
        """
        if self.kind == "uncertainty":
            sums = over_processes(torch.stack((errors.sum(0), known.sum(0).to(errors.dtype))))
            self.state = _MEMORY * self.state + (1 - _MEMORY) * sums
