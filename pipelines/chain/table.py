"""The stages in order: what each needs, makes and depends on. A further stage is one more entry. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.config import Config
from pipelines.config.baselines_section import Baseline, Estimator
from pipelines.config.scorer_section import ScorerSection
from pipelines.config.training_section import TrainerSection
from pipelines.data.prepare import DataKind, effective_sources
from pipelines.data.sources import source_files
from pipelines.errors import UsageError, nearest_name
from pipelines.models.base_record import asks_for_the_time
from pipelines.run.directory import BASELINES, RunDir, in_round
from pipelines.run.stage import Stage
from pipelines.scorers.function import function_file


def _common(config: Config) -> dict[str, Any]:
    """Settings of every stage that has a model; the day only where the chat template of one of the run writes it."""
    dated = config.run.date is not None and asks_for_the_time(config)
    day = {"date": config.run.date} if dated else {}
    return {"seed": config.run.seed, "model": config.model.results_view()} | day


def _split(config: Config) -> dict[str, Any]:
    """Settings of the split; older runs have no `split_by`."""
    data = config.data
    return {"eval_fraction": data.eval_fraction} | ({"split_by": data.split_by} if data.split_by != "opening" else {})


def _data_section(kind: DataKind) -> Callable[[Config], dict[str, Any]]:
    def section(config: Config) -> dict[str, Any]:
        data = config.data
        view: dict[str, Any] = _split(config) | {"on_bad_row": data.on_bad_row}
        if data.task is not None:
            view |= {"task": data.task.name, "rows": getattr(data.task, kind, 0), "seed": config.run.seed}
            if kind == "comparisons":
                pool = config.feedback.simulated
                view["feedback"] = {"annotators": pool.annotators, "noise": pool.noise, "bias": pool.bias}
        else:
            view["sources"] = [source.results_view() for source in effective_sources(config, kind)]
        return view

    return section


def _data_files(kind: DataKind) -> Callable[[Config], tuple[Path, ...]]:
    def files(config: Config) -> tuple[Path, ...]:
        if config.data.task is not None:
            return ()
        files = (source_files(source) for source in effective_sources(config, kind))
        return tuple(path for paths in files for path in paths)

    return files


def _data_stage(kind: DataKind, enabled: Callable[[Config], bool]) -> Stage:
    return Stage(
        name=f"data/{kind}",
        runner=f"pipelines.data.prepare:{kind}",
        needs=lambda config: {},
        section=_data_section(kind),
        produces=("train.jsonl", "heldout.jsonl"),
        sources=_data_files(kind),
        heavy=False,
        enabled=enabled,
    )


def _named(*names: str) -> dict[str, str]:
    """Needed stages that go by their own names."""
    return {name: name for name in names}


def _sft(config: Config) -> tuple[str, ...]:
    return ("sft",) if config.sft.enabled else ()


def _asks_people(config: Config) -> bool:
    """Whether answers of the run's own models are sampled and judged, by people or by simulated ones."""
    return config.feedback.source != "file"


def _reads_comparisons(config: Config) -> bool:
    """Whether the reward model trains on comparisons that were there before; beside new ones only if it is told so."""
    return config.reward.enabled and config.trains_on("comparisons")


def _reads_judgements(config: Config) -> bool:
    return config.reward.enabled and config.trains_on("judgements")


def _reads_prompts(config: Config) -> bool:
    return config.ppo.enabled or config.eval.enabled or _asks_people(config)


def _of_ppo(config: Config, *keys: str) -> dict[str, Any]:
    """Values of the ppo section that another stage works by: how a response is drawn is said once, there."""
    return {key: getattr(config.ppo, key) for key in keys}


def _scorer_files(*scorers: ScorerSection | None) -> tuple[Path, ...]:
    """The files of Python functions and of constraints among the scorers: editing one changes the result."""
    parts = [part for scorer in scorers if scorer is not None for part in scorer.flat()]
    files = (function_file(part.function) for part in parts if part.function is not None)
    constraints = (Path(part.file) for part in parts if part.file is not None)
    return (*(path for path in files if path is not None), *constraints)


def _sample_section(config: Config) -> dict[str, Any]:
    questions = [question.results_view() for question in config.feedback.label.questions]
    ppo = _of_ppo(config, "response_length", "max_prompt_length", "stop_tokens", "overlong")
    return _common(config) | {"sample": config.feedback.sample.results_view(), "questions": questions, "ppo": ppo}


