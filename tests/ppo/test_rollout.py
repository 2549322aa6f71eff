"""What a rollout is made of, part by part, and that every setting reaches its place."""

from __future__ import annotations

import pytest
import torch

from pipelines.errors import TrainingError
from pipelines.models.forward import TokenBatch
from pipelines.ppo.engines.transformers_engine import TransformersEngine
from pipelines.ppo.objective import advantages_and_returns, k1, normalized_scores, token_rewards
from pipelines.ppo.rollout import Scored, finite_scores
from tests.ppo.test_update import EOS, SETTINGS, TOKENIZER, gradients, make, prompts, rollout_of


def test_masks_come_from_lengths() -> None:
    batch = TokenBatch.of([[0, 5], [EOS]], [[0, EOS, 7], [EOS]], EOS)
    assert batch.attention_mask.int().tolist() == [[1, 1, 1, 1, 1], [0, 1, 1, 0, 0]]
    assert batch.response_mask.int().tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.finished.tolist() == [False, True]


def test_logprobs_and_values_by_hand_from_plain_transformers() -> None:
    roles = make("llama", "full")
    torch.nn.init.normal_(roles.value.head.weight)
    rollout = rollout_of(roles)
    for row, prompt in enumerate(prompts()):
        response = rollout.responses[row, : int(rollout.response_mask[row].sum())].tolist()
        ids, p, n = torch.tensor([[*prompt["prompt_ids"], *response]]), len(prompt["prompt_ids"]), len(response)
        with torch.no_grad():
            logits = roles.policy.model(input_ids=ids).logits[0] / SETTINGS.temperature
            hidden = roles.value.model.model(input_ids=ids).last_hidden_state[0]
            value = roles.value.head(hidden).squeeze(-1)
            score = roles.reward.head(roles.reward.model.model(input_ids=ids).last_hidden_state[0, -1])
        told = logits.log_softmax(-1)[range(p - 1, p + n - 1), response]
        torch.testing.assert_close(rollout.logprobs[row, :n], told, rtol=0, atol=1e-5)
        torch.testing.assert_close(rollout.values[row, :n], value[p - 1 : p + n - 1], rtol=0, atol=1e-5)
        torch.testing.assert_close(rollout.scores[row], score[0], rtol=0, atol=1e-5)


def test_a_rollout_is_put_together_from_its_parts() -> None:
    """With a policy that has moved: every k1, coefficient, gamma, lambda and clip reaches its place."""
    roles = make("llama", "full")
    torch.nn.init.normal_(roles.value.head.weight)
    with torch.no_grad():
        for parameter in roles.policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    settings = SETTINGS.model_copy(update={"kl_coef": 0.3, "gamma": 0.9, "lam": 0.5, "reward_clip": 0.1})
    rollout = rollout_of(roles, settings)
    mask = rollout.response_mask
    torch.testing.assert_close(rollout.logprobs, roles.policy_logprobs(rollout, 0.7, 8))
    kl = k1(rollout.logprobs, rollout.ref_logprobs)
    assert float(kl[mask].abs().max()) > 1e-3
    score, _ = normalized_scores(rollout.scores, rollout.finished, mean=0.5, std=2.0, clip=0.1, missing_eos_penalty=1.0)
    rewards = token_rewards(score, kl, mask, 0.3)
    torch.testing.assert_close(rollout.rewards, rewards)
    advantages, returns = advantages_and_returns(rewards, rollout.values, mask, 0.9, 0.5)
    torch.testing.assert_close(rollout.advantages, advantages)
    torch.testing.assert_close(rollout.returns, returns)


def test_checkpointing_with_adapters_that_differ() -> None:
    found = []
    for saving in (False, True):
        roles = make("llama", "lora", sft=True)
        rollout = rollout_of(roles)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in [*roles.policy.parameters(), *roles.value.parameters()]:
                parameter.add_(0.2 * torch.randn_like(parameter))
        if saving:
            roles.enable_gradient_checkpointing()
        found.append(gradients(roles, rollout, SETTINGS))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_the_engine_answers_with_the_policy_at_its_temperature() -> None:
    roles = make("llama", "lora", sft=True)
    with torch.no_grad():
        for parameter in roles.policy.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    ids = prompts()[1]["prompt_ids"]
    drawn = TransformersEngine(roles, EOS, 1, 0.5, 2000).generate([ids] * 4000, seed=0)
    share = torch.bincount(torch.tensor([row[0] for row in drawn]), minlength=400)[: len(TOKENIZER)] / 4000
    with torch.no_grad(), roles.policy.active() as model:
        expected = (model(input_ids=torch.tensor([ids])).logits[0, -1] / 0.5).softmax(-1)
    assert float((share - expected).abs().max()) < 0.04
    assert float((share - expected).abs().sum()) < 0.25


def test_settings_reach_the_step() -> None:
    roles = make("llama", "full")
    rollout = rollout_of(roles)
    with torch.no_grad():
        roles.value.head.weight.normal_()
        for parameter in roles.policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    base = gradients(roles, rollout, SETTINGS)
    half = len(roles.policy.parameters())
    for change, part in (
        ({"vf_coef": 1e-4}, slice(half, None)),
        ({"cliprange": 1e-4}, slice(0, half)),
        ({"cliprange_value": 1e-4}, slice(half, None)),
        ({"max_grad_norm": 1e-3}, slice(0, half)),
    ):
        other = gradients(roles, rollout, SETTINGS.model_copy(update=change))
        assert any(not torch.allclose(a, b) for a, b in zip(base[part], other[part], strict=True)), change
    settings = SETTINGS.model_copy(update={"max_grad_norm": 1e-3})
    policy = gradients(roles, rollout, settings)[:half]
    assert float(torch.cat([g.flatten() for g in policy]).norm()) <= 1.001e-3


def test_a_score_that_is_not_finite_is_refused_wherever_it_is_asked_for() -> None:
    with pytest.raises(TrainingError, match="score that is not finite"):
        finite_scores(Scored(torch.tensor([1.0, float("nan")])))
