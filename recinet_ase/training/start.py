"""The model at the start of a run: fresh, or with the weights of another."""

from __future__ import annotations

from dataclasses import replace

import torch

from recinet_ase.data.dataset import Dataset
from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError
from recinet_ase.graph.crystal import GraphSettings
from recinet_ase.models.property_model import ModelConfig, PropertyModel, as_learnt
from recinet_ase.nn.recinet import DECODER_FIELDS, OUTPUT_AXIS, ReciNetConfig
from recinet_ase.nn.reciprocal import FULL_GRAPHS
from recinet_ase.training.config import TrainingConfig
from recinet_ase.training.elements import known_elements
from recinet_ase.training.labels import PreparedData
from recinet_ase.training.provenance import check_start, provenance
from recinet_ase.training.references import composition, fit_references

# What may differ from the start, besides the decoder.
_FREE = ("dropout", "block_dropout", "composition", "pooling")
_PER_FORMULA = ("ehull_label",)  # divided by the atoms of the formula (docs/concepts/limits.md)


def architecture(config: TrainingConfig, initial: PropertyModel | None) -> ReciNetConfig:
    """The network of a run: what is asked for, or that of the model to start from.

    Raises:
        ReciNetError: If both are given and differ, or the network cannot be trained so.
    """
    outputs = len(config.properties)
    asked_for = dict(config.network).get("multitask", "shared")
    if outputs == 1 and asked_for != "shared":
        raise ReciNetError(
            f"--multitask {asked_for} needs several properties, and this run learns "
            f"{config.properties[0]} alone; name them, as in --props formation_energy,bandgap"
        )
    if outputs == 1 and config.task_weights != "labels":
        raise ReciNetError(
            f"--task-weights {config.task_weights} needs several properties, and this run learns "
            f"{config.properties[0]} alone; name them, as in --props formation_energy,bandgap"
        )
    if initial is None and config.freeze is not None:
        raise ReciNetError(
            f"--freeze {config.freeze} would keep random weights: say with --init which model's "
            "weights to keep"
        )
    network = config.architecture(outputs)
    if initial is not None:
        theirs = replace(initial.config.network, outputs=outputs)
        changed = dict(config.network)
        if changed.get("pooling") == "peak":  # is a decoder, too: that of the start is not kept
            changed = {"multitask": "shared", "gate": False, **changed}
        asked = network if config.size is not None else replace(theirs, **changed)
        decoder = {name: changed.get(name, getattr(theirs, name)) for name in DECODER_FIELDS}
        asked = replace(asked, **decoder)
        free = {name: getattr(asked, name) for name in _FREE}
        theirs = replace(theirs, **free, **decoder)
        if asked != theirs:
            raise ReciNetError(
                f"{config.init} has another architecture than this run asks for; leave out "
                "--size and network options to take it over"
            )
        network = theirs
    if network.reciprocal in FULL_GRAPHS and config.reduce:
        raise ReciNetError(
            f"the {network.reciprocal} reciprocal block needs full graphs: add --full-graphs"
        )
    return network


def build_model(
    config: TrainingConfig,
    dataset: Dataset,
    data: PreparedData,
    name: str,
    network: ReciNetConfig,
    initial: PropertyModel | None = None,
) -> PropertyModel:
    """The model at the start of a run: fresh, or with the weights of ``initial``.

    Targets are standardised by their mean and mean absolute deviation, so that the loss
    is 1 for the model that always answers the mean.

    Raises:
        ReciNetError: If the model to start from may have seen held-out crystals.
    """
    infos = [dataset.info(p) for p in config.properties]
    if initial is not None:
        check_start(initial, config, dataset)
    torch.manual_seed(config.seed)
    references = fit_references(data.store, data.train, config.properties, config.references)
    values = _as_learnt(_without_references(data, config.properties, references), config)
    mean = values.nanmean(0)
    spread = (values - mean).abs().nanmean(0).clamp(min=1e-6)
    model = PropertyModel(
        ModelConfig(
            name=name,
            properties=config.properties,
            units=tuple(info.unit for info in infos),
            mean=tuple(mean.tolist()),
            std=tuple(spread.tolist()),
            elements=known_elements(data, initial),
            network=network,
            graph=GraphSettings(neighbours=config.neighbours),
            functional=tuple(dataset.functional_of(info) for info in infos),
            references=references,
            logarithmic=config.log_targets,
            training=provenance(config, dataset, data, network, initial),
        )
    )
    if network.composition and network.multitask != "shared":
        _start_per_atom(model)
    if initial is not None:
        _take_weights(model, initial, dataset.name)
    return model


def _without_references(
    data: PreparedData, properties: tuple[str, ...], references: dict[str, dict[str, float]]
) -> torch.Tensor:
    """Training labels without the elements' energies, ``[n, outputs]``."""
    values = data.train.values.clone()
    for name, energies in references.items():
        shares = composition(data.store, data.train.index)
        table = torch.tensor([energies.get(s, 0.0) for s in symbols()], dtype=shares.dtype)
        values[:, properties.index(name)] -= (shares @ table).to(values.dtype)
    return values


@torch.no_grad()
def _start_per_atom(model: PropertyModel) -> None:
    """Undo the composition branch's division by the formula's atoms where nothing asks for it."""
    assert model.network.composition is not None
    for at, name in enumerate(model.config.properties):
        if name.partition("[")[0] not in _PER_FORMULA:
            model.network.composition.scale[:, at] = torch.tensor([0.0, 1.0])


def _as_learnt(values: torch.Tensor, config: TrainingConfig) -> torch.Tensor:
    """Training labels ``[n, outputs]``, as logarithms where these are learnt.

    Raises:
        ReciNetError: If a label has no logarithm.
    """
    for name, column in zip(config.properties, values.T, strict=True):
        wrong = int((column <= 0).sum()) if name in config.log_targets else 0
        if wrong:
            raise ReciNetError(
                f"{wrong} training labels of {name} are not above zero and have no logarithm; "
                f"leave {name} out of --log-targets"
            )
    return as_learnt(values, torch.tensor([p in config.log_targets for p in config.properties]))


@torch.no_grad()
def _take_weights(model: PropertyModel, initial: PropertyModel, dataset: str) -> None:
    """Copy a trained network; outputs and branches that it does not have start afresh.

    An output of a dataset by its property alone is that of the same dataset among several.

    So does a decoder of another kind: then the encoder alone is taken over.

    With one output on both sides the last layer is copied whatever the property:
    measured on fine-tuning from formation energy to gaps, that start is the better one.
    """
    ours = model.network.state_dict()
    known, wanted = initial.config.properties, model.config.properties
    wanted = tuple(n if n in known else f"{n}[{dataset}]" for n in wanted)
    same_head = known == wanted or len(known) == len(wanted) == 1
    ours_is, theirs_is = (
        [getattr(m.config.network, field) for field in DECODER_FIELDS] for m in (model, initial)
    )
    for key, value in initial.network.state_dict().items():
        if key not in ours or (key.startswith("head.") and ours_is != theirs_is):
            continue
        axis = next((a for prefix, a in OUTPUT_AXIS.items() if key.startswith(prefix)), None)
        if axis is None or same_head:
            ours[key].copy_(value)
            continue
        for at, name in enumerate(wanted):
            if name in known:
                ours[key].select(axis, at).copy_(value.select(axis, known.index(name)))
