"""Every control of `ppo`, seen at what a training does with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from pipelines.config.ppo_section import PpoSection
from pipelines.data.chat import ChatEncoder
from pipelines.ppo.engines import RolloutEngine
from pipelines.ppo.engines.transformers_engine import TransformersEngine
from pipelines.ppo.learner import Learner
from pipelines.ppo.metrics import update_metrics
from pipelines.ppo.rollout import PpoContext, TextReward, Timing
from pipelines.ppo.train import Training
from pipelines.ppo.types import Normalization, Rollout, Update
from pipelines.scorers.function import FunctionScorer
from tests.ppo.cast import cast, learner
from tests.ppo.test_update import EOS, SETTINGS, TOKENIZER, FixedEngine, gradients, make, prompts, rollout_of
from tests.recorders import Recorder
from tests.tiny import tiny_llama


@dataclass
class Bench:
    """A training whose parts are noted; by a normalization of its own, as of a reward model."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    rollouts: list[Rollout] = field(default_factory=list)
    results: list[Update] = field(default_factory=list)
    reporter: Recorder = field(default_factory=Recorder)
    prompts: list[list[tuple[int, ...]]] = field(default_factory=list)

    def run(self, *, scale: float = 1.0, engine: RolloutEngine | None = None, **settings: Any) -> Bench:
        section = PpoSection(
            **{
                **SETTINGS.model_dump(include=set(CHANGED)),
                "total_episodes": 24,
                "learning_rate": 1e-3,
                **settings,
            }
        )
        shared = section.value_model == "shared"
        roles = cast(tiny_llama(TOKENIZER), shared=shared, valued=section.has_value_model)
        own = engine or TransformersEngine(roles, EOS, 7, 0.7, 8, section.top_k, section.top_p)
        bench = self

        class Noting:
            def generate(self, ids: Sequence[Sequence[int]], *, seed: int) -> list[list[int]]:
                bench.prompts.append([tuple(prompt) for prompt in ids])
                return own.generate(ids, seed=seed)

        encoder = ChatEncoder(TOKENIZER)
        training = Training(
            context=PpoContext(
                roles=roles,
                engine=Noting(),
                reward=TextReward(
                    FunctionScorer("toy", lambda p, c: [scale * text.count("a") for text in c], "toy:score"), encoder
                ),
                encoder=encoder,
                eos_token_id=EOS,
                settings=section,
                accelerator=Accelerator(cpu=True),
                seed=0,
            ),
            prompts=prompts(),
            held_out=[],
            reporter=self.reporter,
            log=lambda name, values: self.lines.append(dict(values)) if name == "metrics" else None,
            normalization=Normalization(0.5, 2.0),
        )
        with pytest.MonkeyPatch.context() as patch:
            update = Learner.update

            def noting(learner: Learner, rollout: Rollout, *args: Any, **kwargs: Any) -> Update:
                self.rollouts.append(rollout)
                self.results.append(update(learner, rollout, *args, **kwargs))
                return self.results[-1]

            patch.setattr(Learner, "update", noting)
            training.run()
        return self

    def of(self, name: str) -> list[float]:
        return [line[name] for line in self.lines]


CHANGED = (
    *("rollout_batch_size", "num_mini_batches", "num_ppo_epochs", "per_device_train_batch_size"),
    *("rollout_forward_batch_size", "response_length", "temperature", "learning_rate", "value_learning_rate"),
)


def penalty(bench: Bench, update: int) -> float:
    """The coefficient that the rewards of a rollout hold: of all tokens that carry no score."""
    rollout = bench.rollouts[update]
    kl = rollout.logprobs - rollout.ref_logprobs
    inner = rollout.response_mask.clone()
    inner[torch.arange(len(inner)), rollout.response_mask.sum(-1) - 1] = False
    return float(-(rollout.rewards[inner] * kl[inner]).sum() / (kl[inner] ** 2).sum())


def test_a_fixed_coefficient_is_logged_and_used() -> None:
    bench = Bench().run(kl_coef=0.3)
    assert bench.of("objective/kl_coef") == [0.3] * 3
    assert penalty(bench, 1) == pytest.approx(0.3, rel=1e-3)


