"""SessionInfo: which model and framework a session is of, and what its reader should be told."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

Status = Literal["running", "finished", "failed"]
Profiled = Literal["in training", "apart"]


@dataclass(frozen=True)
class SessionInfo:
    """What a session says of itself, at its start and again at its end.

    `started` is in seconds since the epoch. Which steps were sampled: every `every`-th, those in `steps`, or as many as
    `overhead_budget` allows, a share of the training time; the other two are None. `rank` is this process' number
    among the `world_size` of a distributed job. `profiled` says which step times, memory and FLOPs are of: the very one
    that trained ("in training"), or the same step run once more, uncompiled, on the same batch and taken back
    ("apart").
    `notices` are sentences for whoever looks at the session, such as what could not be recorded and why.
    `ended_because` is empty until the session ended by an error.
    """

    model: str
    framework: str
    started: float
    every: int | None = None
    status: Status = "running"
    notices: tuple[str, ...] = ()
    ended_because: str = ""
    overhead_budget: float | None = None
    steps: tuple[int, ...] | None = None
    rank: int = 0
    world_size: int = 1
    profiled: Profiled = "in training"

    def to_json(self) -> str:
        """Return the JSON that a session keeps."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote; keys that a newer minor version added are left aside.

        Raises:
            ValueError: the text is not such a record.
        """
        known = {field.name for field in fields(cls)}
        try:
            document: dict[str, Any] = {key: value for key, value in json.loads(text).items() if key in known}
            steps = document.get("steps")
            lists = {"notices": tuple(document.get("notices", ())), "steps": None if steps is None else tuple(steps)}
            info = cls(**document | lists)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"The session's record of itself is not one: {error!r}.") from error
        if info.status not in get_args(Status):
            raise ValueError(f"The session's status is {info.status!r}; known are {', '.join(get_args(Status))}.")
        if info.profiled not in get_args(Profiled):
            raise ValueError(f"The session's profiled is {info.profiled!r}; known are {', '.join(get_args(Profiled))}.")
        return info
