"""The learner around a policy and a value model that are tables: every figure of a step can be worked by hand.

Fast enough to judge hundreds of mutants (`make mutants`).
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipelines.config.ppo_section import PpoSection
from pipelines.errors import TrainingError
from pipelines.models.forward import TokenBatch
from pipelines.ppo.learner import Learner
from pipelines.ppo.types import Rollout, Update

SETTINGS = PpoSection(
    num_ppo_epochs=1,
    num_mini_batches=1,
    per_device_train_batch_size=8,
    temperature=0.5,
    whiten_advantages=False,
    cliprange=0.2,
    cliprange_value=0.5,
    vf_coef=0.1,
    max_grad_norm=10.0,
)
NAN = float("nan")
# two responses, of two tokens and of one; what stands in the pad never counts
MASK = torch.tensor([[True, True], [True, False]])
RATIO = torch.tensor([[1.5, 0.5], [1.1, NAN]])
ADVANTAGES = torch.tensor([[1.0, -1.0], [2.0, NAN]])
# clip .2: -1.2 and .8 are the clipped ones, -2.2 is not
TOKEN_LOSS = torch.tensor([[-1.2, 0.8], [-2.2, 0.0]])
TOKEN_KL = torch.tensor([[0.5 - math.log(1.5), -0.5 - math.log(0.5)], [0.1 - math.log(1.1), 0.0]])
ENTROPY = torch.tensor([[0.1, 0.2], [0.6, NAN]])
# value clip .5: the first moved from 0 to 1 and counts as .5, (.5 - 2)^2; the others moved nowhere
VALUES, OLD_VALUES = torch.tensor([[1.0, 2.0], [3.0, NAN]]), torch.tensor([[0.0, 2.0], [3.0, NAN]])
RETURNS = torch.tensor([[2.0, 2.0], [1.0, NAN]])
TOKEN_VALUE_LOSS = torch.tensor([[1.125, 0.0], [2.0, 0.0]])


class Tables(nn.Module):
    """Log-probability (before temperature), entropy and value of every token of every row."""

    def __init__(self, logprobs: Tensor, values: Tensor, entropy: Tensor = ENTROPY) -> None:
        super().__init__()
        self.logprobs, self.values = nn.Parameter(logprobs), nn.Parameter(values)
        self.idle = nn.Parameter(torch.ones(1))  # takes no part
        self.entropy = entropy
        self.valued, self.shared = True, False
        self.asked: list[list[int]] = []

    def forward(self, batch: TokenBatch, temperature: float) -> tuple[Tensor, Tensor, Tensor | None]:
        rows = batch.input_ids[:, batch.prompt_width - 1]
        self.asked.append(rows.tolist())
        width = batch.response_width
        values = self.values[rows, :width] if self.shared else None
        return self.logprobs[rows, :width] / temperature, self.entropy[rows, :width], values

    def own_values(self, batch: TokenBatch) -> Tensor | None:
        rows = batch.input_ids[:, batch.prompt_width - 1]
        return self.values[rows, : batch.response_width] if self.valued else None


@dataclass
class Processes:
    """Accelerate's part: this process, and others that hold the same rows."""

    num_processes: int = 1
    deviation_elsewhere: float = 0.0
    summed: list[torch.Size] = field(default_factory=list)
    backwards: int = 0

    def reduce(self, total: Tensor, reduction: str) -> Tensor:
        assert reduction == "sum"
        self.summed.append(total.shape)
        return total * self.num_processes

    def gather(self, number: Tensor) -> Tensor:
        return torch.stack([number, torch.tensor(self.deviation_elsewhere)])

    def backward(self, loss: Tensor) -> None:
        self.backwards += 1
        loss.backward()

    def clip_grad_norm_(self, parameters: list[nn.Parameter], max_norm: float) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, max_norm)


