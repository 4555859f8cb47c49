"""ReciNet under matgl's own trainer, then as an ASE calculator (needs recinet-ase[matgl])."""

import sys
from pathlib import Path

import numpy as np
from ase.db import connect
from pymatgen.io.ase import AseAtomsAdaptor

from recinet_ase import ReciNetCalculator

try:
    import lightning
    from matgl.ext.pymatgen import get_element_list
    from matgl.graph.data import MGLDataLoader, MGLDataset
    from matgl.utils.training import ModelLightningModule

    from recinet_ase.matgl import ReciNetGraphConverter, ReciNetModel
except ImportError as error:
    sys.exit(f"error: this example needs matgl ({error}): pip install 'recinet-ase[matgl]'")

rows = list(connect(Path(__file__).parent / "crystals.json").select())
crystals = [row.toatoms() for row in rows]
structures = [AseAtomsAdaptor.get_structure(atoms) for atoms in crystals]
volumes = np.array([atoms.get_volume() / len(atoms) for atoms in crystals])
elements = get_element_list(structures)

data = MGLDataset(
    structures=structures,
    labels={"volume": volumes.tolist()},
    converter=ReciNetGraphConverter(elements),
    save_cache=False,
)
loader, _ = MGLDataLoader(train_data=data, val_data=data, batch_size=10, num_workers=0)
model = ReciNetModel(elements, size="tiny")
scale = {"data_mean": float(volumes.mean()), "data_std": float(volumes.std())}
trainer = lightning.Trainer(
    max_epochs=20,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(ModelLightningModule(model, loss="l1_loss", lr=3e-3, **scale), loader)

calc = ReciNetCalculator(model.to_recinet("volumes", "volume_per_atom", "A^3", **scale))
errors = [
    calc.get_property("volume_per_atom", a) - v for a, v in zip(crystals, volumes, strict=True)
]
print(f"mean error on the training crystals: {np.abs(errors).mean():.2f} A^3 per atom,")
print(f"always the mean: {np.abs(volumes - volumes.mean()).mean():.2f}")
