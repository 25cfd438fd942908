"""The plugin's routes: parse the request, ask, respond. `http_api.md` documents each."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
from typing import Any

from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug.wrappers import Request, Response

from neural.session.frame import KINDS, PROFILES
from neural.session.statistics import NAMES
from tensorboard_plugin_neuraldbg import encoding, episodes, profiles, queries, ranks, viewer_files
from tensorboard_plugin_neuraldbg.decimation import Window
from tensorboard_plugin_neuraldbg.history import HistoryCache
from tensorboard_plugin_neuraldbg.log_directories import log_directories
from tensorboard_plugin_neuraldbg.requests import (
    BAD_PARAMETER,
    NOT_FOUND,
    WRONG_METHOD,
    Guard,
    Parameters,
    RequestError,
)
from tensorboard_plugin_neuraldbg.sessions import Session, Sessions

logger = logging.getLogger("neuraldbg")

Handler = Callable[[Request], Response]

JSON_TYPE = "application/json"
SERVER_ERROR = 500
MAX_WIDTH = 4096
# Steps travel as float64, which is exact up to here.
MAX_STEP = 2**53
MAX_ROW = 2**31 - 1
MAX_RANK = 10**9 - 1

_WINDOW = ("run", "rank", "width", "first", "last")
_SELECTION = (*_WINDOW, "kind", "by")


class NeuralDbgPlugin(base_plugin.TBPlugin):  # type: ignore[misc]  # TensorBoard ships no type information
    """Answers what `http_api.md` documents."""

    plugin_name = "neuraldbg"

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._guard = Guard.from_flags(context.flags)
        self._sessions = Sessions(*log_directories(context.flags))
        self._cache = HistoryCache()

    def get_plugin_apps(self) -> dict[str, Any]:
        """Return the WSGI application of each route."""
        handlers: dict[str, Handler] = {
            "/sessions": self._serve_sessions,
            "/session": self._serve_session,
            "/layers": self._serve_layers,
            "/steps": self._serve_steps,
            "/matrix": self._serve_matrix,
            "/series": self._serve_series,
            "/frame": self._serve_frame,
            "/histograms": self._serve_histograms,
            "/profile": self._serve_profile,
            "/profile_series": self._serve_profile_series,
            "/trace_series": self._serve_trace_series,
            "/anomalies": self._serve_anomalies,
            "/ranks": self._serve_ranks,
            "/rank_series": self._serve_rank_series,
            "/*": _serve_file,
        }
        return {route: self._application(handler) for route, handler in handlers.items()}

    def is_active(self) -> bool:
        """Return whether there is a session below the log directory."""
        return self._sessions.are_there()

    def data_plugin_names(self) -> Collection[str]:
        """Return the name under which summaries are ours."""
        return (self.plugin_name,)

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """Return what TensorBoard needs for the tab."""
        return base_plugin.FrontendMetadata(
            es_module_path=f"/{viewer_files.ENTRY}", tab_name="NeuralDbg", disable_reload=False
        )

    def _application(self, handler: Handler) -> Any:
        """Return `handler` as a WSGI application: guarded, and with every error as JSON."""

        def answer(request: Request) -> Response:
            try:
                self._guard.check(request)
                return handler(request)
            except RequestError as error:
                return _error(request, error.status, str(error))
            except Exception:
                logger.exception("The request for %s failed.", request.path)
                return _error(request, SERVER_ERROR, "The request failed inside NeuralDbg; TensorBoard's log says why.")

        return Request.application(answer)

    def _open(self, run: str, given: Parameters) -> Session:
        """Return the session that a request asks about: of the rank that it gives, else of the run's first."""
        return self._sessions.open(run, given.optional_number("rank", 0, MAX_RANK))

    def _serve_sessions(self, request: Request) -> Response:
        Parameters(request, ())
        return _json(request, self._sessions.document())

    def _serve_session(self, request: Request) -> Response:
        given = Parameters(request, ("run", "rank", "revision"))
        return _json(request, self._open(given.text("run"), given).document(given.optional("revision")))

    def _serve_layers(self, request: Request) -> Response:
        given = Parameters(request, ("run", "rank"))
        return _json(request, queries.layers(self._open(given.text("run"), given)))

    def _serve_steps(self, request: Request) -> Response:
        given = Parameters(request, ("run", "rank"))
        return _binary(request, queries.steps(self._open(given.text("run"), given)))

    def _serve_matrix(self, request: Request) -> Response:
        given = Parameters(request, (*_SELECTION, "statistic"))
        run, chosen = given.text("run"), _selection(given)
        statistic = given.choice("statistic", NAMES)
        return _binary(request, queries.matrix(self._open(run, given), self._cache, chosen, statistic))

    def _serve_series(self, request: Request) -> Response:
        given = Parameters(request, (*_SELECTION, "row", "statistics"))
        run, chosen = given.text("run"), _selection(given)
        row, names = given.number("row", 0, MAX_ROW), given.choices("statistics", NAMES)
        return _binary(request, queries.series(self._open(run, given), self._cache, chosen, row, names))

    def _serve_frame(self, request: Request) -> Response:
        given = Parameters(request, ("run", "rank", "step"))
        run, step = given.text("run"), given.optional_number("step", 0, MAX_STEP)
        return _binary(request, queries.frame(self._open(run, given), step))

    def _serve_histograms(self, request: Request) -> Response:
        given = Parameters(request, (*_SELECTION, "row"))
        run, chosen, row = given.text("run"), _selection(given), given.number("row", 0, MAX_ROW)
        return _binary(request, queries.histograms(self._open(run, given), self._cache, chosen, row))

    def _serve_profile(self, request: Request) -> Response:
        given = Parameters(request, ("run", "rank", "kinds", "step"))
        run, kinds = given.text("run"), given.choices("kinds", tuple(PROFILES))
        step = given.optional_number("step", 0, MAX_STEP)
        return _binary(request, profiles.profile(self._open(run, given), kinds, step))

    def _serve_profile_series(self, request: Request) -> Response:
        given = Parameters(request, (*_WINDOW, "kind", "row"))
        run, kind = given.text("run"), given.choice("kind", profiles.LAYER_PROFILES)
        row, window = given.number("row", 0, MAX_ROW), _window(given)
        return _binary(request, profiles.profile_series(self._open(run, given), self._cache, kind, row, window))

    def _serve_trace_series(self, request: Request) -> Response:
        given = Parameters(request, _WINDOW)
        run, window = given.text("run"), _window(given)
        return _binary(request, profiles.trace_series(self._open(run, given), self._cache, window))

    def _serve_anomalies(self, request: Request) -> Response:
        given = Parameters(request, ("run", "rank"))
        return _json(request, episodes.anomalies(self._open(given.text("run"), given)))

    def _serve_ranks(self, request: Request) -> Response:
        given = Parameters(request, ("run", "step"))
        run, step = given.text("run"), given.optional_number("step", 0, MAX_STEP)
        return _json(request, ranks.ranks(self._sessions.ranks(run), self._cache, step))

    def _serve_rank_series(self, request: Request) -> Response:
        given = Parameters(request, ("run", "scalar", "width", "first", "last"))
        run, scalar, window = given.text("run"), given.text("scalar"), _window(given)
        return _binary(request, ranks.rank_series(self._sessions.ranks(run), self._cache, scalar, window))


