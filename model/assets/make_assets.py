"""Make the embedded models again: `python -m model.assets.make_assets --what coca --minutes 30`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path


def main() -> None:
    """Train one of the three models for a given time; the newest checkpoint is always in place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=("coca", "vae", "unet"), required=True)
    parser.add_argument("--minutes", type=float, default=30.0, help="CPU time of the training")
    parser.add_argument("--resume", action="store_true", help="go on from the weights in DIR")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()

    import cv2
    import torch

    logging.basicConfig(level=logging.ERROR)
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    if arguments.what == "vae":
        from model.assets.train_vae import train_vae

        train_vae(
            arguments.out / "embedded_vae", arguments.minutes, arguments.seed, arguments.resume
        )
    elif arguments.what == "unet":
        from model.assets.train_unet import train_unet

        train_unet(arguments.out / "unet", arguments.minutes, arguments.seed, arguments.resume)
    else:
        from model.assets.train_coca import train_coca

        train_coca(arguments.out, arguments.minutes, arguments.seed, arguments.resume)


if __name__ == "__main__":
    main()
