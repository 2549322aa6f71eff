"""Mistakes that PPO implementations were published with, each put into a copy of the code: the named test must fail.

`make breaks` runs them all. A break that no test notices, one whose place in the code is gone, and one whose test fails
without it all end with exit code 1. The numbers are those of the table in docs/ppo.md.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("pipelines", "rlhf_cli", "configs", "tests", "pyproject.toml")
PASSED, FAILED = 0, 1
"""Exit codes of pytest; any other means that the test did not run."""


@dataclass(frozen=True)
class Break:
    """One mistake.

    Attributes:
        name: what is wrong, in plain words.
        file: which file is changed.
        search: text that is in it exactly once.
        replace: what stands there instead.
        test: of pytest, by its id; must fail.
    """

    name: str
    file: str
    search: str
    replace: str
    test: str

    def text(self, root: Path = ROOT) -> str:
        """The broken file.

        Raises:
            LookupError: the text to be replaced is not in it exactly once.
        """
        sound = (root / self.file).read_text(encoding="utf-8")
        if sound.count(self.search) != 1:
            raise LookupError(
                f"{self.file} holds the place of '{self.name}' {sound.count(self.search)} times, not once"
            )
        return sound.replace(self.search, self.replace)


OBJECTIVE, LEARNER, ROLLOUT, ROLES, LOAD_ROLES, TRAIN = (
    f"pipelines/ppo/{name}.py" for name in ("objective", "learner", "rollout", "roles", "load_roles", "train")
)
LOG_PROBABILITIES, FORWARD, SHORT_FORWARD, DECODE, ADAPTERS = (
    f"pipelines/models/{name}.py" for name in ("log_probabilities", "forward", "short_forward", "decode", "adapters")
)
K1 = "k1(logprobs, ref_logprobs), mask"

BREAKS = [
    # the reward
    Break(
        "k3 in the reward",
        ROLLOUT,
        K1,
        "torch.expm1(ref_logprobs - logprobs) - (ref_logprobs - logprobs), mask",
        "tests/ppo/test_rollout.py::test_a_rollout_is_put_together_from_its_parts",
    ),
    Break(
        "the KL in the reward has the wrong sign",
        OBJECTIVE,
        "torch.where(mask, -kl_coef * kl, 0.0)",
        "torch.where(mask, kl_coef * kl, 0.0)",
        "tests/ppo/test_objective.py::test_rewards_put_the_score_on_the_last_token_of_each_row",
    ),
    Break(
        "no KL on the EOS",
        OBJECTIVE,
        "    return rewards.scatter_add(-1, last,",
        "    rewards = rewards.scatter(-1, last, 0.0)\n    return rewards.scatter_add(-1, last,",
        "tests/ppo/test_objective.py::test_rewards_put_the_score_on_the_last_token_of_each_row",
    ),
    Break(
        "the score on the pad after the EOS, but on the EOS of the longest row",
        OBJECTIVE,
        "last = mask.sum(-1, keepdim=True) - 1",
        "last = mask.sum(-1, keepdim=True).clamp(max=mask.shape[1] - 1)",
        "tests/ppo/test_objective.py::test_rewards_put_the_score_on_the_last_token_of_each_row",
    ),
    Break(
        "a penalty for all that do not end on EOS, stop tokens or not",
        FORWARD,
        "response[-1] in ends",
        "response[-1] == ends[0]",
        "tests/ppo/test_rollout_ends.py::test_a_stop_token_finishes_a_response",
    ),
    Break(
        "the penalty for truncated responses before the clip",
        OBJECTIVE,
        "scaled = (scores - mean) / std",
        "scaled = (scores - mean) / std - missing_eos_penalty * (~finished).to(scores.dtype)\n"
        "    missing_eos_penalty = 0.0",
        "tests/ppo/test_objective_edges.py::test_the_penalty_comes_after_the_clip",
    ),
    Break(
        "the score is read at the last column, not at the last token of the row",
        FORWARD,
        "pool_last(hidden, batch.attention_mask)",
        "hidden[:, -1]",
        "tests/ppo/test_update.py::test_a_row_alone_gives_what_it_gives_in_a_batch[llama-full-False]",
    ),
    # sampling and log-probabilities
    Break(
        "top_k is inherited",
        DECODE,
        "[TopKLogitsWarper(config.top_k)] if config.top_k else []",
        "[TopKLogitsWarper(config.top_k or 50)]",
        "tests/models/test_sampling.py::test_frequencies_are_those_of_the_softmax",
    ),
    Break(
        "the temperature only in the sampling",
        LOG_PROBABILITIES,
        "logits[part].div_(temperature)",
        "logits[part]",
        "tests/ppo/test_rollout.py::test_logprobs_and_values_by_hand_from_plain_transformers",
    ),
    Break(
        "the reference at temperature 1",
        ROLES,
        "with self.reference.active() as model, self.precision():\n"
        "            return in_groups(batch, chunk, lambda part: response_logprobs(model, part, temperature).logprobs)",
        "with self.reference.active() as model, self.precision():\n"
        "            return in_groups(batch, chunk, lambda part: response_logprobs(model, part, 1.0).logprobs)",
        "tests/ppo/test_update.py::test_kl_is_zero_at_the_start_and_the_first_ratio_is_one[llama-full-False]",
    ),
    Break(
        "old log-probabilities at the precision of a bf16 generation",
        ROLLOUT,
        "logprobs = roles.policy_logprobs(batch, temperature, chunk)",
        "logprobs = roles.policy_logprobs(batch, temperature, chunk).bfloat16().float()",
        "tests/ppo/test_update.py::test_kl_is_zero_at_the_start_and_the_first_ratio_is_one[llama-full-False]",
    ),
    Break(
        "log-softmax in bf16",
        LOG_PROBABILITIES,
        "scaled = logits.float() / temperature",
        "scaled = logits / temperature",
        "tests/ppo/test_objective.py::test_token_logprobs_are_fp32_from_bf16_logits",
    ),
    Break(
        "position ids are not passed",
        SHORT_FORWARD,
        "            position_ids=positions[None],\n",
        "",
        "tests/models/test_short_forward.py::test_a_family_gives_the_same_numbers_and_gradients_by_the_short_way[gpt2]",
    ),
    Break(
        "rows in one line see each other",
        SHORT_FORWARD,
        "if not isinstance(attention_mask, _Rows):",
        "if attention_mask is None or (attention_mask := None):",
        "tests/models/test_short_forward.py::"
        "test_a_family_gives_the_same_numbers_and_gradients_by_the_short_way[llama]",
    ),
    Break(
        "logits are read one token late",
        FORWARD,
        "states_before(hidden, batch).flatten(0, 1)[places], head",
        "hidden[:, batch.prompt_width :].flatten(0, 1)[places], head",
        "tests/ppo/test_rollout.py::test_logprobs_and_values_by_hand_from_plain_transformers",
    ),
    Break(
        "the value of the state after the token",
        FORWARD,
        "hidden[:, batch.prompt_width - 1 : -1]",
        "hidden[:, batch.prompt_width :]",
        "tests/ppo/test_rollout.py::test_logprobs_and_values_by_hand_from_plain_transformers",
    ),
    Break(
        "the mask from ids, with pad == eos",
        FORWARD,
        "attention_mask[:, prompt_width:].clone(), finished)",
        "input_ids[:, prompt_width:] != ends[0], finished)",
        "tests/ppo/test_rollout.py::test_masks_come_from_lengths",
    ),
    # advantages
    Break(
        "pads bootstrap the advantages",
        OBJECTIVE,
        "rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)",
        "rewards = torch.where(mask, rewards, 0.0)",
        "tests/ppo/test_objective.py::test_advantages_of_a_row_do_not_depend_on_its_neighbors",
    ),
    Break(
        "the baseline of RLOO holds the response itself",
        OBJECTIVE,
        "others = (totals.sum(-1, keepdim=True) - totals) / (group - 1)",
        "others = totals.mean(-1, keepdim=True)",
        "tests/ppo/test_objective.py::test_rloo_by_hand",
    ),
    Break(
        "GRPO divides by the deviation of all responses, not of those to the prompt",
        OBJECTIVE,
        "    deviation, mean = torch.std_mean(totals, -1, keepdim=True)",
        "    deviation, mean = totals.std(), totals.mean(-1, keepdim=True)",
        "tests/ppo/test_objective.py::test_grpo_by_hand",
    ),
    Break(
        "a response is compared with those to other prompts",
        OBJECTIVE,
        "torch.where(mask, rewards, 0.0).sum(-1).view(-1, group)",
        "torch.where(mask, rewards, 0.0).sum(-1).view(group, -1).T.contiguous()",
        "tests/ppo/test_objective.py::test_rloo_by_hand",
    ),
    Break(
        "whitening over the pads",
        LEARNER,
        "whiten(rollout.advantages, rollout.loss_mask, self._sum)",
        "whiten(rollout.advantages.nan_to_num(), torch.ones_like(rollout.loss_mask), self._sum)",
        "tests/ppo/test_learner.py::test_advantages_are_whitened_over_the_rollout",
    ),
    Break(
        "whitening by minibatch",
        LEARNER,
        "        for rows in rollout.by_length(",
        "        minibatch = minibatch.to(rollout.device)\n"
        "        white = whiten(rollout.advantages[minibatch], rollout.loss_mask[minibatch], self._sum)\n"
        "        rollout = replace(rollout, advantages=rollout.advantages.index_copy(0, minibatch, white))\n"
        "        for rows in rollout.by_length(",
        "tests/ppo/test_learner.py::test_a_minibatch_is_whitened_by_the_figures_of_the_whole_rollout",
    ),
    Break(
        "returns after whitening",
        LEARNER,
        "        seen: list[dict[str, float]] = []",
        "        rollout = replace(rollout, returns=rollout.advantages + rollout.values)\n"
        "        seen: list[dict[str, float]] = []",
        "tests/ppo/test_details_learning.py::test_27_the_value_learns_returns_that_no_whitening_touched",
    ),
    # losses and steps
    Break(
        "the mean of each micro-batch",
        LEARNER,
        "settings.vf_coef * value.total / divisor",
        "settings.vf_coef * value.total / mask.sum()",
        "tests/ppo/test_update.py::test_the_micro_batch_size_changes_nothing[llama-full-False]",
    ),
    Break(
        "an optimizer step for each micro-batch",
        LEARNER,
        "            with torch.no_grad():\n                sums +=",
        "            self.optimizer.step()\n            with torch.no_grad():\n                sums +=",
        "tests/ppo/test_learner.py::test_a_minibatch_is_one_step_whatever_its_micro_batches",
    ),
    Break(
        "the value is clipped around its new value",
        OBJECTIVE,
        "(old + (new - old).clamp(-cliprange, cliprange) - returns)",
        "(new.detach() + (new - new.detach()).clamp(-cliprange, cliprange) - returns)",
        "tests/ppo/test_objective.py::test_value_loss_by_hand",
    ),
    Break(
        "the smaller of the clipped and the plain loss",
        OBJECTIVE,
        "masked_sum(torch.max(plain, clipped), mask)",
        "masked_sum(torch.min(plain, clipped), mask)",
        "tests/ppo/test_objective.py::test_policy_loss_by_hand_on_both_sides",
    ),
    Break(
        "the upper clip moves the lower bound too",
        OBJECTIVE,
        "ratio.clamp(1.0 - cliprange, 1.0 + high)",
        "ratio.clamp(1.0 - high, 1.0 + high)",
        "tests/ppo/test_objective.py::test_the_upper_clip_is_a_bound_of_its_own",
    ),
    Break(
        "gradients are not clipped",
        LEARNER,
        "self.settings.max_grad_norm)",
        "math.inf)",
        "tests/ppo/test_learner.py::test_each_gradient_is_clipped_by_its_own_norm",
    ),
    Break(
        "Adam's epsilon is left at 1e-8, whatever is configured",
        TRAIN,
        "eps=settings.adam_eps,",
        "eps=1e-8,",
        "tests/ppo/test_details_training.py::test_37_adam_has_the_epsilon_of_ppo_and_no_weight_decay",
    ),
    Break(
        "Adam remembers the policy while only the value trains",
        LEARNER,
        "parameter.grad = None",
        "pass",
        "tests/ppo/test_shared_value.py::test_warming_up_the_value_moves_nothing_of_the_policy",
    ),
    Break(
        "the entropy counts pads",
        LEARNER,
        "masked_sum(entropy, mask),",
        "entropy.nan_to_num(9.0).sum(),",
        "tests/ppo/test_learner.py::test_every_figure_of_a_step_by_hand",
    ),
    # roles
    Break(
        "a bare set_adapter",
        ADAPTERS,
        "        if name is not None:\n            model.active_adapter = name\n        yield",
        "        if name is not None:\n            model.set_adapter(name)\n        yield",
        "tests/models/test_adapters.py::test_gradients_reach_both_adapters_and_only_their_own",
    ),
    Break(
        "the reference is the base without adapter, though SFT left one",
        LOAD_ROLES,
        'reference = Role(model, "reference" if isinstance(start, Path) else None)',
        "reference = Role(model, None)",
        "tests/ppo/test_load_roles.py::test_roles_are_what_the_stages_published[lora]",
    ),
    Break(
        "dropout is left on",
        LOAD_ROLES,
        "disable_dropout(model)",
        "pass",
        "tests/ppo/test_details_training.py::"
        "test_18_no_role_has_dropout_not_even_where_the_model_and_the_adapter_ask_for_it",
    ),
]


def run_tests(place: Path, tests: Sequence[str], *, keep_bytecode: bool = False) -> int:
    """Exit code of pytest in `place`, in a process of its own that need not import torch anew."""
    child = multiprocessing.get_context("fork").Process(target=_run_tests, args=(place, tests, keep_bytecode))
    child.start()
    child.join()
    assert child.exitcode is not None
    return child.exitcode


def _run_tests(place: Path, tests: Sequence[str], keep_bytecode: bool) -> None:
    import pytest

    os.chdir(place)
    sys.dont_write_bytecode = not keep_bytecode  # two breaks of one size within a second would share theirs
    sys.path[:] = [str(place), *(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)]
    for name in [name for name in sys.modules if name.split(".")[0] in ("pipelines", "rlhf_cli", "tests")]:
        del sys.modules[name]
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(place)]
    os._exit(int(pytest.main([*options, *tests])))


def copy_to(place: Path) -> None:
    """What the tests need."""
    for name in COPIED:
        source, target = ROOT / name, place / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy2(source, target)


def main(words: Sequence[str] = ()) -> int:
    """Run the breaks whose name holds one of `words`, or all, and print what noticed them."""
    chosen = [each for each in BREAKS if not words or any(word in each.name for word in words)]
    tests = sorted({each.test for each in chosen})
    for name in sorted({test.split(".py")[0].replace("/", ".") for test in tests}):
        importlib.import_module(name)  # for the libraries; our own modules are read anew from the copy
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        copy_to(place)
        if run_tests(place, tests, keep_bytecode=True) != PASSED:
            print("the tests do not pass on the code as it is:", *tests, sep="\n  ")
            return 1
        for each in chosen:
            started = time.perf_counter()
            outcome = "GONE: the text to be replaced is not there once"
            with contextlib.suppress(LookupError):
                file, broken = place / each.file, each.text(place)
                sound = file.read_text(encoding="utf-8")
                file.write_text(broken, encoding="utf-8")
                code = run_tests(place, [each.test])
                file.write_text(sound, encoding="utf-8")
                outcome = {FAILED: "noticed", PASSED: "NOT NOTICED"}.get(code, f"NOT RUN: pytest ended with {code}")
            failures += outcome != "noticed"
            seconds = time.perf_counter() - started
            print(f"{each.name:<75} {each.test.removeprefix('tests/'):<105} {outcome} ({seconds:.0f} s)", flush=True)
    print(f"{len(chosen) - failures} of {len(chosen)} breaks noticed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