def _labels_section(config: Config) -> dict[str, Any]:
    """Settings that the labels depend on.

    Of people only the questions: names, guidelines, controls and overlap may change from round to round, and what was
    answered under the earlier ones stays.
    """
    feedback = config.feedback
    view: dict[str, Any] = {"source": feedback.source, "seed": config.run.seed}
    label = feedback.label.results_view()
    if feedback.source != "simulated":
        return view | {"questions": label["questions"]}
    label = {key: value for key, value in label.items() if key not in ("annotators", "guidelines")}  # nobody reads them
    task = config.data.task.name if config.data.task else None
    return view | {"label": label, "simulated": feedback.simulated.results_view(), "task": task}


def _labels_files(config: Config) -> tuple[Path, ...]:
    """Files that simulated annotators use: the controls, and the file of their scoring function."""
    feedback = config.feedback
    if feedback.source != "simulated":
        return ()
    controls = () if feedback.label.controls is None else (feedback.label.controls,)
    return (*controls, *_scorer_files(feedback.simulated.scorer))


def _pairs_section(config: Config) -> dict[str, Any]:
    return {"pairs": config.feedback.pairs.results_view()} | _split(config)


def _reward_needs(config: Config) -> dict[str, str]:
    comparisons = ("data/comparisons",) if _reads_comparisons(config) else ()
    judgements = ("data/judgements",) if _reads_judgements(config) else ()
    pairs = ("pairs",) if config.trains_on("pairs") else ()
    prompts = ("data/prompts",) if _reads_prompts(config) else ()
    return _named(*comparisons, *judgements, *pairs, *prompts, *_sft(config))


def _withholding(config: Config) -> dict[str, Any]:
    """The setting that decides whether rows are kept for the judge."""
    return {"independent_judge": config.eval.independent_judge} if config.has_judge else {}


_RESPONSE = ("response_length", "temperature", "rollout_forward_batch_size", "stop_tokens")
_PROMPT = ("max_prompt_length", "overlong", "top_k", "top_p")
"""Keys that the responses for the normalization depend on; runs begun before `data.split_by` recorded the first."""


def _ppo_needs(config: Config) -> dict[str, str]:
    return _named("data/prompts", *_sft(config), *(("reward",) if config.ppo.reward.uses("run") else ()))


def _rows_and_sft(config: Config) -> list[str]:
    """The rows that the reward model is trained on, and the SFT model."""
    return [name for name in _reward_needs(config) if name != "data/prompts"]


def _judge_needs(config: Config) -> dict[str, str]:
    """Rows of the last round, the SFT model for its tokenizer, and the reward models of all rounds."""
    rounds = config.feedback.rounds
    rows = _rows_and_sft(config)
    needs = {in_round(name, rounds) if name in LOOP else name: name for name in rows}
    earlier = {in_round("reward", number): f"reward-{number}" for number in range(1, rounds)}
    return needs | earlier | {in_round("reward", rounds): "reward"}


def _eval_needs(config: Config) -> dict[str, str]:
    """Policies of all rounds, and the last reward model."""
    needs, rounds = _named("data/prompts", *_sft(config)), config.feedback.rounds
    choosing = [config.ppo.reward] if "bon" in config.eval.policies else []
    if any(scorer.uses("run") for scorer in (*config.eval_scorers, *choosing)):
        needs[in_round("reward", rounds)] = "reward"
    if config.has_judge:
        needs["judge"] = "judge"
    if config.ppo.enabled:
        needs |= {in_round("ppo", number): "ppo" if number == 1 else f"ppo-{number}" for number in range(1, rounds + 1)}
    baselines = [stage for stage in _compared(config) if config.ppo.enabled or stage.kind != "ppo"]
    return needs | {stage.name: stage.name.rpartition("/")[2] for stage in baselines}


def _eval_files(config: Config) -> tuple[Path, ...]:
    """Files of scoring functions, and those with prompts of further tests."""
    choosing = [config.ppo.reward] if "bon" in config.eval.policies else []
    return (*_scorer_files(*config.eval_scorers, *choosing), *config.eval.files)