def rollout_of(**changes: Tensor | None) -> Rollout:
    """The two responses above; the last id of each prompt is the number of its row."""
    rows = len(MASK)
    tensors: dict[str, Tensor] = {
        "input_ids": torch.cat([torch.arange(rows).unsqueeze(1), torch.full((rows, 2), 9)], 1),
        "attention_mask": torch.cat([torch.ones(rows, 1, dtype=torch.bool), MASK], 1),
        "response_mask": MASK,
        "finished": torch.tensor([True, True]),
        "logprobs": torch.where(MASK, math.log(0.5), NAN),
        "ref_logprobs": torch.full((rows, 2), NAN),
        "values": OLD_VALUES,
        "scores": torch.full((rows,), NAN),
        "rewards": torch.full((rows, 2), NAN),
        "advantages": ADVANTAGES,
        "returns": RETURNS,
        "loss_mask": MASK,
    }
    return Rollout(**{**tensors, **changes})


def tables(ratio: Tensor = RATIO, entropy: Tensor = ENTROPY) -> Tables:
    """Tables whose policy has moved by `ratio` since the rollout."""
    return Tables((ratio * 0.5).log() * SETTINGS.temperature, VALUES.clone(), entropy)


def learner(module: Tables, processes: Processes | None = None, rate: float = 0.0, **changes: Any) -> Learner:
    policy, value = [module.logprobs, module.idle], [module.values]
    optimizer = torch.optim.SGD([*policy, *value], lr=rate)
    settings = SETTINGS.model_copy(update=changes)
    return Learner(module, policy, value, optimizer, settings, processes or Processes())  # type: ignore[arg-type]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mean(per_token: Tensor, rows: slice | int = slice(None)) -> float:
    return float(per_token[rows].sum() / MASK[rows].sum())


@pytest.mark.parametrize("micro_batch", [1, 8])
@pytest.mark.parametrize("processes", [1, 2])
def test_every_figure_of_a_step_by_hand(micro_batch: int, processes: int) -> None:
    module = tables()
    trainer = learner(module, Processes(processes), per_device_train_batch_size=micro_batch)
    update = trainer.update(rollout_of(), seeded())
    assert update.policy_loss == pytest.approx(mean(TOKEN_LOSS))
    assert update.value_loss == pytest.approx(mean(TOKEN_VALUE_LOSS))
    assert update.approx_kl == pytest.approx(mean(TOKEN_KL), abs=1e-6)
    assert update.policy_clipfrac == pytest.approx(2 / 3)
    assert update.value_clipfrac == pytest.approx(1 / 3)
    assert update.entropy == pytest.approx(0.3)
    assert update.ratio_mean == pytest.approx(3.1 / 3)
    assert update.ratio_var == 0
    assert update.first_ratio_deviation == pytest.approx(0.5)
    assert (update.optimizer_steps, update.stopped_early) == (1, False)
    # d(-A * ratio)/d(table) = -A * ratio / temperature where nothing is clipped, over three tokens
    assert module.logprobs.grad is not None
    assert module.values.grad is not None
    torch.testing.assert_close(module.logprobs.grad, torch.tensor([[0.0, 0.0], [-2.2 / 0.5 / 3, 0.0]]))
    torch.testing.assert_close(module.values.grad, torch.tensor([[0.0, 0.0], [0.1 * 2.0 / 3, 0.0]]))
    assert update.policy_grad_norm == pytest.approx(2.2 / 0.5 / 3)
    assert update.value_grad_norm == pytest.approx(0.1 * 2 / 3)


def test_without_a_value_model_the_policys_part_is_all_there_is() -> None:
    whole, alone = tables(), tables()
    alone.valued = False
    expected = learner(whole).update(rollout_of(), seeded())
    trainer = replace(learner(alone), value_parameters=[])
    update = trainer.update(rollout_of(values=None, returns=None), seeded())
    assert update == replace(expected, value_loss=0.0, value_clipfrac=0.0, value_grad_norm=0.0)
    torch.testing.assert_close(alone.logprobs.grad, whole.logprobs.grad, rtol=0, atol=0)
    assert alone.values.grad is None


def test_whitening_follows_the_estimator_unless_it_is_set() -> None:
    """As by default: advantages of a group are centered already."""

    def gradient(**changes: Any) -> Tensor:
        module = tables(torch.ones(2, 2))
        learner(module, **changes).update(rollout_of(), seeded())
        assert module.logprobs.grad is not None
        return module.logprobs.grad

    on, off = gradient(whiten_advantages=True), gradient(whiten_advantages=False)
    assert not torch.allclose(on, off)
    for estimator, default in (("gae", on), ("rloo", off), ("grpo", off)):
        for setting, expected in ((None, default), (True, on), (False, off)):
            torch.testing.assert_close(gradient(advantage_estimator=estimator, whiten_advantages=setting), expected)