def test_an_adaptive_coefficient_is_logged_and_used() -> None:
    bench = Bench().run(kl_coef=0.3, kl_target=1e-6, kl_horizon=8, learning_rate=1e-2)
    kl, told = bench.of("objective/kl"), bench.of("objective/kl_coef")
    assert kl[0] == 0.0 < kl[1]
    assert told == pytest.approx([0.3, 0.3 * 0.8, 0.3 * 0.8 * 1.2])
    assert [penalty(bench, 1), penalty(bench, 2)] == pytest.approx(told[1:], rel=1e-3)
    assert bench.of("objective/non_score_reward")[2] == pytest.approx(-told[2] * kl[2])


def test_the_controller_waits_for_the_policy_to_train() -> None:
    bench = Bench().run(kl_coef=0.3, kl_target=6.0, value_warmup_updates=2)
    assert bench.of("objective/kl_coef") == [0.3] * 3
    assert bench.of("objective/kl") == [0.0] * 3
    assert [result.policy_grad_norm > 0 for result in bench.results] == [False, False, True]


def test_an_update_that_goes_too_far_stops_before_the_next_step() -> None:
    far = Bench().run(learning_rate=5e-2)
    assert far.of("policy/stopped_early") == [0.0] * 3
    assert far.of("val/optimizer_steps") == [4.0] * 3
    bench = Bench().run(learning_rate=5e-2, kl_early_stop=1e-4)
    assert bench.of("policy/stopped_early") == [1.0] * 3
    # the first minibatch is at KL 0 and is stepped on; the second shows how far that went
    assert bench.of("val/optimizer_steps") == [1.0] * 3
    assert all(result.approx_kl > 0.5e-4 for result in bench.results)


def test_both_learning_rates_are_logged() -> None:
    bench = Bench().run(warmup_updates=1, value_learning_rate=2e-3)
    assert bench.of("lr") == pytest.approx([5e-4, 1e-3, 5e-4])
    assert bench.of("value_lr") == pytest.approx([1e-3, 2e-3, 1e-3])


def test_a_prompt_is_answered_so_many_times_in_one_rollout() -> None:
    one, four = Bench().run(), Bench().run(num_generations=4)
    assert all(len(set(batch)) == 8 for batch in one.prompts)
    for batch in four.prompts:
        assert [batch[0]] * 4 + [batch[4]] * 4 == batch
        assert batch[0] != batch[4]
    assert four.prompts[0][0] == one.prompts[0][0]
    assert four.prompts[1][0] == one.prompts[0][2], "the next rollout goes on where the last one ended"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("none", lambda scores: scores),
        ("model", lambda scores: (scores - 0.5) / 2.0),
        ("running", lambda scores: (scores - scores.mean()) / scores.std(correction=0)),
    ],
)
def test_scores_are_normalized_as_asked_and_clipped(kind: str, expected: Any) -> None:
    bench = Bench().run(
        engine=FixedEngine(), reward_normalization=kind, reward_clip=0.4, missing_eos_penalty=0.25, total_episodes=8
    )
    (rollout,) = bench.rollouts
    assert len(set(rollout.scores.tolist())) > 1
    wanted = expected(rollout.scores)
    share = float((wanted.abs() > 0.4).float().mean())
    assert 0 < share < 1 or kind != "model"
    assert bench.of("objective/scores_clipped") == [pytest.approx(share)]
    wanted = wanted.clamp(-0.4, 0.4) - 0.25 * (~rollout.finished)
    torch.testing.assert_close(rollout.rewards.sum(-1), wanted, rtol=0, atol=1e-5)  # KL is 0 in the first rollout


