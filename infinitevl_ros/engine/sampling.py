"""How the next token is chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Sampling colder than this overflows and is greedy in all but name.
MIN_TEMPERATURE = 1e-3


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn: greedy at temperature 0, else by temperature and nucleus `top_p`.

    `json_schema`: the text of a JSON Schema that the answer must fit; empty for free text.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    json_schema: str = ''

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f'max_tokens is {self.max_tokens}, expected at least 1')
        if not 0.0 <= self.temperature < float('inf'):
            raise ValueError(f'temperature is {self.temperature}, expected 0 or more')
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f'top_p is {self.top_p}, expected more than 0 and at most 1')
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ValueError(f'seed is {self.seed}, expected 0 to 2**63 - 1')

    @property
    def greedy(self) -> bool:
        return self.temperature <= MIN_TEMPERATURE

    def chances(self) -> Iterator[float]:
        """Numbers in [0, 1) that decide the draws; the same seed, the same numbers."""
        random = torch.Generator()
        if self.seed is None:
            random.seed()
        else:
            random.manual_seed(self.seed)
        while True:
            yield float(torch.rand((), generator=random))


def draw(scores: Tensor, temperature: Tensor, top_p: Tensor, chance: Tensor) -> Tensor:
    """A token [1] by its score [vocabulary]: `chance` [1] in [0, 1) picks among the most likely.

    These are the fewest that hold `top_p` [1] of the probability; temperature [1]. No value
    leaves the device.
    """
    weight, order = torch.softmax(scores / temperature, -1).sort(descending=True)
    below = weight.cumsum(-1) - weight
    weight = weight.masked_fill(below >= top_p, 0.0)
    total = weight.cumsum(-1)
    pick = (total <= chance * total[-1]).sum(-1, keepdim=True)
    # Rounding may leave the chance at the very top: the last token that can be drawn.
    return order[pick.minimum((weight > 0).sum(-1, keepdim=True) - 1)]
