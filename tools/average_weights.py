"""The mean of the weights of two runs, the second of which started from the first.

    python tools/average_weights.py runs/eform-1 runs/eform-2 runs/eform

Both ends of a short second cycle of the learning rate lie in one valley, and their mean is
closer to its floor than either (stochastic weight averaging, Izmailov et al. 2018).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from recinet_ase.models.property_model import PropertyModel


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    first, second = (PropertyModel.load(p) for p in (arguments.first, arguments.second))
    if first.config.network != second.config.network:
        raise SystemExit("the runs have different networks")
    other = first.network.state_dict()
    mean = {
        key: 0.5 * (value + other[key]) if value.is_floating_point() else value
        for key, value in second.network.state_dict().items()
    }
    second.network.load_state_dict(mean)
    names = [arguments.first.name, arguments.second.name]
    second.config = replace(
        second.config, training={**second.config.training, "weights_averaged_over": names}
    )
    second.save(arguments.target, half=False)


if __name__ == "__main__":
    main()