def test_truncated_responses_take_no_part() -> None:
    roles = make("llama", "full")
    settings = SETTINGS.model_copy(update={"mask_truncated_completions": True})
    rollout = rollout_of(roles, settings)
    assert not rollout.finished.all()
    assert torch.equal(rollout.loss_mask, rollout.response_mask & rollout.finished[:, None])
    assert torch.equal(rollout_of(roles).loss_mask, rollout.response_mask)
    keep = rollout.finished.nonzero().squeeze(-1)
    for one, two in zip(
        gradients(roles, rollout, settings), gradients(roles, rollout.rows(keep.tolist()), settings), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
    # nor do they move the whitening of the others
    spoiled = replace(rollout, advantages=torch.where(rollout.loss_mask, rollout.advantages, 1e3))
    found = []
    for each in (rollout, spoiled):
        fresh = make("llama", "full")
        found.append(learner(fresh, settings).update(each, torch.Generator().manual_seed(0)))
    assert found[0] == found[1]


def test_a_rollout_without_a_finished_response_changes_nothing() -> None:
    class NeverEnds:
        def generate(self, ids: Sequence[Sequence[int]], *, seed: int) -> list[list[int]]:
            return [[20 + seed % 50 + row] * 7 for row in range(len(ids))]

    bench = Bench().run(engine=NeverEnds(), mask_truncated_completions=True)
    assert bench.of("val/optimizer_steps") == [0.0] * 3
    assert bench.of("objective/kl") == [0.0] * 3, "no step was taken"
    assert all(math.isfinite(value) for line in bench.lines for value in line.values())


def test_a_minibatch_without_a_finished_response_is_left_out() -> None:
    roles = make("llama", "full")
    settings = SETTINGS.model_copy(
        update={"mask_truncated_completions": True, "num_mini_batches": 8, "learning_rate": 1e-5}
    )
    rollout = rollout_of(roles, settings)
    result = learner(roles, settings).update(rollout, torch.Generator().manual_seed(0))
    assert result.optimizer_steps == 2 * int(rollout.finished.sum()) < 16
    assert result.first_ratio_deviation < 1e-5
    assert result.ratio_mean == pytest.approx(1.0, abs=0.05), "the minibatches left out are no zeros in the means"


@pytest.mark.parametrize("settings", [{"top_k": 5}, {"top_p": 0.9}])
def test_a_cut_sampling_is_told(settings: dict[str, Any]) -> None:
    def told(**settings: Any) -> bool:
        return any("ppo.top_k" in text for text in Bench().run(total_episodes=8, **settings).reporter.warned)

    assert told(**settings)
    assert not told()


@pytest.mark.parametrize("settings", [{"top_k": 1}, {"top_p": 1e-6}])
def test_the_engine_cuts_what_it_samples(settings: dict[str, Any]) -> None:
    roles = make("llama", "full")
    ids = [prompts()[0]["prompt_ids"]] * 16
    drawn = TransformersEngine(roles, EOS, 5, 5.0, 16, **settings).generate(ids, seed=0)
    assert len({tuple(response) for response in drawn}) == 1


def test_figures_are_over_all_processes() -> None:
    """Two halves of a rollout, summed as two processes would, against the whole."""
    roles = make("llama", "full")
    with torch.no_grad():
        for parameter in roles.policy.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    rollout = rollout_of(roles)
    result = learner(roles, SETTINGS).update(rollout, torch.Generator().manual_seed(0))
    whole = update_metrics(rollout, result, 0.05, Timing(1.0, 2.0), 3.0)
    halves = [rollout.rows(range(3)), rollout.rows(range(3, 8))]

    # what one half sums at its n-th reduction is added to what the other sums there
    def told(first: Rollout, second: Rollout) -> dict[str, float]:
        seen: list[torch.Tensor] = []
        previous: list[torch.Tensor] = []
        for _ in range(4):  # a later sum depends on earlier ones, so it settles after a few rounds
            for each in (second, first):
                seen, other = [], iter(previous)

                def reduce(total: torch.Tensor, seen: Any = seen, other: Any = other) -> torch.Tensor:
                    seen.append(total)
                    return total + next(other, torch.zeros_like(total))

                metrics = update_metrics(each, result, 0.05, Timing(1.0, 2.0), 3.0, reduce)
                previous = seen
        return metrics

    both = told(*halves)
    for name, value in whole.items():
        assert both[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name
