"""Prompts have the distribution that their setting states."""

import numpy as np
import pytest
import torch

from gladient.prompts import MultitaskSetting, PromptLayout, PromptSampler

ANISOTROPIC = MultitaskSetting(
    n=[3, 1, 2],
    R=[[1, 0.5, -0.3], [0.5, 1, 0.1], [-0.3, 0.1, 1]],
    r=[0.3, -0.2, 0.4],
    Sigma=[[2, 0.6], [0.6, 0.5]],
    sigma2=0.4,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mean_z(samples: torch.Tensor, expected: float) -> float:
    return ((samples.mean() - expected) / (samples.std() / len(samples) ** 0.5)).item()


def test_layout_places_examples_delimiters_and_query() -> None:
    layout = PromptLayout.of(ANISOTROPIC)
    assert layout.length == 6 + 3 + 1
    assert layout.blocks == (slice(0, 3), slice(4, 5), slice(6, 8))
    context = layout.template[:, 3:]
    assert np.linalg.matrix_rank(context) == 4
    delimiters = [3, 5, 8]
    assert context.argmax(1).tolist() == [0, 0, 0, 1, 0, 2, 0, 0, 3, 0]
    assert set(range(layout.length)) - {i for b in layout.blocks for i in range(b.start, b.stop)} == {*delimiters, 9}


@pytest.mark.parametrize("delimiters", [True, False])
def test_marks_tell_examples_delimiters_and_query_apart(delimiters: bool) -> None:
    after = {"shared": 1, "query": 2, "task": 4}
    wanted = {"shared": [0] * 6, "query": [1] * 6, "task": [1, 1, 1, 2, 3, 3]}
    for marks, examples in wanted.items():
        layout = PromptLayout.of(ANISOTROPIC, marks=marks, delimiters=delimiters)
        context = layout.template[:, 3:]
        assert (context.sum(1) == 1).all()
        places = [i for block in layout.blocks for i in range(block.start, block.stop)]
        assert context[places].argmax(1).tolist() == examples
        assert context[-1].argmax() == 0
        own = [after[marks] + k for k in range(3)] if delimiters else []
        assert context[list(layout.delimiter_places)].argmax(1).tolist() == own
        assert layout.length == (10 if delimiters else 7)
        assert len(layout.data_columns) + len(layout.delimiter_columns) == context.shape[1]
        assert sorted([*places, *layout.delimiter_places, layout.length - 1]) == list(range(layout.length))


def test_layouts_of_one_setting_hold_the_same_examples() -> None:
    paper = PromptSampler([ANISOTROPIC]).draw(5, [generator()])
    bare = PromptSampler([ANISOTROPIC], marks="task", delimiters=False).draw(5, [generator()])
    examples = [i for i in range(10) if i not in (3, 5, 8)]
    assert torch.equal(paper.tokens[0, :, examples, :3], bare.tokens[0, :, :, :3])
    assert torch.equal(paper.targets, bare.targets)


def test_unknown_marks() -> None:
    with pytest.raises(ValueError, match="choose one of shared, query, task"):
        PromptLayout(n=(2, 1), d=1, marks="both")


def test_without_context_the_same_prompt_has_no_features() -> None:
    full = PromptSampler([ANISOTROPIC]).draw(5, [generator()])
    bare = PromptSampler([ANISOTROPIC], contextual=False).draw(5, [generator()])
    assert torch.equal(full.tokens[..., :3], bare.tokens)
    assert torch.equal(full.targets, bare.targets)


def test_delimiters_and_query_carry_no_label() -> None:
    tokens = PromptSampler([ANISOTROPIC]).draw(7, [generator()]).tokens[0]
    assert (tokens[:, [3, 5, 8], :3] == 0).all()
    assert (tokens[:, -1, 2] == 0).all()


def test_same_generator_state_same_prompts() -> None:
    sampler = PromptSampler([ANISOTROPIC])
    first, again, other = (sampler.draw(4, [generator(seed)]) for seed in (3, 3, 4))
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.tokens, other.tokens)