def test_the_upper_clip_is_the_configured_one() -> None:
    module = tables()
    update = learner(module, cliprange_high=0.6).update(rollout_of(), seeded())
    assert update.policy_clipfrac == pytest.approx(1 / 3)  # 1.5 is within 1 + .6, .5 is below 1 - .2
    assert update.policy_loss == pytest.approx((-1.5 + 0.8 - 2.2) / 3)


def test_figures_are_the_means_over_the_steps() -> None:
    update = learner(tables(), num_mini_batches=2).update(rollout_of(), seeded())
    assert update.optimizer_steps == 2
    assert update.policy_loss == pytest.approx((mean(TOKEN_LOSS, 0) + mean(TOKEN_LOSS, 1)) / 2)
    assert update.value_loss == pytest.approx((mean(TOKEN_VALUE_LOSS, 0) + mean(TOKEN_VALUE_LOSS, 1)) / 2)
    assert update.approx_kl == pytest.approx((mean(TOKEN_KL, 0) + mean(TOKEN_KL, 1)) / 2, abs=1e-6)
    assert update.policy_clipfrac == pytest.approx((2 / 2 + 0) / 2)
    assert update.value_clipfrac == pytest.approx((1 / 2 + 0) / 2)
    assert update.entropy == pytest.approx((0.15 + 0.6) / 2)
    assert update.ratio_mean == pytest.approx((1.0 + 1.1) / 2)
    assert update.ratio_var == pytest.approx(0.05**2, rel=1e-4)
    assert update.policy_grad_norm == pytest.approx((0 + 2.2 / 0.5) / 2)
    assert update.value_grad_norm == pytest.approx((0 + 0.1 * 2) / 2)


def test_the_first_deviation_is_that_of_the_first_step() -> None:
    seen = set()
    for seed in range(6):
        module = tables()
        update = learner(module, num_mini_batches=2).update(rollout_of(), seeded(seed))
        (first,) = module.asked[0]
        seen.add(first)
        assert update.first_ratio_deviation == pytest.approx((0.5, 0.1)[first], abs=1e-6)
    assert seen == {0, 1}


def test_the_first_deviation_is_the_largest_of_all_processes() -> None:
    update = learner(tables(), Processes(deviation_elsewhere=0.7)).update(rollout_of(), seeded())
    assert update.first_ratio_deviation == pytest.approx(0.7)


def test_every_epoch_takes_all_rows_in_a_new_order() -> None:
    module = tables()
    update = learner(module, num_ppo_epochs=8, num_mini_batches=2).update(rollout_of(), seeded(3))
    generator = seeded(3)
    orders = [torch.randperm(2, generator=generator).tolist() for _ in range(8)]
    assert [rows for (rows,) in module.asked] == [row for order in orders for row in order]
    assert len({tuple(order) for order in orders}) == 2
    assert update.optimizer_steps == 16


@pytest.mark.parametrize("processes", [1, 2])
def test_gradients_are_summed_over_processes_once_a_step(processes: int) -> None:
    module, all_processes = tables(), Processes(processes)
    learner(module, all_processes, per_device_train_batch_size=1, num_ppo_epochs=2).update(rollout_of(), seeded())
    assert all_processes.backwards == 2 * 2 * 2
    sums = [shape for shape in all_processes.summed if shape == module.values.shape]
    assert len(sums) == (2 * 2 if processes == 2 else 0)  # logprobs and values
    assert (module.idle.grad is None) == (processes == 1)  # another process may have one


def test_a_value_that_reads_the_policys_forward_makes_the_same_step_by_one_backward() -> None:
    apart, shared = tables(), tables()
    shared.shared = True
    processes = [Processes(), Processes()]
    updates = [
        learner(one, two).update(rollout_of(), seeded()) for one, two in zip((apart, shared), processes, strict=True)
    ]
    assert [each.backwards for each in processes] == [2, 1]
    assert updates[0] == updates[1]
    for one, two in zip(apart.parameters(), shared.parameters(), strict=True):
        assert (one.grad is None and two.grad is None) or torch.equal(one.grad, two.grad)


