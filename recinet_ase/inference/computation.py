"""Batches through the networks of a predictor: all of a prediction that takes the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from recinet_ase.errors import DeviceLostError, reason_of
from recinet_ase.graph.batch import CrystalBatch
from recinet_ase.graph.crystal import GraphSettings
from recinet_ase.inference.preparation import WINDOW, PreparedBatch, PreparedWindow, failed
from recinet_ase.inference.result import Prediction
from recinet_ase.models.ensemble import AnyModel
from recinet_ase.models.property_model import ModelOutput
from recinet_ase.nn.precision import full_precision
from recinet_ase.nn.reciprocal import LatticeSums

_CPU_EDGES = 5_000  # about 100 crystals of 10 atoms: activations stay near the cache
_BYTES_PER_EDGE_AND_WIDTH = 60
_GPU_SHARE = 0.5

Graphs = dict[GraphSettings, CrystalBatch]
"""Graphs of some crystals under each neighbour rule."""


@dataclass(frozen=True)
class Computed:
    """What the networks made of some crystals of a window, on the CPU.

    Attributes:
        places: Their positions in the window.
        outcomes: For each model that was asked, in order.
        error, fault: Why there are none (see `Prediction`), ``""`` otherwise.
    """

    places: list[int]
    outcomes: tuple[ModelOutput, ...] = ()
    error: str = ""
    fault: str = ""

    def __getitem__(self, some: slice) -> Computed:
        """Some of the crystals."""
        outcomes = tuple(ModelOutput(*(part[some] for part in one)) for one in self.outcomes)
        return replace(self, places=self.places[some], outcomes=outcomes)


@dataclass(frozen=True)
class Loaded:
    """Batches of several windows, ready for the networks.

    Attributes:
        batches: Each with its graphs on the device, or None where they would not fit there.
        windows: How many windows.
        room: Places that a window has: those of the k-th begin at ``k room``.
    """

    batches: list[tuple[PreparedBatch, Graphs | None]]
    windows: int
    room: int


class Computation:
    """Some models on a device, and how much of a window goes through them together.

    Args:
        models: The models that answer, on the device.
        device: Where they compute.
        batch_size: Crystals a batch at most, or ``"auto"``: as many as fit a budget of edges that
            follows from the device's memory.
        intervals: Return what calibrations judge by, where a model has one.
    """

    def __init__(
        self,
        models: Sequence[AnyModel],
        device: torch.device,
        batch_size: int | str,
        intervals: bool,
    ) -> None:
        self.models = models
        self.device = device
        self.intervals = intervals
        auto = batch_size == "auto"
        most = math.inf if device.type == "cuda" else WINDOW
        self._most_crystals = most if auto else int(batch_size)
        self._most_edges = self._edge_budget() if auto else math.inf

    def _edge_budget(self) -> float:
        """Edges of a batch that the device's memory has room for."""
        if self.device.type != "cuda":
            return _CPU_EDGES
        free, _ = torch.cuda.mem_get_info(self.device)
        width = max(m.config.network.width for model in self.models for m in model.members)
        return max(_CPU_EDGES, _GPU_SHARE * free / (_BYTES_PER_EDGE_AND_WIDTH * width))

    def batches(self, window: PreparedWindow) -> Iterator[PreparedBatch]:
        """What goes through the network together: as much as fits the memory of the device."""
        for batch in window.batches:
            yield from batch.divided(self._most_crystals, self._most_edges)

    def __call__(
        self, window: PreparedWindow, beginning: Callable[[int], None] = lambda crystals: None
    ) -> Iterator[Computed]:
        """What the networks make of a window: all of a prediction that takes the device.

        Args:
            window: The crystals.
            beginning: Told the number of crystals of each batch before its turn.

        Raises:
            DeviceLostError: If the device has failed.
        """
        for batch in self.batches(window):
            beginning(len(batch))
            yield from self._safely(batch)

    def load(self, windows: Sequence[Sequence[PreparedBatch]]) -> Loaded:
        """The batches of several windows for `together`; another thread may call it meanwhile.

        A GPU does thousands of small crystals in the time of a few hundred, and gets all at once.
        A CPU gains nothing by that, and takes them window by window, so that rounding is that of
        each by itself.
        """
        room = 1 + max((i for some in windows for batch in some for i in batch.places), default=0)
        batches = [
            PreparedBatch([i + k * room for i in batch.places], batch.graphs)
            for k, some in enumerate(windows)
            for batch in some
        ]
        if self.device.type != "cpu" and batches:
            batches = [PreparedBatch.join(batches)]
        divided = self.batches(PreparedWindow(batches=batches))
        return Loaded([(batch, self._moved(batch)) for batch in divided], len(windows), room)

    def together(
        self, loaded: Loaded, beginning: Callable[[int], None] = lambda crystals: None
    ) -> list[list[Computed]]:
        """What the networks make of several windows.

        Args:
            loaded: From `load`.
            beginning: Told the number of crystals of each batch before its turn.

        Raises:
            DeviceLostError: If the device has failed.
        """
        computed: list[list[Computed]] = [[] for _ in range(loaded.windows)]
        for batch, graphs in loaded.batches:
            beginning(len(batch))
            for part in self._safely(batch, graphs):
                owner = torch.tensor(part.places) // loaded.room
                for k in owner.unique().tolist():
                    rows = torch.nonzero(owner == k).flatten()
                    outcomes = tuple(ModelOutput(*(x[rows] for x in one)) for one in part.outcomes)
                    places = [part.places[i] - k * loaded.room for i in rows.tolist()]
                    computed[k].append(replace(part, places=places, outcomes=outcomes))
        return computed

    def _moved(self, batch: PreparedBatch) -> Graphs | None:
        """The graphs of a batch on the device, if they can be there."""
        try:
            return {settings: graphs.to(self.device) for settings, graphs in batch.graphs.items()}
        except Exception:  # who computes meets it again, and says so
            return None

    def _safely(self, batch: PreparedBatch, graphs: Graphs | None = None) -> Iterator[Computed]:
        """Run a batch; where it fails, run its halves, down to the one at fault.

        Args:
            batch: The batch.
            graphs: Its graphs on the device, where they are there already.
        """
        try:
            done = Computed(batch.places, self._outcomes(batch, graphs))
        except Exception as error:
            if self.device.type != "cpu" and _is_lost(error):
                raise DeviceLostError(f"{self.device} has failed ({reason_of(error)})") from None
            failure = failed(Prediction(), error)
            done = Computed(batch.places, error=failure.error, fault=failure.fault)
        if not done.error or len(batch) == 1:
            yield done
            return
        # Out of the handler, which would keep the failed tensors alive.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(batch) // 2
        yield from self._safely(batch.part(slice(None, half)))
        yield from self._safely(batch.part(slice(half, None)))

    @full_precision()
    @torch.inference_mode()
    def _outcomes(
        self, prepared: PreparedBatch, graphs: Graphs | None = None
    ) -> tuple[ModelOutput, ...]:
        """The outcome of each model that is asked, on the CPU."""
        batches = graphs or {s: batch.to(self.device) for s, batch in prepared.graphs.items()}
        sums = {settings: LatticeSums(batch) for settings, batch in batches.items()}
        outcomes = []
        for model in self.models:
            settings = model.config.graph
            outcome = model.outcome(batches[settings], sums[settings])
            if not self.intervals:
                outcome = outcome._replace(spread=outcome.spread[:, :0])
            if not self.intervals or model.calibration is None:
                outcome = outcome._replace(latent=outcome.latent[:, :0])
            outcomes.append(outcome)
        if self.device.type == "cpu":
            return tuple(outcomes)
        # One copy, and so one wait for the device.
        columns = [part for outcome in outcomes for part in outcome]
        parts = torch.cat(columns, dim=1).cpu().split([part.shape[1] for part in columns], dim=1)
        return tuple(ModelOutput(*parts[i : i + 3]) for i in range(0, len(parts), 3))


def _is_lost(error: Exception) -> bool:
    """Whether the device will fail from now on, whatever it is asked (a fault in a kernel)."""
    kind = getattr(torch, "AcceleratorError", None)  # since PyTorch 2.8
    lost = kind is not None and isinstance(error, kind)
    text = str(error)
    return (lost or "CUDA error" in text) and "out of memory" not in text
