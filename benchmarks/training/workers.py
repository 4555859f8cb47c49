"""One trainer in a process of its own, run step by step by `benchmarks/training/steps.py`.

python benchmarks/training/workers.py NAME SAMPLE.json

A command is a line on standard input: ``N`` trains N steps, ``flops N`` counts their matrix
products too. The answer is a line of json. Everything that a trainer prints goes to
standard error. This file imports nothing of the package at the top: a rival may need
another interpreter.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


class Meter:
    """Gives out steps as they are asked for, and times them.

    Args:
        channel: Where answers go.
        batch_size: Crystals a step.
    """

    def __init__(self, channel: TextIO, batch_size: int) -> None:
        self.channel, self.batch_size = channel, batch_size
        self.steps = self.left = 0
        self.loading = 0.0
        self.counter: Any = None

    def ready(self, parameters: int, version: str) -> None:
        """Report that preparation is over and wait for the first command."""
        self._send(parameters=parameters, version=version)
        self._wait()

    def done(self) -> None:
        """A step is finished; wait for another command if none is left."""
        self.left -= 1
        if self.left:
            return
        flops = 0
        if self.counter is not None:
            self.counter.__exit__(None, None, None)
            flops, self.counter = self.counter.get_total_flops(), None
        self._send(
            wall=time.perf_counter() - self.wall,
            cpu=time.process_time() - self.cpu,
            loading=self.loading,
            crystals=self.steps * self.batch_size,
            flops=flops,
            memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )
        self._wait()

    def batches(self, loader: Any) -> Iterator[Any]:
        """Batches of a loader without end; time spent inside the loader is data loading."""
        first = True
        while True:
            source = iter(loader)
            while True:
                if not first:
                    self.done()
                first = False
                start = time.process_time()
                batch = next(source, None)
                if batch is None:
                    first = True
                    break
                self.loading += time.process_time() - start
                yield batch

    def _send(self, **answer: object) -> None:
        self.channel.write(json.dumps(answer) + "\n")
        self.channel.flush()

    def _wait(self) -> None:
        line = sys.stdin.readline().split()
        if not line:
            os._exit(0)  # whatever the rival's loop is doing
        self.steps = self.left = int(line[-1])
        self.loading = 0.0
        if line[0] == "flops":
            from torch.utils.flop_counter import FlopCounterMode

            self.counter = FlopCounterMode(display=False)
            self.counter.__enter__()
        self.wall, self.cpu = time.perf_counter(), time.process_time()


class EndlessLoader:
    """A training loader that hands out metered batches, for loops that are not ours."""

    def __init__(self, loader: Any, meter: Meter, length: int) -> None:
        self.loader, self.meter, self.length = loader, meter, length
        self.dataset = getattr(loader, "dataset", None)

    def __iter__(self) -> Iterator[Any]:
        return self.meter.batches(self.loader)

    def __len__(self) -> int:
        return self.length


def recinet(sample: dict[str, Any], meter: Meter, size: str, precision: str, full: str) -> None:
    """The package's own trainer, on symmetry-reduced (or full) graphs."""
    import torch

    import recinet_ase
    from recinet_ase.data.conversion import build_store
    from recinet_ase.data.store import StoreSettings
    from recinet_ase.models.property_model import ModelConfig, PropertyModel
    from recinet_ase.training.config import TrainingConfig
    from recinet_ase.training.labels import Targets
    from recinet_ase.training.property_task import PropertyTask
    from recinet_ase.training.trainer import Trainer

    class MeteredStore:
        """The store, with the time that batches take."""

        def __init__(self, store: Any) -> None:
            self.store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self.store, name)

        def to(self, device: Any) -> MeteredStore:
            return MeteredStore(self.store.to(device))

        def batch(self, *args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            batch = self.store.batch(*args, **kwargs)
            meter.loading += time.process_time() - start
            return batch

    config = TrainingConfig(
        size=size,
        precision=precision,
        batch_size=meter.batch_size,
        reduce=not full,
        checkpoint_minutes=1e9,
    )
    network = config.architecture(1)
    settings = StoreSettings(
        reduce=config.reduce,
        k_max=network.k_max,
        n_waves=network.n_waves,
        wave_norm=network.wave_norm,
    )
    store = build_store(zip(sample["ids"], sample["records"], strict=True), settings)
    values = torch.tensor(sample["labels"]).reshape(-1, 1)
    torch.manual_seed(0)
    model = PropertyModel(
        ModelConfig(
            name="benchmark",
            properties=("formation_energy",),
            units=("eV/atom",),
            mean=(float(values.mean()),),
            std=(float((values - values.mean()).abs().mean()),),
            elements=tuple(store.elements(torch.arange(len(store)))),
            network=network,
        )
    )
    # Many times the sample in one epoch: no validation falls into a measurement.
    index = torch.tensor([store.position[key] for key in sample["ids"]]).repeat(1000)
    train = Targets(index, values.repeat(1000, 1))
    val = Targets(index[:1], values[:1])
    with tempfile.TemporaryDirectory() as folder:
        metered: Any = MeteredStore(store)
        trainer = Trainer(
            PropertyTask(model, metered, train, val, config),
            config,
            Path(folder),
            on_step=lambda progress: meter.done(),
        )
        meter.ready(_parameters(model), recinet_ase.__version__)
        trainer.fit()


def naive(sample: dict[str, Any], meter: Meter) -> None:
    """The paper's formulation as printed (`benchmarks/training/naive.py`), AdamW, L1."""
    import torch
    from naive import NaiveReciNet, naive_graphs
    from torch.nn import functional
    from torch_geometric.loader import DataLoader

    from recinet_ase.elements import element_features

    torch.manual_seed(0)
    graphs = naive_graphs(sample["records"], sample["labels"])
    loader = DataLoader(graphs, batch_size=meter.batch_size, shuffle=True, drop_last=True)
    table = torch.tensor(element_features(), dtype=torch.float32)
    model = NaiveReciNet(table)
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-4, weight_decay=1e-5)
    model.train()
    meter.ready(_parameters(model), torch.__version__)
    for data in meter.batches(loader):
        optimizer.zero_grad()
        loss = functional.l1_loss(model(data), data.y)
        loss.backward()
        optimizer.step()
        loss.item()


