"""What a training run is told; saved with the run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recinet_ase.data.splits import PUBLISHED_SEED, SplitRule
from recinet_ase.errors import UnknownNameError
from recinet_ase.graph.neighbours import SHELL_NEIGHBOURS
from recinet_ase.models.files import read_settings, write_json
from recinet_ase.nn.recinet import SIZES, ReciNetConfig

OPTIMIZERS = ("adamw", "muon")
TASK_WEIGHTS = ("labels", "equal", "uncertainty")
DEFAULT_SIZE = "small"
DEFAULT_BATCH = 64
LEARNING_RATE = 1e-3
FINE_TUNING_RATE = 3e-4
FINE_TUNING_PATIENCE = 10
CONFIG_VERSION = 2
LEFT_OUT_IDS_FILE = "left_out_ids.txt"
"""A run folder's own copy of the list of ids that ``leave_out`` named."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of one run.

    Attributes:
        dataset: Dataset name, several joined by ``+``, or path of own data.
        properties: Canonical property names; none is the dataset's first. Of several datasets, one
            that names its source (``"formation_energy[mp]"``), or else that of all of them.
        labels: Further labels from files, ``PROPERTY[SOURCE]=PATH`` each
            (see `recinet_ase.data.joint.Labels`); learnt if ``properties`` names them.
        target: Key or column of the labels in own data, or None to find it by the property.
        unit: Unit of the labels in own data; needed for a property that is not registered.
        split: ``"published"``, ``"random"``, ``"composition"``, ``"fold:0"``..., or None: the
            dataset's own.
        split_seed: Seed of random splits.
        max_bad: Largest share of unusable rows with which training starts.
        size: Network size, a key of `recinet_ase.nn.recinet.SIZES`; None is that of ``init``,
            or ``"small"``.
        network: Changes to that size's architecture, by field name.
        neighbours: Neighbours that set an atom's cutoff (whole shells).
        reduce: Train on symmetry-reduced graphs.
        epochs: Passes over the training set.
        batch_size: Crystals a step; None is 64, or what makes four steps of a smaller set.
        optimizer: ``"adamw"``, or ``"muon"`` for the matrices inside the network and AdamW for all
            else (see `recinet_ase.training.optimizers`).
        learning_rate: Peak of the OneCycle schedule; None is `LEARNING_RATE`, or a lower one for a
            run that starts from a model (`FINE_TUNING_RATE`).
        weight_decay: AdamW's decoupled weight decay.
        clip: Largest gradient norm.
        ema_decay: Decay of the moving average of the weights.
        precision: ``"float32"`` or ``"bfloat16"`` matrix products.
        validate_every: Epochs between validations.
        checkpoint_minutes: Minutes between checkpoints inside an epoch.
        seed: Seed of initial weights, order of batches and dropout.
        init: Model to start from (name or folder), or None.
        hold_out: Properties whose validation and test ids are kept out of training too.
        leave_out: Text file with ids, one a line, that are kept out of training, or None.
        log_targets: Properties of which the decimal logarithm is learnt; predictions are in the
            property's unit all the same.
        limit: Use only this many training crystals (a seeded sample), or None.
        patience: Stop after this many validations without a better one; 0 never does, None is 0,
            or `FINE_TUNING_PATIENCE` for a run that starts from a model.
        freeze: Parts of the network that keep their weights: ``"embedding"``, ``"encoder"``
            (everything but the head), or ``"blocks:N"`` (embedding and first N blocks).
        task_weights: What counts alike in a run of several properties: ``"labels"`` (every
            label), ``"equal"`` (every property) or ``"uncertainty"`` (every property's relative
            error; see `recinet_ase.training.weighting`).
        balance: Weight of the experts' imbalance in the loss (``multitask = "moe"``).
        references: Properties from which a sum of elements' energies is taken before learning
            (see `recinet_ase.training.references`).
        calibrate: Fit intervals and a domain at the end, where there are validation crystals
            enough.
        recipe: Name of the recipe that the settings were taken from, or None.
        kind: What is learnt: ``"property"``, or ``"forces"``
            (`recinet_ase.forces.settings.ForceTrainingConfig`).
        version: Version of this layout.
    """

    dataset: str = "jarvis"
    properties: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    target: str | None = None
    unit: str | None = None
    split: str | None = None
    split_seed: int = PUBLISHED_SEED
    max_bad: float = 0.05
    size: str | None = None
    network: tuple[tuple[str, Any], ...] = ()
    neighbours: int = SHELL_NEIGHBOURS
    reduce: bool = True
    epochs: int = 60
    batch_size: int | None = None
    optimizer: str = "adamw"
    learning_rate: float | None = None
    weight_decay: float = 1e-5
    clip: float = 1.0
    ema_decay: float = 0.999
    precision: str = "float32"
    validate_every: int = 2
    checkpoint_minutes: float = 5.0
    seed: int = 0
    init: str | None = None
    hold_out: tuple[str, ...] = ()
    leave_out: str | None = None
    log_targets: tuple[str, ...] = ()
    limit: int | None = None
    patience: int | None = None
    freeze: str | None = None
    task_weights: str = "labels"
    balance: float = 0.01
    references: tuple[str, ...] = ()
    calibrate: bool = True
    recipe: str | None = None
    kind: str = "property"
    version: int = CONFIG_VERSION

    def __post_init__(self) -> None:
        if self.task_weights not in TASK_WEIGHTS:
            raise UnknownNameError("task weighting", self.task_weights, TASK_WEIGHTS)
        if self.optimizer not in OPTIMIZERS:
            raise UnknownNameError("optimizer", self.optimizer, OPTIMIZERS)

    @property
    def rule(self) -> SplitRule | None:
        """How the crystals are divided, None for the dataset's own way."""
        return None if self.split is None else SplitRule.parse(self.split, self.split_seed)

    @property
    def peak_rate(self) -> float:
        """Peak learning rate."""
        default = LEARNING_RATE if self.init is None else FINE_TUNING_RATE
        return default if self.learning_rate is None else self.learning_rate

    @property
    def validations_waited(self) -> int:
        """Validations without a better one after which to stop, 0 for never."""
        default = 0 if self.init is None else FINE_TUNING_PATIENCE
        return default if self.patience is None else self.patience

    def batch_for(self, crystals: int) -> int:
        """Crystals a step, for so many training crystals."""
        return self.batch_size or max(1, min(DEFAULT_BATCH, crystals // 4))

    def architecture(self, outputs: int) -> ReciNetConfig:
        """The network to train."""
        size = self.size or DEFAULT_SIZE
        if size not in SIZES:
            raise UnknownNameError("size", size, SIZES)
        changed = SIZES[size].to_dict() | dict(self.network) | {"outputs": outputs}
        return ReciNetConfig.from_dict(changed)

    def save(self, path: Path) -> None:
        """Write as json, atomically."""
        write_json(path, self)

    @classmethod
    def load(cls, path: Path) -> TrainingConfig:
        """Read what `save` wrote.

        A relative ``leave_out`` is the file of that name beside ``path``, wherever the run folder
        has been moved to; earlier releases wrote an absolute one, which is kept.

        Raises:
            ReciNetError: If the file is missing or not a training configuration.
        """
        tuples = ("properties", "labels", "hold_out", "references", "log_targets")
        config = read_settings(cls, path, CONFIG_VERSION, tuples)
        if config.leave_out is None:
            return config
        return replace(config, leave_out=str(path.parent.absolute() / config.leave_out))