def test_groups_are_what_each_generator_draws_alone() -> None:
    sampler = PromptSampler([ANISOTROPIC, ANISOTROPIC])
    both = sampler.draw(4, [generator(1), generator(2)])
    for g in range(2):
        alone = sampler.draw(4, [generator(g + 1)])
        assert torch.equal(both.tokens[g], alone.tokens[0])
        assert torch.equal(both.targets[2 * g : 2 * g + 2], alone.targets)


def test_second_moments_are_those_of_the_setting() -> None:
    """Features, labels and the correlations between tasks, each mean against its value by z-score."""
    sampler = PromptSampler([ANISOTROPIC], dtype=torch.float64)
    prompts = sampler.draw(200_000, [generator(5)])
    tokens, target = prompts.tokens[0], prompts.targets[0]
    Sigma = torch.as_tensor(ANISOTROPIC.Sigma.copy())
    inverse = torch.linalg.inv(Sigma)
    for i in range(2):
        for j in range(2):
            assert abs(mean_z(tokens[:, 6, i] * tokens[:, 6, j], Sigma[i, j].item())) < 4
    assert abs(mean_z(tokens[:, 6, 2] ** 2, ANISOTROPIC.M)) < 4
    assert abs(mean_z(target**2, ANISOTROPIC.M)) < 4
    # y x has mean Σβ given β, so (y_i x_i)ᵀ Σ⁻² (y_j x_j) has mean d · E[β_iᵀβ_j]/d
    first = {0: 0, 1: 4, 2: 6}  # a token of each task
    moments = {k: tokens[:, t, 2, None] * tokens[:, t, :2] @ inverse for k, t in first.items()}
    query = target[:, None] * tokens[:, -1, :2] @ inverse
    for k in range(3):
        assert abs(mean_z((moments[k] * query).sum(1), 2 * ANISOTROPIC.r[k])) < 4
        for other in range(k):
            assert abs(mean_z((moments[k] * moments[other]).sum(1), 2 * ANISOTROPIC.R[k, other])) < 4


def test_shared_contexts_keep_each_settings_own_correlation() -> None:
    settings = [MultitaskSetting.isotropic([2, 2], r, d=3) for r in ([0.0, 1.0], [0.8, -0.2])]
    prompts = PromptSampler(settings, dtype=torch.float64).draw(200_000, [generator(6)])
    assert prompts.tokens.shape[0] == 1
    x, y = prompts.tokens[0, ..., :3], prompts.tokens[0, ..., 3]
    for setting, target in zip(settings, prompts.targets, strict=True):
        for k, token in enumerate((0, 3)):
            product = ((y[:, token, None] * x[:, token]) * (target[:, None] * x[:, -1])).sum(1)
            assert abs(mean_z(product, 3 * setting.r[k])) < 4


def test_certain_query_task_has_no_spread() -> None:
    """r = (0, 1): the query's task is the second task, so noiseless labels fit it exactly."""
    prompts = PromptSampler([MultitaskSetting.isotropic([1, 3], [0, 1], d=2)], dtype=torch.float64).draw(
        6, [generator()]
    )
    x, y = prompts.tokens[0, :, 2:5, :2], prompts.tokens[0, :, 2:5, 2]
    beta = torch.linalg.lstsq(x, y[..., None]).solution
    torch.testing.assert_close(
        (prompts.tokens[0, :, -1:, :2] @ beta)[:, 0, 0], prompts.targets[0], rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("n", MultitaskSetting.isotropic([2, 3], [0.1, 0.2], d=3)),
        ("R", MultitaskSetting.isotropic([2, 2], [0.1, 0.2], d=3, R=[[1, 0.5], [0.5, 1]])),
        ("Sigma", MultitaskSetting([2, 2], np.eye(2), [0.1, 0.2], 2 * np.eye(3))),
        ("sigma2", MultitaskSetting.isotropic([2, 2], [0.1, 0.2], d=3, sigma2=0.5)),
    ],
)
def test_settings_that_cannot_share_contexts(name: str, other: MultitaskSetting) -> None:
    with pytest.raises(ValueError, match=f"differ in {name}"):
        PromptSampler([MultitaskSetting.isotropic([2, 2], [0.1, 0.2], d=3), other])


def test_no_setting() -> None:
    with pytest.raises(ValueError, match="no setting"):
        PromptSampler([])
