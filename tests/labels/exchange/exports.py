"""Exports of other programs in every listed shape, with made-up content."""

from __future__ import annotations

from typing import Any

from pipelines.labels.label_types import LabelSet

ITEMS = [
    {"id": "mdn", "title": "One", "body": "A function is a recipe."},
    {"id": "wiki", "title": "Two", "body": "Functions map values."},
    {"id": "blog", "title": "Three", "body": "Ask somebody else."},
]
PAIR = {"prompt": "What is a function?", "text1": "A recipe.", "text2": "No idea."}
RANKED = {"prompt": "What is a function?", "items": ITEMS}


def result(name: str, target: str, kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"id": "Dx_aB91ISN", "from_name": name, "to_name": target, "type": kind, "value": value}


def selected(side: str, target: str = "pw") -> dict[str, Any]:
    return result("pw", target, "pairwise", {"selected": side})


def ranker(value: Any) -> dict[str, Any]:
    return result("rank", "results", "ranker", {"ranker": value})


def annotation(*results: dict[str, Any], by: Any = 10, **more: Any) -> dict[str, Any]:
    return {
        "id": 1001,
        "completed_by": by,
        "was_cancelled": False,
        "ground_truth": False,
        "lead_time": 4.288,
        "result_count": len(results),
        "task": 1,
        "created_at": "2021-03-09T22:16:08.728353Z",
        "updated_at": "2021-03-09T22:16:08.728378Z",
        "result": list(results),
        **more,
    }


def task(data: dict[str, Any], *annotations: dict[str, Any], **more: Any) -> dict[str, Any]:
    times = {"created_at": "2021-03-09T21:52:49.513742Z", "updated_at": "2021-03-09T22:16:08.746926Z"}
    return {"id": 1, "data": data, "project": 83, **times, "annotations": list(annotations), "predictions": [], **more}


def minimal(data: dict[str, Any], results: dict[str, Any], annotator: Any = 10, **more: Any) -> dict[str, Any]:
    about = {"annotator": annotator, "annotation_id": 1001, "created_at": "2021-03-09T22:16:08.728353Z"}
    about |= {"updated_at": "2021-03-09T22:16:08.728378Z", "lead_time": 4.288}
    return {**data, "id": 1, **results, **about, **more}


FIELDS = {"prompt": "What is a function?", "response_1": "A recipe.", "response_2": "No idea."}
USERS = ("6a7a3d0e-0000-4000-8000-000000000001", "6a7a3d0e-0000-4000-8000-000000000002")


def nested(responses: Any, fields: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A record as `records.to_list()` of Argilla gives it."""
    plain = {"id": "r1", "status": "completed", "fields": fields or FIELDS, "metadata": {}, "suggestions": {}}
    return {**plain, "vectors": {}, "_server_id": "x", "responses": responses, **more}


def flat(columns: dict[str, Any], fields: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A record as `records.to_list(flatten=True)` of Argilla gives it."""
    return {"id": "r1", "status": "completed", "_server_id": "x", **(fields or FIELDS), **columns, **more}


def wire(*responses: dict[str, Any], fields: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A record as Argilla's server gives it."""
    plain = {"id": "x", "external_id": "r1", "status": "completed", "fields": fields or FIELDS, "metadata": None}
    return {**plain, "suggestions": [], "dataset_id": "d", "responses": list(responses), **more}


def response(user: str, status: str = "submitted", **values: Any) -> dict[str, Any]:
    return {"values": {name: {"value": value} for name, value in values.items()}, "status": status, "user_id": user}


def values(found: LabelSet) -> list[dict[str, Any]]:
    """The values of every label, in their order."""
    return [dict(label.values) for label in found.labels]
