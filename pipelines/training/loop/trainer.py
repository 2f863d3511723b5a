"""Ray Train's trainer, which leaves Ctrl-C to the job."""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer


class Trainer(TorchTrainer):  # type: ignore[misc]
    """Ray 2.60 takes SIGINT for itself, for good: Ctrl-C would end the job with exit code 0 and
    nothing said (`DataParallelTrainer._register_sigint_handler`), and after training it would ask
    for an actor that is no more. `pipelines.job.run` knows what to say; the workers end with Ray.
    """

    def _register_sigint_handler(self, controller: Any) -> None:
        """Nothing is registered."""