STAGES: tuple[Stage, ...] = (
    _data_stage("demonstrations", lambda config: config.sft.enabled),
    _data_stage("comparisons", _reads_comparisons),
    _data_stage("judgements", _reads_judgements),
    _data_stage("prompts", _reads_prompts),
    Stage(
        name="sft",
        runner="pipelines.sft.stage:run",
        needs=lambda config: _named("data/demonstrations"),
        section=lambda config: _common(config) | {"sft": config.sft.results_view()},
        produces=("model", "metrics.jsonl"),
        enabled=lambda config: config.sft.enabled,
    ),
    Stage(
        name="sample",
        runner="pipelines.sampling.stage:run",
        needs=lambda config: _named("data/prompts", *_sft(config)),
        section=_sample_section,
        produces=("tasks.jsonl",),
        enabled=_asks_people,
    ),
    Stage(
        name="labels",
        runner="pipelines.labels.stage:labels",
        needs=lambda config: _named("sample"),
        section=_labels_section,
        sources=_labels_files,
        produces=("tasks.jsonl", "agreement.json", "agreement.txt"),
        heavy=False,
        enabled=_asks_people,
    ),
    Stage(
        name="pairs",
        runner="pipelines.labels.pairs.stage:pairs",
        needs=lambda config: _named("labels"),
        section=_pairs_section,
        produces=("train.jsonl", "heldout.jsonl"),
        heavy=False,
        enabled=_asks_people,
    ),
    Stage(
        name="reward",
        runner="pipelines.reward.stage:run",
        needs=_reward_needs,
        section=lambda config: (
            _common(config)
            | {
                "reward": config.reward.results_view(),
                "ppo": _of_ppo(config, *_RESPONSE, *(_PROMPT if config.data.split_by == "question" else ())),
            }
            | _withholding(config)
        ),
        added_needs=("data/prompts",),
        produces=("model", "golden.json", "metrics.jsonl"),
        enabled=lambda config: config.reward.enabled,
    ),
    Stage(
        name="ppo",
        runner="pipelines.ppo.stage:run",
        parallel=True,
        needs=_ppo_needs,
        section=lambda config: _common(config) | {"ppo": config.ppo.results_view()},
        sources=lambda config: _scorer_files(config.ppo.reward),
        produces=("model", "metrics.jsonl", "samples.jsonl"),
        enabled=lambda config: config.ppo.enabled,
    ),
    Stage(
        name="judge",
        runner="pipelines.reward.judge:run",
        needs=_judge_needs,
        section=lambda config: _common(config) | {"reward": config.reward.results_view()} | _split(config),
        produces=(),
        on_demand=True,
        enabled=lambda config: config.has_judge,
    ),
    Stage(
        name="eval",
        runner="pipelines.evaluate.stage:run",
        needs=_eval_needs,
        section=lambda config: (
            _common(config)
            | {
                "eval": config.eval.results_view() | {"temperature": config.eval_temperature},
                "scorers": [scorer.results_view() for scorer in config.eval_scorers],
                **({"best_by": config.ppo.reward.results_view()} if "bon" in config.eval.policies else {}),
                "ppo": _of_ppo(config, "response_length", "max_prompt_length", "stop_tokens")
                | _of_ppo(config, *(("top_k", "top_p") if config.ppo.cuts_sampling else ())),
            }
        ),
        sources=_eval_files,
        produces=("results.json", "answers.jsonl", "table.md", "table.txt"),
        enabled=lambda config: config.eval.enabled,
    ),
)
"""The stages of one round."""


def _baseline(name: Estimator) -> Stage:
    """PPO's stage with another source of advantages: the same reference, reward, prompts and number of responses."""
    (ppo,) = (stage for stage in STAGES if stage.name == "ppo")

    def configured(config: Config) -> Config:
        return config.as_baseline(name)

    return replace(
        ppo,
        name=f"{BASELINES}/{name}",
        section=lambda config: ppo.section(configured(config)),
        configured=configured,
        works_as="ppo",
    )


def _dpo_section(config: Config) -> dict[str, Any]:
    trainer = config.as_dpo().reward.results_view()
    as_reward = {key: value for key, value in trainer.items() if key in TrainerSection.model_fields}
    return _common(config) | {"reward": as_reward, "dpo": config.baselines.dpo.results_view()} | _withholding(config)


