"""ReciNet as one of matgl's models."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch_geometric.data import Data

from recinet_ase.elements import symbols
from recinet_ase.errors import ReciNetError, UnknownNameError
from recinet_ase.matgl._base import DEFAULT_ELEMENTS, GraphConverter, MatGLModel
from recinet_ase.matgl.converter import ReciNetGraphConverter
from recinet_ase.matgl.graphs import atomic_numbers, crystal_batch
from recinet_ase.models.property_model import ModelConfig, PropertyModel
from recinet_ase.nn.recinet import SIZES
from recinet_ase.properties import property_of


class ReciNetModel(MatGLModel):
    """The network for matgl's trainer, ``save`` and ``matgl.load_model``.

    >>> model = ReciNetModel(element_types, size="small")           # to be trained
    >>> model = ReciNetModel.from_recinet("jarvis-mbj")             # with a shipped model's weights
    >>> model.predict_structure(structure)

    matgl's layout holds the constructor's arguments and a state dictionary; both are plain data,
    which ``matgl.load_model`` reads with torch's restricted unpickler. It imports this module
    by name, so that recinet-ase must be installed where the model is loaded.

    Args:
        element_types: Elements that ``node_type`` counts.
        size: Architecture by name (``"tiny"``, ``"small"``, ``"paper"``), if there is no
            configuration.
        config: Content of a model folder's ``config.json``: architecture, properties,
            normalisation. Without it the model has one output, which is not scaled (the trainer's
            ``data_mean`` and ``data_std`` are there for that).
        bounded: `predict_structure` keeps to the physical bounds of the configuration's
            properties. False once the model was trained: its output is what the trainer scales
            then, and no property.

    Attributes:
        property_model: The network with its normalisation.

    Raises:
        UnknownNameError: For an unknown size or element.
        ReciNetError: If the configuration is broken.
    """

    __version__ = 1

    numbers: torch.Tensor

    def __init__(
        self,
        element_types: Sequence[str] = DEFAULT_ELEMENTS,
        size: str = "small",
        config: dict[str, Any] | None = None,
        bounded: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.save_args(locals(), kwargs)
        self.element_types = tuple(element_types)
        self.bounded = bounded
        if config is None:
            if size not in SIZES:
                raise UnknownNameError("size", size, SIZES)
            chosen = ModelConfig(
                name="matgl",
                properties=("target",),
                units=("",),
                mean=(0.0,),
                std=(1.0,),
                elements=tuple(sorted(int(z) for z in atomic_numbers(self.element_types))),
                network=SIZES[size],
            )
        else:
            chosen = ModelConfig.from_json(json.dumps(config), "the model's configuration")
        self.property_model = PropertyModel(chosen)
        self.register_buffer("numbers", atomic_numbers(self.element_types), persistent=False)

    @classmethod
    def from_recinet(cls, model: str | Path | PropertyModel) -> ReciNetModel:
        """A shipped model (by name), a model folder or a loaded model, for matgl.

        Raises:
            UnknownNameError: For an unknown model.
            ReciNetError: If a file is damaged, or it is an ensemble.
        """
        if not isinstance(model, PropertyModel):
            from recinet_ase.pretrained import load_network

            model = load_network(model)
        elements = tuple(symbols()[z] for z in model.config.elements)
        new = cls(element_types=elements, config=json.loads(model.config.to_json()))
        new.property_model.load_state_dict(model.state_dict())
        return new.eval()

    def to_recinet(
        self,
        name: str,
        property_name: str | None = None,
        unit: str = "",
        *,
        data_mean: float = 0.0,
        data_std: float = 1.0,
        elements: Sequence[str] | None = None,
        functional: str = "",
    ) -> PropertyModel:
        """The trained network for calculator and screening; ``save(folder)`` writes it.

        What it was trained on before stays on its card (``training["started_from"]``); figures of
        an earlier model do not, nor does its calibration.

        Args:
            name: Name of the model.
            property_name: Property that its number is, from the registry or one's own; by
                default what the model has.
            unit: Unit of one's own property.
            data_mean: What the trainer was given as ``data_mean``.
            data_std: What the trainer was given as ``data_std``, above 0.
            elements: Elements that the training data hold; any other is refused. All of
                ``element_types`` by default.
            functional: Level of theory of the training data.

        Raises:
            ReciNetError: If the name cannot be a property's, several outputs are renamed,
                ``data_std`` is not positive, or ``data_mean`` is not 0 where a logarithm was
                learnt.
        """
        old = self.property_model.config
        config = replace(
            _scaled(old, data_mean, data_std),
            name=name,
            elements=tuple(sorted(atomic_numbers(elements or self.element_types).tolist())),
            functional=(functional,) * len(old.properties) if functional else old.functional,
            training={"started_from": old.training} if old.training else {},
        )
        if property_name is not None:
            if len(old.properties) != 1:
                raise ReciNetError(f"the model has the outputs {', '.join(old.properties)}")
            info = property_of(property_name, unit)
            config = replace(
                config,
                properties=(info.name,),
                units=(info.unit,),
                references=dict(zip((info.name,), config.references.values(), strict=False)),
                logarithmic=(info.name,) if config.logarithmic else (),
            )
        model = PropertyModel(config)
        model.network.load_state_dict(self.property_model.network.state_dict())
        return model.eval()

    def graph_converter(self) -> ReciNetGraphConverter:
        """The converter whose graphs the network was made for."""
        return ReciNetGraphConverter(self.element_types, settings=self.property_model.config.graph)

    def forward(self, g: Data, state_attr: torch.Tensor | None = None, **_: Any) -> torch.Tensor:
        """Predictions for one graph or a batch, without axes of length one (matgl's habit).

        ``feature_dict`` then holds the crystals' representations ``readout`` ``[B, d]`` and the
        predictions ``final``.

        Args:
            g: Graph of `ReciNetGraphConverter`, or any of matgl's with ``lattice`` added.
            state_attr: Ignored; there for matgl's trainer.

        Raises:
            StructureError: If the graph has no lattice.
        """
        batch = crystal_batch(g, self.numbers)
        # Unbounded: what is compared with labels is this times ``data_std`` plus ``data_mean``.
        output, latent = self.property_model.unclipped(batch)
        if self.training and torch.is_grad_enabled() and self.bounded:
            self.bounded = self._init_args["bounded"] = False
        output = torch.squeeze(output)
        # Without gradients, so that the model can be copied after a forward pass.
        self.feature_dict = {"readout": latent.detach(), "final": output.detach()}
        return output

    def predict_structure(
        self,
        structure: Any,
        state_attr: torch.Tensor | None = None,
        graph_converter: GraphConverter | None = None,
    ) -> torch.Tensor:
        """Prediction for one structure, in evaluation mode (``matgl.load_model`` leaves it off).

        Args:
            structure: pymatgen ``Structure``, ASE ``Atoms``, or another accepted structure.
            state_attr: Ignored.
            graph_converter: Another converter than `graph_converter`.

        Raises:
            StructureError: If it is no valid crystal, or has an element outside
                ``element_types``.
        """
        graph, lattice, _ = (graph_converter or self.graph_converter()).get_graph(structure)
        graph.lattice = lattice
        weight = next(self.parameters())
        graph = graph.to(weight.device).apply(
            lambda x: x.to(weight.dtype) if x.is_floating_point() else x
        )
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                output = self(graph)
                if self.bounded:
                    model = self.property_model
                    output = output.clamp(model.minimum.squeeze(), model.maximum.squeeze())
                return output
        finally:
            self.train(training)


def _scaled(config: ModelConfig, mean: float, std: float) -> ModelConfig:
    """The configuration whose properties are ``mean + std`` times those of another.

    Raises:
        ReciNetError: If there is none.
    """
    if not std > 0:
        raise ReciNetError(f"data_std must be positive, not {std:g}")
    if config.logarithmic and mean:
        raise ReciNetError(
            f"{config.name} learnt the logarithm of {', '.join(config.logarithmic)}, to which no "
            f"constant can be added: train with data_mean=0 (not {mean:g})"
        )
    shift = math.log10(std)
    learnt = [name in config.logarithmic for name in config.properties]
    return replace(
        config,
        mean=tuple(
            x + shift if log else mean + std * x for x, log in zip(config.mean, learnt, strict=True)
        ),
        std=tuple(x if log else std * x for x, log in zip(config.std, learnt, strict=True)),
        references={
            name: {s: x if name in config.logarithmic else std * x for s, x in values.items()}
            for name, values in config.references.items()
        },
    )