def test_a_step_forgets_the_gradients_of_the_one_before() -> None:
    module = tables()
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    update = learner(module).update(rollout_of(), seeded())
    assert update.policy_grad_norm == pytest.approx(2.2 / 0.5 / 3)
    assert update.value_grad_norm == pytest.approx(0.1 * 2 / 3)
    assert module.idle.grad is None  # Adam would move it by its memory if it were 0


def test_each_gradient_is_clipped_by_its_own_norm() -> None:
    module = tables()
    update = learner(module, rate=1.0, max_grad_norm=0.05).update(rollout_of(), seeded())
    assert update.policy_grad_norm == pytest.approx(2.2 / 0.5 / 3)  # as it was before
    moved = module.logprobs.detach() - tables().logprobs.detach()
    torch.testing.assert_close(moved[1, 0], torch.tensor(0.05), rtol=1e-4, atol=0)
    torch.testing.assert_close(module.values.detach()[1, 0], torch.tensor(3.0 - 0.05), rtol=1e-5, atol=0)


def test_advantages_are_whitened_over_the_rollout() -> None:
    module = tables(torch.ones(2, 2))
    learner(module, whiten_advantages=True).update(rollout_of(), seeded())
    deviation = math.sqrt(14 / 9)  # of 1, -1, 2, whose mean is 2/3
    white = (torch.tensor([[1.0, -1.0], [2.0, 2 / 3]]) - 2 / 3) / deviation
    assert module.logprobs.grad is not None
    torch.testing.assert_close(module.logprobs.grad, -white / 0.5 / 3)


def test_a_minibatch_is_whitened_by_the_figures_of_the_whole_rollout() -> None:
    module = tables(torch.ones(2, 2))
    update = learner(module, whiten_advantages=True, num_mini_batches=2).update(rollout_of(), seeded())
    # the means of the two rows are 0 and 2, that of the three tokens is 2/3; whitened by itself each row would give 0
    assert update.policy_loss == pytest.approx(-((0 - 2 / 3) + (2 - 2 / 3)) / 2 / math.sqrt(14 / 9))


def test_a_minibatch_is_one_step_whatever_its_micro_batches() -> None:
    found = []
    for micro_batch in (1, 2):
        module = tables()
        learner(module, rate=0.1, per_device_train_batch_size=micro_batch, num_ppo_epochs=2).update(
            rollout_of(), seeded()
        )
        found.append(torch.stack([module.logprobs.detach(), module.values.detach()]))
    torch.testing.assert_close(*found, equal_nan=True)


class Halves(Processes):
    """Two processes, a thread each."""

    def __init__(self, rank: int, parts: list[Tensor], barrier: threading.Barrier) -> None:
        super().__init__(num_processes=2)
        self.rank, self.parts, self.barrier = rank, parts, barrier

    def reduce(self, total: Tensor, reduction: str) -> Tensor:
        self.parts[self.rank] = total
        self.barrier.wait()
        result = self.parts[0] + self.parts[1]
        self.barrier.wait()
        return result


def test_two_processes_with_a_row_each_make_the_step_of_one_with_both() -> None:
    whole = tables()
    expected = learner(whole, whiten_advantages=True).update(rollout_of(), seeded())
    modules, parts = [tables(), tables()], [torch.zeros(()), torch.zeros(())]
    barrier = threading.Barrier(2, timeout=10)

    def one(rank: int) -> Update:
        trainer = learner(modules[rank], Halves(rank, parts, barrier), whiten_advantages=True)
        try:
            return trainer.update(rollout_of().rows([rank]), seeded())
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(2) as pool:
        updates = list(pool.map(one, range(2)))
    for update in updates:
        for name in ("policy_loss", "value_loss", "approx_kl", "policy_clipfrac", "entropy", "ratio_mean"):
            assert getattr(update, name) == pytest.approx(getattr(expected, name), rel=1e-5), name
    for name in ("logprobs", "values"):
        for module in modules:
            torch.testing.assert_close(getattr(module, name).grad, getattr(whole, name).grad)


def test_gradients_are_the_policys_too_unless_asked_otherwise() -> None:
    module = tables()
    learner(module)._gradients(rollout_of(), torch.arange(2))
    assert module.logprobs.grad is not None


