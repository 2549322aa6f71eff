"""Evaluation on held-out prompts during training, and the best policy by what PPO optimizes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from pipelines.data.encode import EncodedPrompt
from pipelines.models.forward import TokenBatch
from pipelines.ppo.normalization import Normalizer
from pipelines.ppo.objective import k1
from pipelines.ppo.rollout import PpoContext, finite_scores

SAMPLES = 16
"""Number of answers that every evaluation writes to samples.jsonl."""
MADE_UP = 64
CRITERION = (
    "highest mean held-out objective (score after normalization, clip and penalties, less kl_coef times the KL) among "
    "the evaluations whose held-out KL is at most ppo.kl_limit"
)

Log = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True)
class HeldoutAnswers:
    """Answers of a policy to the held-out prompts, of all processes, one entry an answer.

    Attributes:
        scores: as the reward source gave them.
        kl: to the reference, in nats (k1 summed over the tokens).
        lengths: response tokens.
        finished: whether it ended by itself.
    """

    scores: list[float]
    kl: list[float]
    lengths: list[float]
    finished: list[bool]

    def figures(self) -> dict[str, float]:
        """Return the means, under the names of metrics."""
        return {
            "eval/score": fmean(self.scores),
            "eval/kl": fmean(self.kl),
            "eval/response_length": fmean(self.lengths),
            "eval/finished": fmean(self.finished),
        }

    @classmethod
    def of_figures(cls, figures: Mapping[str, float]) -> HeldoutAnswers:
        """Return answers with these means, for earlier checkpoints, which hold no more."""
        scores, kl, lengths = ([figures[name]] * MADE_UP for name in ("eval/score", "eval/kl", "eval/response_length"))
        return cls(scores, kl, lengths, [row < figures["eval/finished"] * MADE_UP for row in range(MADE_UP)])


def heldout_objective(answers: HeldoutAnswers, normalizer: Normalizer, kl_coef: float) -> float:
    """Return the mean of what PPO maximizes: the reward of the whole answer, less the KL penalty.

    Two policies are compared by the normalization and the KL coefficient of one moment, whenever they answered.
    """
    scores, lengths = (torch.tensor(values, dtype=torch.float64) for values in (answers.scores, answers.lengths))
    rewards = normalizer.rewards(scores, torch.tensor(answers.finished), lengths)[0]
    return float(rewards.mean()) - kl_coef * fmean(answers.kl)


@dataclass(frozen=True)
class Heldout:
    """Answers held-out prompts with the current policy, always with the same random numbers.

    Attributes:
        context: models and settings.
        prompts: prompts of all processes; each process answers its share.
        log: writes one line to the named .jsonl.
    """

    context: PpoContext
    prompts: Sequence[EncodedPrompt]
    log: Log

    def answer(self, update: int) -> HeldoutAnswers | None:
        """Answer and score the prompts; None where there are no prompts.

        All answers go to heldout_answers.jsonl, as tokens, and some to samples.jsonl, as text.
        """
        if not self.prompts:
            return None
        accelerator = self.context.accelerator
        share = self.prompts[accelerator.process_index :: accelerator.num_processes]
        rows = gather_object(self._rows(share, update))
        rows.sort(key=lambda row: row[0])
        for place, response, score, kl_of_row, _, ended in rows:
            answered = {"update": update, "prompt": [turn.model_dump() for turn in self.prompts[place]["messages"]]}
            facts = {"ids": response, "finished": bool(ended), "score": score, "kl": kl_of_row}
            self.log("heldout_answers", answered | facts)
        _, _, scores, kl, lengths, finished = (list(column) for column in zip(*rows, strict=True))
        return HeldoutAnswers(scores, kl, lengths, [bool(value) for value in finished])

    @torch.no_grad()
    def _rows(
        self, prompts: Sequence[EncodedPrompt], update: int
    ) -> list[tuple[int, list[int], float, float, float, float]]:
        """Place of the prompt, tokens, score, KL, length and whether it finished, of each answer of this process."""
        context, settings = self.context, self.context.settings
        if not prompts:
            return []
        responses, batch = context.respond(prompts, context.seed)
        scores = finite_scores(context.reward(batch, prompts, responses))
        self._log_samples(update, prompts, responses, scores, batch)
        policy, reference = (
            logprobs(batch, settings.temperature, settings.rollout_forward_batch_size)
            for logprobs in (context.roles.policy_logprobs, context.roles.reference_logprobs)
        )
        kl = torch.where(batch.response_mask, k1(policy, reference), 0.0).sum(-1)
        columns = (scores, kl, batch.response_mask.sum(-1), batch.finished)
        accelerator = self.context.accelerator
        places = range(accelerator.process_index, len(self.prompts), accelerator.num_processes)
        return list(zip(places, responses, *(column.double().tolist() for column in columns), strict=True))

    def _log_samples(
        self,
        update: int,
        prompts: Sequence[EncodedPrompt],
        responses: list[list[int]],
        scores: Tensor,
        batch: TokenBatch,
    ) -> None:
        rows = zip(prompts, responses, scores.tolist(), batch.finished.tolist(), strict=True)
        for prompt, response, score, finished in itertools.islice(rows, SAMPLES):
            sample = {
                "update": update,
                "prompt": [message.model_dump() for message in prompt["messages"]],
                "completion": self.context.encoder.decode(response),
                "score": score,
                "finished": finished,
            }
            self.log("samples", sample)


class Best:
    """The policy with the highest held-out objective so far, its weights on the CPU.

    Attributes:
        update: number of the update that made it; 0 is the start, None: there is none yet.
        figures: figures of its evaluation.
        answers: its answers to the held-out prompts.
        weights: parameters by name, for `load_state_dict` of the trained module.
    """

    def __init__(self) -> None:
        self.update: int | None = None
        self.figures: dict[str, float] = {}
        self.answers: HeldoutAnswers | None = None
        self.weights: dict[str, Tensor] = {}

    def offer(
        self,
        update: int,
        figures: Mapping[str, float],
        answers: HeldoutAnswers,
        objective: Callable[[HeldoutAnswers], float],
        weights: Callable[[], Mapping[str, Tensor]],
    ) -> bool:
        """Keep the policy of `update` if it is better than the best so far.

        Args:
            update: number of the update.
            figures: figures of its evaluation.
            answers: result of `Heldout.answer`.
            objective: measures both policies, as `heldout_objective`.
            weights: returns the parameters of the policy; they are copied.

        Returns:
            Whether it was kept.
        """
        if self.answers is not None and objective(answers) <= objective(self.answers):
            return False
        self.update, self.figures, self.answers = update, dict(figures), answers
        self.weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights().items()}
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        answers = asdict(self.answers) if self.answers is not None else None
        return {"update": self.update, "figures": self.figures, "answers": answers, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.update, self.figures, self.weights = state["update"], state["figures"], state["weights"]
        answers = state.get("answers")
        if answers is not None:
            self.answers = HeldoutAnswers(**answers)
        elif self.update is not None:
            self.answers = HeldoutAnswers.of_figures(self.figures)
