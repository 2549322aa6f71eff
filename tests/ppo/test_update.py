"""What must hold between the parts of PPO, on Llama-like and GPT-2-like models, full and LoRA."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from pipelines.config.ppo_section import PpoSection
from pipelines.data.chat import ChatEncoder
from pipelines.data.encode import EncodedPrompt
from pipelines.data.rows import Message
from pipelines.errors import TrainingError
from pipelines.models.forward import TokenBatch
from pipelines.ppo.engines.transformers_engine import TransformersEngine
from pipelines.ppo.normalization import Normalizer
from pipelines.ppo.roles import Role, Roles, score_head
from pipelines.ppo.rollout import PpoContext, RoleReward, collect
from pipelines.ppo.types import Normalization, Rollout
from tests.ppo.cast import Kind, cast, learner, random_adapter
from tests.tiny import tiny_gpt2, tiny_llama, tiny_tokenizer

BUILDERS: dict[str, Callable[..., PreTrainedModel]] = {"llama": tiny_llama, "gpt2": tiny_gpt2}
TOKENIZER = tiny_tokenizer()
EOS = TOKENIZER.eos_token_id
SETTINGS = PpoSection(
    rollout_batch_size=8,
    num_mini_batches=2,
    num_ppo_epochs=2,
    per_device_train_batch_size=2,
    rollout_forward_batch_size=8,
    response_length=7,
    temperature=0.7,
    learning_rate=1e-2,
    value_learning_rate=1e-2,
)


def scorer_role(roles: Roles) -> Roles:
    """The roles with a reward model: the reference's trunk and a random head."""
    torch.manual_seed(7)
    model = roles.reference.model
    head = score_head(torch.randn(1, model.config.hidden_size))
    return replace(roles, reward=Role(model, roles.reference.adapter, head))


GROUPED = [SETTINGS.model_copy(update={"advantage_estimator": name, "num_generations": 4}) for name in ("rloo", "grpo")]


def make(model: str, kind: Kind, *, sft: bool = False, valued: bool = True) -> Roles:
    base = BUILDERS[model](TOKENIZER)
    return scorer_role(cast(base, kind, sft=random_adapter(base) if sft else None, valued=valued))


def prompts() -> list[EncodedPrompt]:
    texts = ["hello", "the cat sat on the mat", "a", "1 2 3 4", "please write", "dog", "you you you you you", "b c"]
    return [
        {"prompt_ids": TOKENIZER(text).input_ids, "messages": (Message(role="user", content=text),)} for text in texts
    ]