def test_whitening_reads_the_tokens_that_are_trained_on() -> None:
    module = tables(torch.ones(2, 2))
    only_first = MASK & torch.tensor([[True], [False]])
    learner(module, whiten_advantages=True).update(rollout_of(loss_mask=only_first), seeded())
    assert module.logprobs.grad is not None  # 1 and -1 are white already
    expected = torch.tensor([[-1.0, 1.0], [0.0, 0.0]]) / 0.5 / 2
    torch.testing.assert_close(module.logprobs.grad, expected)


def test_an_update_stops_once_the_policy_is_beyond_the_limit_not_at_it() -> None:
    (kl,) = {learner(tables()).update(rollout_of(), seeded()).approx_kl}
    at = learner(tables(), kl_early_stop=kl, num_ppo_epochs=3).update(rollout_of(), seeded())
    assert (at.optimizer_steps, at.stopped_early) == (3, False)
    module = tables()
    before = module.logprobs.detach().clone()
    trainer = learner(module, rate=1.0, kl_early_stop=kl * 0.999, num_ppo_epochs=3)
    beyond = trainer.update(rollout_of(), seeded())
    assert (beyond.optimizer_steps, beyond.stopped_early) == (0, True)
    assert beyond.approx_kl == kl  # the step that was not taken is in the figures
    assert beyond.policy_loss == pytest.approx(mean(TOKEN_LOSS))
    assert len(module.asked) == 1
    torch.testing.assert_close(module.logprobs.detach(), before, rtol=0, atol=0, equal_nan=True)


def test_an_update_goes_on_until_the_limit() -> None:
    module = tables(torch.where(MASK, 1.0, NAN))
    trainer = learner(module, rate=0.3, kl_early_stop=0.02, num_ppo_epochs=20, max_grad_norm=1.0)
    update = trainer.update(rollout_of(), seeded())
    assert update.stopped_early
    assert 1 <= update.optimizer_steps < 19
    assert len(module.asked) == update.optimizer_steps + 1


def test_the_value_alone_learns_where_the_policy_must_stand() -> None:
    module = tables()
    before = module.logprobs.detach().clone()
    trainer = learner(module, rate=1.0)
    update = trainer.update(rollout_of(), seeded(), train_policy=False)
    assert update.policy_loss == pytest.approx(mean(TOKEN_LOSS))
    assert update.policy_grad_norm == 0
    assert module.logprobs.grad is None
    assert update.value_grad_norm == pytest.approx(0.1 * 2 / 3)
    torch.testing.assert_close(module.logprobs.detach(), before, rtol=0, atol=0, equal_nan=True)
    assert float(module.values[1, 0].detach()) == pytest.approx(3.0 - 0.1 * 2 / 3)


def test_a_minibatch_without_a_token_is_left_out() -> None:
    only_second = MASK & torch.tensor([[False], [True]])
    module = tables()
    trainer = learner(module, num_mini_batches=2, num_ppo_epochs=4, mask_truncated_completions=True)
    update = trainer.update(rollout_of(loss_mask=only_second), seeded())
    assert update.optimizer_steps == 4
    assert module.asked == [[1]] * 4
    assert update.policy_loss == pytest.approx(-2.2)
    assert update.first_ratio_deviation == pytest.approx(0.1, abs=1e-6)
    none = learner(tables(), mask_truncated_completions=True).update(
        rollout_of(loss_mask=torch.zeros_like(MASK)), seeded()
    )
    assert (none.optimizer_steps, none.policy_loss, none.ratio_mean, none.ratio_var) == (0, 0.0, 0.0, 0.0)
    assert none.first_ratio_deviation == 0.0


def test_what_is_not_finite_is_named_and_no_step_is_taken() -> None:
    module = tables(entropy=torch.full((2, 2), NAN))
    before = module.values.detach().clone()
    with pytest.raises(TrainingError) as caught:
        learner(module, rate=1.0).update(rollout_of(), seeded())
    assert str(caught.value).startswith("entropy is not finite; the optimizer step was not taken")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("lower ppo.learning_rate, or look at the scores")
    assert caught.value.hint.endswith("samples of the last update")
    torch.testing.assert_close(module.values.detach(), before, rtol=0, atol=0, equal_nan=True)