def megnet(sample: dict[str, Any], meter: Meter) -> None:
    """MEGNet of matgl with its own converter, data set, loader, Lightning module and trainer."""
    import lightning
    import matgl
    from matgl.ext.pymatgen import Structure2Graph, get_element_list
    from matgl.graph.data import MGLDataLoader, MGLDataset, collate_fn_graph
    from matgl.models import MEGNet
    from matgl.utils.training import ModelLightningModule
    from pymatgen.core import Structure

    structures = [
        Structure(a["lattice_mat"], [e.strip() for e in a["elements"]], a["coords"])
        for a in (record["atoms"] for record in sample["records"])
    ]
    elements = get_element_list(structures)
    data = MGLDataset(
        structures=structures,
        labels={"Eform": sample["labels"]},
        converter=Structure2Graph(element_types=elements, cutoff=4.0),
        save_cache=False,
    )
    loader, _ = MGLDataLoader(
        train_data=data,
        val_data=data,
        collate_fn=collate_fn_graph,
        batch_size=meter.batch_size,
        num_workers=0,
        drop_last=True,
    )
    model = MEGNet(element_types=elements, cutoff=4.0)
    module = ModelLightningModule(model=model, loss="l1_loss")
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    endless = EndlessLoader(loader, meter, 10**6)
    meter.ready(_parameters(model), f"matgl {matgl.__version__}")
    trainer.fit(module, train_dataloaders=endless)


def alignn(sample: dict[str, Any], meter: Meter, angles: str) -> None:
    """ALIGNN's published size through its own graphs, LMDB data set and `train_dgl` loop.

    ``angles`` is the bond length up to which bond angles enter the line graph, or ``all``.
    """
    from importlib.metadata import version

    from alignn.config import TrainingConfig
    from alignn.data import get_train_val_loaders
    from alignn.models.alignn_atomwise_pure import ALIGNNAtomWisePure
    from alignn.train import train_dgl

    folder = tempfile.mkdtemp()
    data = [
        {"jid": key, "atoms": record["atoms"], "target": label}
        for key, record, label in zip(
            sample["ids"], sample["records"], sample["labels"], strict=True
        )
    ]
    config = TrainingConfig(
        dataset="user_data",
        target="target",
        neighbor_strategy="pure_torch",
        cutoff=8.0,
        max_neighbors=12,
        three_body_cutoff=8.0 if angles == "all" else float(angles),
        batch_size=meter.batch_size,
        epochs=1,
        learning_rate=1e-3,
        weight_decay=1e-5,
        num_workers=0,
        output_dir=folder,
        model={
            "name": "alignn_atomwise_pure",
            "alignn_layers": 4,
            "gcn_layers": 4,
            "atom_input_features": 92,
            "hidden_features": 256,
            "calculate_gradient": False,
        },
    )
    held_out = meter.batch_size
    train, val, test, prepare = get_train_val_loaders(
        dataset_array=data + data[: 2 * held_out],
        target="target",
        n_train=len(data),
        n_val=held_out,
        n_test=held_out,
        line_graph=True,
        batch_size=config.batch_size,
        atom_features=config.atom_features,
        neighbor_strategy=config.neighbor_strategy,
        id_tag="jid",
        pin_memory=False,
        workers=0,
        filename=f"{folder}/",
        use_canonize=config.use_canonize,
        cutoff=config.cutoff,
        max_neighbors=config.max_neighbors,
        three_body_cutoff=config.three_body_cutoff,
        keep_data_order=True,
        output_dir=folder,
        use_pure_torch=True,
    )
    model = ALIGNNAtomWisePure(config.model)
    meter.ready(_parameters(model), f"alignn {version('alignn')}")
    endless = EndlessLoader(train, meter, 10**6)
    train_dgl(config, model=model, train_val_test_loaders=[endless, val, test, prepare])


def _parameters(model: Any) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


INSTALL = {"megnet": "pip install matgl", "alignn": "pip install alignn, see --help"}
WORKERS = {"recinet": recinet, "naive": naive, "megnet": megnet, "alignn": alignn}


def main() -> None:
    # Rivals print to standard output; the answers keep a channel of their own.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, str(Path(__file__).parent))
    sample = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    name, *options = sys.argv[1].split(":")
    try:
        import torch

        torch.set_num_threads(sample["threads"])
        WORKERS[name](sample, Meter(channel, sample["batch_size"]), *options)
    except ImportError as error:
        if name not in INSTALL:
            raise
        channel.write(json.dumps({"not_installed": f"{INSTALL[name]}; {error}"}) + "\n")
        channel.flush()


if __name__ == "__main__":
    main()