class FixedEngine:
    """Responses of all lengths from one token on; every third one is cut at the limit, without EOS."""

    def generate(self, prompts: Sequence[Sequence[int]], *, seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        responses = []
        for row in range(len(prompts)):
            ids = torch.randint(10, 340, (SETTINGS.response_length,), generator=generator).tolist()
            responses.append(ids if row % 3 == 2 else [*ids[: row % SETTINGS.response_length], EOS])
        return responses


def rollout_of(roles: Roles, settings: PpoSection = SETTINGS) -> Rollout:
    engine = FixedEngine()
    reward = RoleReward(roles, settings.rollout_forward_batch_size)
    rollout, _, _ = collect(
        PpoContext(
            roles=roles,
            engine=engine,
            reward=reward,
            encoder=ChatEncoder(TOKENIZER),
            eos_token_id=EOS,
            settings=settings,
            accelerator=Accelerator(cpu=True),
            seed=0,
        ),
        [prompt for prompt in prompts()[:: settings.num_generations] for _ in range(settings.num_generations)],
        kl_coef=settings.kl_coef,
        normalizer=Normalizer(settings, Normalization(0.5, 2.0)),
        seed=3,
    )
    return rollout


def gradients(roles: Roles, rollout: Rollout, settings: PpoSection) -> list[Tensor]:
    """Gradients of one step over the whole rollout, taken before the optimizer moves anything."""
    trainer = learner(roles, settings)
    trainer._gradients(rollout, torch.arange(len(rollout)))
    parameters = [*trainer.policy_parameters, *trainer.value_parameters]
    return [torch.zeros(0) if p.grad is None else p.grad.clone() for p in parameters]


CASES = [("llama", "full", False), ("gpt2", "full", False), ("llama", "lora", True), ("gpt2", "lora", True)]


def starts_right(roles: Roles, settings: PpoSection) -> None:
    """KL 0 before the first update, ratio 1 before its first step, and afterwards another policy."""
    rollout = rollout_of(roles, settings)
    assert torch.equal(rollout.logprobs, rollout.ref_logprobs)
    update = learner(roles, settings).update(rollout, torch.Generator().manual_seed(0))
    assert update.first_ratio_deviation < 1e-5
    assert update.optimizer_steps == 4
    assert not torch.equal(roles.policy_logprobs(rollout, 0.7, 8), rollout.ref_logprobs)


@pytest.mark.parametrize(("model", "kind", "sft"), [*CASES, ("llama", "lora", False)])
def test_kl_is_zero_at_the_start_and_the_first_ratio_is_one(model: str, kind: Kind, sft: bool) -> None:
    starts_right(make(model, kind, sft=sft), SETTINGS)


@pytest.mark.parametrize("settings", GROUPED, ids=lambda settings: settings.advantage_estimator)
@pytest.mark.parametrize(("model", "kind", "sft"), CASES)
def test_so_it_is_without_a_value_model(model: str, kind: Kind, sft: bool, settings: PpoSection) -> None:
    starts_right(make(model, kind, sft=sft, valued=False), settings)


@pytest.mark.parametrize("settings", GROUPED, ids=lambda settings: settings.advantage_estimator)
def test_advantages_are_those_of_the_responses_to_one_prompt(settings: PpoSection) -> None:
    """Against plain numbers: the KL is 0, so the reward of a response is its normalized score, less the penalty."""
    rollout = rollout_of(make("llama", "full", valued=False), settings)
    assert rollout.values is None
    assert rollout.returns is None
    scores = ((rollout.scores - 0.5) / 2.0 - 1.0 * ~rollout.finished).tolist()
    for row, reward in enumerate(scores):
        group = scores[row // 4 * 4 :][:4]
        expected = reward - (sum(group) - reward) / 3
        if settings.advantage_estimator == "grpo":
            expected = (reward - statistics.fmean(group)) / (statistics.stdev(group) + 1e-4)
        length = int(rollout.response_mask[row].sum())
        assert rollout.advantages[row, :length].tolist() == pytest.approx([expected] * length, abs=1e-4)
        assert not rollout.advantages[row, length:].any()


@pytest.mark.parametrize("settings", GROUPED, ids=lambda settings: settings.advantage_estimator)
def test_the_micro_batch_size_changes_nothing_without_a_value_model(settings: PpoSection) -> None:
    roles = make("gpt2", "lora", sft=True, valued=False)
    rollout = rollout_of(roles, settings)
    first, second = (
        gradients(roles, rollout, settings.model_copy(update={"per_device_train_batch_size": size})) for size in (1, 8)
    )
    assert sum(gradient.abs().sum() for gradient in first) > 0
    for one, two in zip(first, second, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("model", "kind", "sft"), CASES)
def test_the_first_ratio_is_exactly_one_with_the_shapes_of_training(model: str, kind: Kind, sft: bool) -> None:
    roles = make(model, kind, sft=sft)
    settings = SETTINGS.model_copy(update={"num_mini_batches": 1, "per_device_train_batch_size": 8})
    rollout = rollout_of(roles, settings)
    in_order = torch.Generator()
    trainer = learner(roles, settings)
    order = torch.randperm(8, generator=in_order.manual_seed(1))
    shuffled = rollout.rows(order.tolist())
    same_shapes = replace(shuffled, logprobs=roles.policy_logprobs(shuffled, settings.temperature, 8))
    _, deviation = trainer._gradients(same_shapes, torch.arange(8))
    assert deviation == 0.0


@pytest.mark.parametrize(("model", "kind", "sft"), CASES)
def test_the_micro_batch_size_changes_nothing(model: str, kind: Kind, sft: bool) -> None:
    roles = make(model, kind, sft=sft)
    rollout = rollout_of(roles)
    found = [
        gradients(roles, rollout, SETTINGS.model_copy(update={"per_device_train_batch_size": size}))
        for size in (1, 2, 4, 8)
    ]
    assert sum(gradient.abs().sum() for gradient in found[0]) > 0
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("model", "kind", "sft"), CASES)
def test_a_row_alone_gives_what_it_gives_in_a_batch(model: str, kind: Kind, sft: bool) -> None:
    roles = make(model, kind, sft=sft)
    rollout = rollout_of(roles)
    for row in range(len(rollout)):
        alone = TokenBatch(*(getattr(rollout.rows([row]), field.name) for field in fields(TokenBatch)))
        width = alone.response_width
        for name, value in (
            ("logprobs", roles.policy_logprobs(alone, 0.7, 1)),
            ("ref_logprobs", roles.reference_logprobs(alone, 0.7, 1)),
            ("values", roles.values(alone, 1)),
        ):
            torch.testing.assert_close(value[0], getattr(rollout, name)[row, :width], rtol=0, atol=1e-5)
        torch.testing.assert_close(roles.scores(alone, 1)[0], rollout.scores[row], rtol=0, atol=1e-5)


def test_nan_in_the_pads_of_a_rollout_changes_no_gradient() -> None:
    roles = make("llama", "full")
    rollout = rollout_of(roles)
    assert not rollout.response_mask.all()
    names = ("logprobs", "ref_logprobs", "values", "rewards", "advantages", "returns")
    pads = {name: torch.where(rollout.response_mask, getattr(rollout, name), float("nan")) for name in names}
    for one, two in zip(
        gradients(roles, rollout, SETTINGS), gradients(roles, replace(rollout, **pads), SETTINGS), strict=True
    ):
        assert torch.equal(one, two)


def test_what_ids_stand_under_the_pads_changes_nothing() -> None:
    """EOS there too, as with pad == eos."""
    roles = make("llama", "full")
    rollout = rollout_of(roles)
    other = replace(rollout, input_ids=torch.where(rollout.attention_mask, rollout.input_ids, EOS))
    for one, two in zip(gradients(roles, rollout, SETTINGS), gradients(roles, other, SETTINGS), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-7)


def test_the_score_is_on_the_eos_and_truncated_rows_are_penalized() -> None:
    roles = make("llama", "full")
    rollout = rollout_of(roles)
    kl = rollout.logprobs - rollout.ref_logprobs
    for row in range(len(rollout)):
        length = int(rollout.response_mask[row].sum())
        ends = rollout.responses[row, length - 1] == EOS
        assert bool(rollout.finished[row]) == bool(ends)
        score = (rollout.scores[row] - 0.5) / 2.0 - (0.0 if ends else SETTINGS.missing_eos_penalty)
        expected = score - SETTINGS.kl_coef * kl[row, length - 1]
        torch.testing.assert_close(rollout.rewards[row, length - 1], expected)


@pytest.mark.parametrize(("kind", "valued"), [("full", True), ("lora", True), ("lora", False)])
def test_checkpointing_recomputes_each_layer_under_its_own_adapter(kind: Kind, valued: bool) -> None:
    plain, saving = (make("llama", kind, sft=kind == "lora", valued=valued) for _ in range(2))
    saving.enable_gradient_checkpointing()
    rollout = rollout_of(plain, SETTINGS if valued else GROUPED[0])
    for one, two in zip(gradients(plain, rollout, SETTINGS), gradients(saving, rollout, SETTINGS), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


def test_lora_keeps_one_base_in_memory_and_the_policy_starts_as_the_sft_adapter() -> None:
    roles = make("llama", "lora", sft=True)
    assert len(roles.models()) == 1
    (model,) = roles.models()
    assert isinstance(model, PeftModel)
    named = dict(model.named_parameters())
    base = [name for name in named if "lora_" not in name]
    assert len(base) == len(dict(tiny_llama(TOKENIZER).named_parameters()))
    policy = {name.replace(".policy.", ".x."): p for name, p in named.items() if ".policy." in name}
    reference = {name.replace(".reference.", ".x."): p for name, p in named.items() if ".reference." in name}
    assert policy.keys() == reference.keys()
    assert all(torch.equal(policy[name], reference[name]) for name in policy)
    trained = {name for name, parameter in named.items() if parameter.requires_grad}
    assert trained == {name for name in named if ".policy." in name or ".value." in name}
    assert all(named[name].dtype == torch.float32 for name in trained)


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_an_update_moves_policy_and_value_and_nothing_else(kind: Kind) -> None:
    roles = make("llama", kind, sft=kind == "lora")
    rollout = rollout_of(roles)
    trained = {id(p) for p in [*roles.policy.parameters(), *roles.value.parameters()]}
    parameters = {id(p): p for model in roles.models() for p in model.parameters()}
    before = {key: parameter.detach().clone() for key, parameter in parameters.items()}
    learner(roles, SETTINGS).update(rollout, torch.Generator().manual_seed(0))
    moved = {key for key, parameter in parameters.items() if not torch.equal(before[key], parameter)}
    assert moved <= trained
    assert len(moved) > 0.9 * len(trained & parameters.keys())


class Waits(TorchFunctionMode):
    """Notes what makes the CPU wait for a tensor's numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        by_mask = "item__" in name and isinstance(args[1], Tensor) and args[1].dtype == torch.bool
        if by_mask or name in {"item", "tolist", "__bool__", "__float__", "__int__", "__index__", "nonzero", "cpu"}:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("model", "kind", "sft"), CASES)
def test_a_step_waits_for_the_device_once(model: str, kind: Kind, sft: bool) -> None:
    roles = make(model, kind, sft=sft)
    rollout = rollout_of(roles)
    trainer = learner(roles, SETTINGS)
    draw = torch.Generator().manual_seed(0)
    trainer.update(rollout, draw)  # the optimizer makes its memory
    with Waits() as waits:
        steps = trainer.update(rollout, draw).optimizer_steps
    assert steps == 4
    # for each step its figures, and its row numbers, which are on the CPU; then lengths, rows that train, first ratio
    assert sorted(waits.names) == ["__float__", *["tolist"] * (2 * steps + 2)]


def test_a_gradient_that_is_not_finite_stops_before_the_step() -> None:
    roles = make("llama", "full")
    rollout = rollout_of(roles)
    broken = replace(rollout, returns=torch.where(rollout.response_mask, float("inf"), 0.0))
    before = copy.deepcopy(roles.policy.model.state_dict())
    with pytest.raises(TrainingError, match="not finite"):
        learner(roles, SETTINGS).update(broken, torch.Generator().manual_seed(0))
    assert all(torch.equal(before[name], tensor) for name, tensor in roles.policy.model.state_dict().items())


def test_sampling_is_not_bent_by_the_models_generation_config() -> None:
    roles = make("llama", "full")
    roles.policy.model.generation_config.top_k = 1
    roles.policy.model.generation_config.repetition_penalty = 5.0
    engine = TransformersEngine(roles, EOS, 20, 5.0, 16)
    first = engine.generate([prompts()[0]["prompt_ids"]] * 16, seed=0)
    assert len({tuple(response) for response in first}) > 10  # top_k 1 would give one
    assert first == engine.generate([prompts()[0]["prompt_ids"]] * 16, seed=0)
