"""The quick way to the highest logits against `topk`."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sublayer.generation import top as top_module
from sublayer.generation.top import GROUPS, top


def assert_topk(logits: torch.Tensor, count: int) -> None:
    values, tokens = top(logits, count)
    expected_values, expected_tokens = logits.topk(count) if count > 1 else logits.max(-1, keepdim=True)
    assert torch.equal(values, expected_values)
    assert torch.equal(tokens, expected_tokens)


@given(
    rows=st.integers(1, 5),
    vocabulary=st.sampled_from([1, 7, GROUPS, 2 * GROUPS - 1, 2 * GROUPS, 2 * GROUPS + 1, 5 * GROUPS - 1, 3000]),
    count=st.sampled_from([1, 2, 8, 40, GROUPS - 1, GROUPS]),
    different=st.sampled_from([2, 50, 10**6]),
    seed=st.integers(0, 10**6),
)
def test_top_is_topk(rows: int, vocabulary: int, count: int, different: int, seed: int) -> None:
    """With many equal numbers, and with few."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(different, (rows, vocabulary), generator=generator).float()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(top_module, "WORTHWHILE", 0)
        assert_topk(logits, min(count, vocabulary))


@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("rows", [1, 32])
def test_top_of_many_logits(rows: int, count: int) -> None:
    assert_topk(torch.randn(rows, 8001, generator=torch.Generator().manual_seed(rows)), count)


def test_one_row_that_ends_all_others() -> None:
    """Ruled out tokens are -inf, and equal."""
    logits = torch.full((32, 8000), float("-inf"))
    logits[:, 17] = 1.0
    assert_topk(logits, 4)


def test_the_highest_may_all_stand_in_one_group_or_past_the_last() -> None:
    logits = torch.randn(20, 20 * GROUPS + 5, generator=torch.Generator().manual_seed(0))
    logits[::2, 3::GROUPS] += 100.0
    logits[1::2, -5:] += 100.0
    assert_topk(logits, 5)