def _selection(given: Parameters) -> queries.Selection:
    kind = given.text("kind")
    if kind not in KINDS:
        raise RequestError(NOT_FOUND, f"There is no kind {kind!r}; write one of {', '.join(KINDS)}.")
    window = _window(given)
    by_layer = given.optional("by") is not None and given.choice("by", ("layer",)) == "layer"
    return queries.Selection(kind, by_layer, window)


def _window(given: Parameters) -> Window:
    first = given.optional_number("first", 0, MAX_STEP)
    last = given.optional_number("last", 0, MAX_STEP)
    if first is not None and last is not None and first > last:
        raise RequestError(BAD_PARAMETER, f"first ({first}) is after last ({last}); write them the other way round.")
    return Window(given.number("width", 1, MAX_WIDTH), first, last)


def _serve_file(request: Request) -> Response:
    name = request.path.partition(f"/{NeuralDbgPlugin.plugin_name}/")[2]
    found = viewer_files.find(name)
    response: Response = http_util.Respond(request, found.content, found.mime_type, content_encoding=found.encoding)
    return response


def _json(request: Request, document: dict[str, Any], status: int = 200, headers: Any = None) -> Response:
    text = json.dumps(document, allow_nan=False)
    response: Response = http_util.Respond(request, text, JSON_TYPE, code=status, headers=headers)
    return response


def _binary(request: Request, answer: queries.Answer) -> Response:
    body = encoding.pack(*answer)
    response: Response = http_util.Respond(request, body, encoding.CONTENT_TYPE)
    return response


def _error(request: Request, status: int, sentence: str) -> Response:
    headers = [("Allow", "GET")] if status == WRONG_METHOD else None
    return _json(request, {"error": sentence}, status, headers)
