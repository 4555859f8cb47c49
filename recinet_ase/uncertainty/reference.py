"""What the training crystals of a model look like, in a few tens of kilobytes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields

import torch

from recinet_ase.uncertainty.descriptors import GEOMETRY, Descriptors

COMPONENTS = 32
"""Principal components of the crystal representation that are kept."""

CENTROIDS = 256
"""Cluster centres that stand for the training crystals."""

EXPECTED = ("log_volume", "shortest_bond", "mean_bond", "loneliest_bond")
"""Descriptors whose usual value follows from the composition."""

_RIDGE = 0.05  # crystals' worth of "as the average element" for an element's own share
_RAREST = 1e-4


@dataclass(frozen=True)
class Placement:
    """Crystals seen from the training set (B crystals).

    Attributes:
        latent: Whitened principal components of the representation ``[B, K]``.
        distance: Distance to the nearest cluster centre in them ``[B]``.
        deviation: Log ratio of each of `EXPECTED` to what the composition suggests
            ``[B, len(EXPECTED)]``.
        rarity: Log share of training crystals with each element: of the rarest one, and
            the mean over the atoms ``[B, 2]``.
    """

    latent: torch.Tensor
    distance: torch.Tensor
    deviation: torch.Tensor
    rarity: torch.Tensor

    def __getitem__(self, rows: torch.Tensor) -> Placement:
        """The chosen crystals."""
        return Placement(*(getattr(self, f.name)[rows] for f in fields(self)))


def _expected_logs(found: Descriptors) -> torch.Tensor:
    """Logs of the `EXPECTED` descriptors ``[B, len(EXPECTED)]``."""
    columns = [found.geometry[:, GEOMETRY.index(name)] for name in EXPECTED]
    logs = [c if n.startswith("log_") else c.log() for n, c in zip(EXPECTED, columns, strict=True)]
    return torch.stack(logs, dim=1)


@dataclass(frozen=True)
class Reference:
    """Summary of the training crystals; all float32 or smaller.

    Attributes:
        mean: Mean representation ``[d]``.
        projection: Representation to whitened principal components ``[d, K]``, float16.
        centroids: Cluster centres in them ``[M, K]``, float16.
        elements: Contribution of each element to the logs of `EXPECTED`
            ``[104, len(EXPECTED)]``.
        shares: Log share of training crystals that contain each element ``[104]``.
    """

    mean: torch.Tensor
    projection: torch.Tensor
    centroids: torch.Tensor
    elements: torch.Tensor
    shares: torch.Tensor

    @classmethod
    def fit(cls, train: Descriptors, seed: int = 0) -> Reference:
        """Summarise a sample of the training crystals."""
        from scipy.cluster.vq import kmeans2

        mean = train.latent.mean(0).float()
        centred = train.latent - mean
        _, values, axes = torch.linalg.svd(centred, full_matrices=False)
        # Directions that hardly vary would only magnify rounding errors.
        kept = int((values > 1e-2 * values[0]).sum().clamp(max=COMPONENTS))
        scale = values[:kept] / math.sqrt(len(train))
        projection = (axes[:kept].T / scale).half()
        places = (centred @ projection.double()).numpy()
        count = min(CENTROIDS, max(1, len(train) // 8))
        centroids, _ = kmeans2(places, count, minit="++", iter=30, seed=seed)
        x, seen = train.composition, (train.composition > 0).double()
        gram = x.T @ x + _RIDGE * torch.eye(x.shape[1], dtype=torch.float64)
        logs = _expected_logs(train)
        average = logs.mean(0)
        elements = torch.linalg.solve(gram, x.T @ (logs - average)) + average
        return cls(
            mean=mean,
            projection=projection,
            centroids=torch.from_numpy(centroids).half(),
            elements=elements.float(),
            shares=torch.log(seen.mean(0) + _RAREST).float(),
        )

    def place(self, found: Descriptors) -> Placement:
        """Where crystals lie with respect to the training set."""
        latent = (found.latent - self.mean) @ self.projection.double()
        x, shares = found.composition, self.shares.double()
        rarest = torch.where(x > 0, shares, torch.zeros_like(shares)).amin(1)
        return Placement(
            latent=latent,
            distance=torch.cdist(
                latent, self.centroids.double(), compute_mode="donot_use_mm_for_euclid_dist"
            ).amin(1),
            deviation=_expected_logs(found) - x @ self.elements.double(),
            rarity=torch.stack((rarest, x @ shares), dim=1),
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """The arrays by name."""
        return asdict(self)
