"""What the training crystals of a model look like, in a few tens of kilobytes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields

import torch

from recinet_ase.elements import electronegativities
from recinet_ase.uncertainty.descriptors import GEOMETRY, Descriptors

COMPONENTS = 32
"""Principal components of the crystal representation that are kept."""

CENTROIDS = 256
"""Cluster centres that stand for the training crystals."""

EXPECTED = ("log_volume", "shortest_bond", "mean_bond", "loneliest_bond")
"""Descriptors whose usual value follows from the composition."""

_RIDGE = 0.5  # pull of each contribution towards none, in crystals
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
        strain: Estimated log ratio of the volume to that at rest ``[B]``; 0 until a
            `StrainEstimate` says more.
    """

    latent: torch.Tensor
    distance: torch.Tensor
    deviation: torch.Tensor
    rarity: torch.Tensor
    strain: torch.Tensor

    def __getitem__(self, rows: torch.Tensor) -> Placement:
        """The chosen crystals."""
        return Placement(*(getattr(self, f.name)[rows] for f in fields(self)))

    @classmethod
    def join(cls, parts: list[Placement]) -> Placement:
        """Several batches as one."""
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def _expected_logs(found: Descriptors) -> torch.Tensor:
    """Logs of the `EXPECTED` descriptors ``[B, len(EXPECTED)]``."""
    columns = [found.geometry[:, GEOMETRY.index(name)] for name in EXPECTED]
    logs = [c if n.startswith("log_") else c.log() for n, c in zip(EXPECTED, columns, strict=True)]
    return torch.stack(logs, dim=1)


def _chemistry(composition: torch.Tensor) -> torch.Tensor:
    """What sizes are taken to be linear in ``[B, 210]``.

    The share of each element, the same times its electronegativity above the crystal's mean
    (an ion is larger or smaller than its atom), and spread and variance of that.
    """
    chi = torch.tensor(electronegativities(), dtype=composition.dtype)
    above = chi - (composition @ chi)[:, None]
    variance = (composition * above**2).sum(1, keepdim=True)
    root = variance.clamp(min=1e-9).sqrt()
    return torch.cat((composition, composition * above, variance, root), dim=1)


@dataclass(frozen=True)
class Reference:
    """Summary of the training crystals; all float32 or smaller.

    Attributes:
        mean: Mean representation ``[d]``.
        projection: Representation to whitened principal components ``[d, K]``, float16.
        centroids: Cluster centres in them ``[M, K]``, float16.
        average: Mean of the logs of `EXPECTED` ``[len(EXPECTED)]``.
        expected: What each of `_chemistry` adds to them ``[210, len(EXPECTED)]``.
        shares: Log share of training crystals that contain each element ``[104]``.
    """

    mean: torch.Tensor
    projection: torch.Tensor
    centroids: torch.Tensor
    average: torch.Tensor
    expected: torch.Tensor
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
        x = _chemistry(train.composition)
        gram = x.T @ x + _RIDGE * torch.eye(x.shape[1], dtype=torch.float64)
        logs = _expected_logs(train)
        average = logs.mean(0)
        expected = torch.linalg.solve(gram, x.T @ (logs - average))
        seen = (train.composition > 0).double()
        return cls(
            mean=mean,
            projection=projection,
            centroids=torch.from_numpy(centroids).half(),
            average=average.float(),
            expected=expected.float(),
            shares=torch.log(seen.mean(0) + _RAREST).float(),
        )

    def place(self, found: Descriptors) -> Placement:
        """Where crystals lie with respect to the training set."""
        latent = (found.latent - self.mean) @ self.projection.double()
        x, shares = found.composition, self.shares.double()
        suggested = self.average.double() + _chemistry(x) @ self.expected.double()
        rarest = torch.where(x > 0, shares, torch.zeros_like(shares)).amin(1)
        return Placement(
            latent=latent,
            distance=torch.cdist(
                latent, self.centroids.double(), compute_mode="donot_use_mm_for_euclid_dist"
            ).amin(1),
            deviation=_expected_logs(found) - suggested,
            rarity=torch.stack((rarest, x @ shares), dim=1),
            strain=torch.zeros_like(rarest),
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        """The arrays by name."""
        return asdict(self)
