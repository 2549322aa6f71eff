"""Label Studio's labeling configuration: written from questions, and read for its controls and buckets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from pipelines.errors import DataError
from pipelines.labels.label_types import Question
from pipelines.labels.questions import WORDS


@dataclass(frozen=True)
class LabelConfig:
    """Facts of a labeling configuration that an export does not hold.

    Attributes:
        controls: names of the controls, in the order of the configuration.
        buckets: names of each Ranker's buckets from best to worst, by name of the Ranker; none: it has no buckets.
    """

    controls: tuple[str, ...] = ()
    buckets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_config(path: Path) -> LabelConfig:
    """Read the XML of *Settings, Labeling Interface, Code*.

    Raises:
        DataError: the file cannot be read, is not XML, or has no control.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise DataError(f"the configuration cannot be read: {error.strerror or error}", where=str(path)) from error
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(
            f"the configuration is not valid XML: {error}",
            where=str(path),
            hint="copy it from Label Studio: Settings, Labeling Interface, Code",
        ) from error
    controls = [tag for tag in root.iter() if "name" in tag.attrib and "toName" in tag.attrib]
    if not controls:
        raise DataError("the configuration has no control, that is no tag with `name` and `toName`", where=str(path))
    buckets = {
        tag.attrib["name"]: tuple(bucket.attrib.get("name", "") for bucket in tag.iter("Bucket"))
        for tag in controls
        if tag.tag == "Ranker"
    }
    return LabelConfig(tuple(dict.fromkeys(tag.attrib["name"] for tag in controls)), buckets)


def config(questions: Sequence[Question], answers: int) -> str:
    """Return a labeling configuration in XML, for tasks of so many answers that `label_studio.tasks` wrote."""
    lines = ["<View>", '  <Header value="Prompt"/>', '  <Text name="prompt" value="$prompt"/>']
    if any(question.kind in ("pairwise", "binary", "scale") for question in questions):
        for place in range(1, answers + 1):
            lines.append(f'  <Header value="Answer {place}"/>')
            lines.append(f'  <Text name="answer_{place}" value="$text{place}"/>')
            lines += [
                line
                for question in questions
                if question.kind in ("binary", "scale")
                for line in _about_one(question, place)
            ]
    for question in questions:
        lines += _about_all(question)
    lines.append('  <TextArea name="comment" toName="prompt" placeholder="Comment" rows="2" maxSubmissions="1"/>')
    return "\n".join([*lines, "</View>", ""])


def _about_one(question: Question, place: int) -> Iterator[str]:
    name, target = f"{question.name}_{place}", f"answer_{place}"
    required = ' required="true"' if question.required else ""
    yield f"  <Header value={quoteattr(question.text or question.name)} size={quoteattr('5')}/>"
    if question.kind == "scale":
        yield f'  <Rating name="{name}" toName="{target}" maxRating="{question.points}"{required}/>'
        return
    yield f'  <Choices name="{name}" toName="{target}" choice="single-radio" showInline="true"{required}>'
    for number, words in (("1", question.high or "yes"), ("0", question.low or "no")):
        yield f'    <Choice value={quoteattr(words)} alias="{number}"/>'
    yield "  </Choices>"


def _about_all(question: Question) -> Iterator[str]:
    name, words = question.name, quoteattr(question.text or question.name)
    if question.kind == "pairwise":
        yield f"  <Header value={words}/>"
        yield f'  <Pairwise name="{name}" toName="answer_1,answer_2"/>'
        yield f'  <Choices name="{name}_tie" toName="answer_1" choice="single">'
        yield '    <Choice value="They are equally good" alias="tie"/>'
        yield "  </Choices>"
    elif question.kind == "ranking":
        if question.text == WORDS["ranking"]:  # a Ranker has no ties
            words = quoteattr("Rank the answers from best to worst.")
        yield f'  <List name="{name}_answers" value="$items" title={words}/>'
        yield f'  <Ranker name="{name}" toName="{name}_answers"/>'
    elif question.kind == "demonstration":
        yield f"  <Header value={words}/>"
        yield f'  <TextArea name="{name}" toName="prompt" rows="8" maxSubmissions="1"/>'
