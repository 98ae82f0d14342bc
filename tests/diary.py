"""A model of words whose gates are made by hand: one constant, one that the answers need."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from gladient.ops import gated_delta_rule, gated_linear_attention

__all__ = ["Diary", "texts"]

DAY, WORDS = 0, 6


class Diary(nn.Module):
    """Every day repeats a word. Head 1 counts the day's words, head 0 the last few; the one that is asked is 1."""

    def __init__(self, erase: bool = False) -> None:
        super().__init__()
        self.weigh = nn.Parameter(torch.tensor([0.05, 1.0]))
        self.erase = erase

    def forward(self, input_ids: Tensor) -> Tensor:
        new = input_ids == DAY
        v = functional.one_hot(input_ids, WORDS).float() * ~new[..., None]
        v, key = v[:, :, None].expand(-1, -1, 2, -1), torch.ones(*input_ids.shape, 2, 1)
        gates = torch.where(new, 1e-4, 1.0).log()
        g = torch.stack([torch.full_like(gates, -0.7), gates], 2)
        if self.erase:
            o, _ = gated_delta_rule(key, key, v, torch.full(g.shape, 0.1), g=g)
        else:
            o, _ = gated_linear_attention(key, key, v, g=g)
        return torch.einsum("bthv,h->btv", o, self.weigh).clamp_max(4.0)


def texts(count: int, seed: int, lengths: tuple[int, ...] = (24, 30)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for number in range(count):
        days = [int(torch.randint(1, WORDS, (), generator=generator)) for _ in range(5)]
        tokens = [token for day in days for token in (DAY, *[day] * 5)]
        found.append(torch.tensor(tokens[: lengths[number % len(lengths)]]))
    return found
