"""Any text classifier or reward model as a scorer, through text and with its own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from peft.utils.save_and_load import load_peft_weights
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.peft_utils import find_adapter_config_file

from pipelines.config.model_section import looks_like_path
from pipelines.config.scorer_section import ScorerSection
from pipelines.errors import UsageError
from pipelines.models.adapters import patterns_in_time
from pipelines.models.base_model import LOADING_ERRORS, explain, quiet
from pipelines.models.sequence_scores import read_logit
from pipelines.models.text_classifier import TextClassifier, load_text_classifier, open_weights, refuse_lost
from pipelines.models.tokenizer import set_day
from pipelines.scorers.protocol import Completion, Dialogue, Progress, checked_scores


def open_classifier(
    section: ScorerSection, device: torch.device, date: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open the sequence classifier that ``section.path`` names, and its tokenizer; code of a model is never run.

    `date` is the day that its chat template writes, as `run.date`; None: that of today.

    Raises:
        ArtifactError: the directory is damaged, or the head is missing, untrained or for another task.
        HubError: the hub cannot be reached or refuses.
        UsageError: no such directory, or an adapter of another kind.
    """
    path = str(section.path)
    if not Path(path).is_dir() and looks_like_path(path):
        raise UsageError(f"there is no directory {path}", where="path", hint="a hub id has the form owner/name")
    try:
        with quiet():
            if find_adapter_config_file(path, revision=section.revision) is not None:
                return _open_adapter(path, section.revision, device, date)
    except LOADING_ERRORS as error:
        raise explain(error, path, section.revision) from error
    return load_text_classifier(path, device, revision=section.revision, labels=None, dtype=_dtype(device), date=date)


def _dtype(device: torch.device) -> torch.dtype | str:
    """The stored precision on a GPU; fp32 on a CPU, where 16-bit floats are slow or missing."""
    return "auto" if device.type == "cuda" else torch.float32


def _open_adapter(
    path: str, revision: str | None, device: torch.device, date: str | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Open a LoRA adapter with a score head of one label on its base; the LoRA layers stay unmerged in the model."""
    config = PeftConfig.from_pretrained(path, revision=revision)
    if config.task_type != "SEQ_CLS":
        raise UsageError(
            f"this is an adapter of kind {config.task_type}, not a reward model (SEQ_CLS)",
            where=path,
            hint="name the adapter of a reward model, or merge it into its base and save that as a classifier",
        )
    base = _base_of(path, config.base_model_name_or_path)
    model, lost = open_weights(base, device, revision=config.revision, labels=1, dtype=_dtype(device), new_head=True)
    weights = load_peft_weights(path, device="cpu", revision=revision)
    refuse_lost(path, [key for key in lost if not any(own.endswith(f".{key}") for own in weights)])
    source = path if not Path(path).is_dir() or (Path(path) / "tokenizer_config.json").is_file() else base
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    set_day(tokenizer, date)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    with patterns_in_time(path):
        wrapped = PeftModel.from_pretrained(model, path, revision=revision)
    return wrapped.get_base_model().to(device), tokenizer  # type: ignore[return-value]


def _base_of(path: str, named: str | None) -> str:
    """Base of an adapter: a hub id, or a directory, where a relative path counts from the adapter."""
    beside = Path(path) / (named or ".")
    if named and beside.is_dir():
        return str(beside.resolve())
    if not named or (not Path(named).is_dir() and looks_like_path(named)):
        raise UsageError(
            f"the base of this adapter cannot be found: {named or 'it names none'}",
            where=f"{path}/adapter_config.json",
            hint="set base_model_name_or_path there; a relative path counts from the adapter's directory",
        )
    return named


class ClassifierScorer:
    """One class of a sequence classifier; `TextClassifier` documents how it reads a dialogue."""

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        section: ScorerSection,
        *,
        progress: Progress | None = None,
    ) -> None:
        self.name = name
        self._classifier = TextClassifier(name, model, tokenizer)
        self._class = choose_logit(model, section.label, name)
        self._section = section
        self._progress = progress

    @property
    def truncated(self) -> int:
        """Number of texts that the classifier has cut so far."""
        return self._classifier.truncated

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the classifier."""
        return self._classifier.model.num_parameters()

    @classmethod
    def load(
        cls,
        name: str,
        section: ScorerSection,
        device: torch.device,
        *,
        date: str | None = None,
        progress: Progress | None = None,
    ) -> ClassifierScorer:
        """Load the classifier that ``section.path`` names; errors as of `open_classifier` and `choose_logit`."""
        return cls(name, *open_classifier(section, device, date), section, progress=progress)

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """The chosen output of the chosen class for each pair.

        Raises:
            DataError: the chat template refuses a dialogue, or a score is not finite.
        """
        thoughts = self._section.read_thoughts
        rows = [
            self._classifier.encode(prompt, answer.read(thoughts=thoughts), finished=answer.finished)
            for prompt, answer in zip(prompts, completions, strict=True)
        ]
        logits = self._classifier.all_logits(rows, self._section.batch_size, self._progress)
        scores = scores_of(logits, self._class, self._section)
        return checked_scores(f"the classifier {self.name}", scores, len(rows))


def scores_of(logits: Tensor, chosen: int, section: ScorerSection) -> list[float]:
    """The output that `section.output` names of the class `chosen` by its index, negated where lower is better.

    [B, classes] logits; a single class is read by sigmoid, several by softmax.
    """
    scores = logits[:, chosen]
    if logits.shape[1] == 1:
        scores = read_logit(scores, section.output)
    elif section.output != "logit":
        scores = logits.log_softmax(-1)[:, chosen]
        scores = scores.exp() if section.output == "probability" else scores
    return (-scores if section.lower_is_better else scores).tolist()


def choose_logit(model: PreTrainedModel, label: int | str | None, name: str) -> int:
    """Index of the logit that is the score: the only one, or the one that `label` names by index or by class name.

    Raises:
        UsageError: there are several and `label` names none of them.
    """
    classes = {int(index): str(text) for index, text in (model.config.id2label or {}).items()}
    if label is None and len(classes) == 1:
        return 0
    if isinstance(label, int) and label in classes:
        return label
    matching = [index for index, text in classes.items() if text == label]
    if len(matching) == 1:
        return matching[0]
    listed = ", ".join(f"{index}: {text}" for index, text in sorted(classes.items()))
    problem = f"has no class {label!r}" if label is not None else f"has {len(classes)} classes, and none was chosen"
    raise UsageError(f"the classifier {name} {problem}", where="label", hint=f"set `label` to one of these: {listed}")