BASELINE_STAGES: dict[Baseline, Stage] = {
    "dpo": Stage(
        name=f"{BASELINES}/dpo",
        runner="pipelines.reward.dpo:run",
        needs=lambda config: _named(*_rows_and_sft(config)),
        section=_dpo_section,
        produces=("model", "metrics.jsonl"),
        enabled=lambda config: config.learns_from_pairs,
        configured=Config.as_dpo,
        works_as="dpo",
    ),
    "rloo": _baseline("rloo"),
    "grpo": _baseline("grpo"),
}
"""Stages of `rlhf baseline`; `rlhf all` runs those that the evaluation compares."""
NAMES = ("data", "sft", "sample", "labels", "pairs", "reward", "ppo", "judge", "eval")
"""What a user calls a stage; `data` is the data stages together, and each of them has its own name too."""
LOOP = {"sample": {"ppo": "policy"}, "labels": {}, "pairs": {"pairs": "pairs"}, "reward": {}, "ppo": {"ppo": "policy"}}
"""The stages that every further round of feedback makes anew, and what each takes over from the round before."""


def stages_of(config: Config) -> tuple[Stage, ...]:
    """All stages of a configuration in their order: the loop's once a round, baselines, the judge, the evaluation."""
    *first, judge, last = STAGES
    rounds = range(2, config.feedback.rounds + 1)
    later = [_of_round(stage, number) for number in rounds for stage in first if stage.name in LOOP]
    return (*first, *later, *_compared(config), judge, last)


def _compared(config: Config) -> list[Stage]:
    """The baselines that the evaluation compares."""
    return [stage for name, stage in BASELINE_STAGES.items() if name in config.eval.policies]


def with_begun_baselines(stages: tuple[Stage, ...], run_dir: RunDir) -> tuple[Stage, ...]:
    """These stages, and the baselines that were begun or made in a run though its configuration does not ask for them.

    They come before the last two, which are judge and evaluation.
    """
    begun = [
        stage
        for stage in BASELINE_STAGES.values()
        if stage not in stages and (run_dir.stage(stage.name).exists() or run_dir.partial(stage.name).exists())
    ]
    return (*stages[:-2], *begun, *stages[-2:])


def _of_round(stage: Stage, number: int) -> Stage:
    """A stage of the loop in a later round: it reads this round's artifacts and what the one before left."""

    def needs(config: Config) -> dict[str, str]:
        own = {in_round(name, number) if name in LOOP else name: role for name, role in stage.needs(config).items()}
        return own | {in_round(name, number - 1): role for name, role in LOOP[stage.name].items()}

    return replace(stage, name=in_round(stage.name, number), needs=needs)


def named(name: str, config: Config) -> tuple[Stage, ...]:
    """The stages of all rounds that a user's name means: a stage, or the first part of several.

    A stage of the second round is ``rounds/02/ppo``.

    Raises:
        UsageError: no such stage.
    """
    stages = stages_of(config)
    matching = (
        tuple(stage for stage in stages if stage.name == name)
        or tuple(stage for stage in stages if name in stage.name.split("/"))
        or tuple(stage for stage in BASELINE_STAGES.values() if stage.name == name)
    )
    if not matching:
        hint = nearest_name(name, NAMES, f"stages: {', '.join(NAMES)}")
        raise UsageError(f"there is no stage `{name}`", hint=hint)
    return matching


def select(first: str | None, last: str | None, config: Config) -> tuple[Stage, ...]:
    """The stages from `first` to `last`, both included.

    Raises:
        UsageError: no such stage, or they stand the other way round.
    """
    stages = stages_of(config)
    names = [stage.name for stage in stages]
    for stage in (stage for name in (first, last) if name for stage in named(name, config)):
        if stage.name not in names:
            raise UsageError(
                f"the chain does not run {stage.name}",
                hint=f"add {stage.name.rpartition('/')[2]} to eval.policies, or run `rlhf baseline`",
            )
    start = names.index(named(first, config)[0].name) if first else 0
    stop = names.index(named(last, config)[-1].name) if last else len(stages) - 1
    if start > stop:
        raise UsageError(f"--from {first} comes after --until {last}")
    return stages[start : stop + 1]


def with_data_of(name: str, config: Config) -> tuple[Stage, ...]:
    """A stage, and the stages before it that it reads and that are light or on demand: what `rlhf sft` runs."""
    (stage,) = named(name, config)
    return (*_light_before((stage,), config), stage)


def _light_before(stages: Iterable[Stage], config: Config) -> tuple[Stage, ...]:
    """The stages that run with these, and those that they need themselves, in their order."""
    needed = {name for stage in stages for name in stage.needs(config)}
    light = [stage for stage in stages_of(config) if stage.name in needed and (stage.on_demand or not stage.heavy)]
    if not light:
        return ()
    names = {stage.name for stage in (*_light_before(light, config), *light)}
    return tuple(stage for stage in stages_of(config) if stage.name in names)
