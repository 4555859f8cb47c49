"""ReciNet as one of matgl's models."""

from __future__ import annotations

import json
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
        **kwargs: Any,
    ) -> None:
        super().__init__()
        self.save_args(locals(), kwargs)
        self.element_types = tuple(element_types)
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
            data_std: What the trainer was given as ``data_std``.
            elements: Elements that the training data hold; any other is refused. All of
                ``element_types`` by default.
            functional: Level of theory of the training data.

        Raises:
            ReciNetError: If the name cannot be a property's, or several outputs are renamed.
        """
        old = self.property_model.config
        config = replace(
            old,
            name=name,
            mean=tuple(data_mean + data_std * x for x in old.mean),
            std=tuple(data_std * x for x in old.std),
            references={
                p: {symbol: data_std * x for symbol, x in values.items()}
                for p, values in old.references.items()
            },
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
        output, latent = self.property_model.explain(batch)
        if not self.training:  # a physical lower bound would stop the gradient
            output = torch.maximum(output, self.property_model.minimum)
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
                return self(graph)
        finally:
            self.train(training)
