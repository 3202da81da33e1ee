"""The state of every random number generator that training draws from, to be taken and put back."""

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Randomness:
    """All generators at one moment."""

    python: Any
    numpy: Any
    cpu: torch.Tensor
    gpus: tuple[torch.Tensor, ...]

    @classmethod
    def now(cls) -> "Randomness":
        """As they are now."""
        gpus = tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else ()
        return cls(random.getstate(), np.random.get_state(), torch.random.get_rng_state(), gpus)

    def restore(self) -> None:
        """Put them back to this moment."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.random.set_rng_state(self.cpu)
        if self.gpus:
            torch.cuda.set_rng_state_all(list(self.gpus))
