"""Who may ask, and what is said of a request that cannot be answered."""

import argparse

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from tensorboard_plugin_neuraldbg import queries
from tensorboard_plugin_neuraldbg.requests import Guard, RequestError

RUN = "net/first"
MATRIX = {"run": RUN, "kind": "gradients", "statistic": "l2", "width": 9}
SERIES = {"run": RUN, "kind": "gradients", "statistics": "l2", "row": 0, "width": 9}
HISTOGRAMS = {"run": RUN, "kind": "gradients", "row": 0, "width": 9}
PROFILE = {"run": RUN, "kinds": "trace"}
PROFILE_SERIES = {"run": RUN, "kind": "timing", "row": 0, "width": 9}
STATISTICS = "count, nan, posinf, neginf, zeros, min, max, mean, std, l2, rms, absmax, zero_share, nonfinite"
KINDS = "activations, activation_gradients, gradients, weights, updates"

BAD = [
    ("session", {}, 400, "The parameter 'run' is missing; write run=NAME."),
    ("session", {"run": "x"}, 404, "There is no run 'x'; write 'net/first'."),
    ("session", {"run": "../net/first"}, 404, "There is no run '../net/first'; write 'net/first'."),
    ("session", {"run": "/etc"}, 404, "There is no run '/etc'; write 'net/first'."),
    ("session", {"run": ["a", "b"]}, 400, "The parameter 'run' was given 2 times; write it once."),
    ("session", {"ron": "x"}, 400, "There is no parameter 'ron' here; write run, rank, revision."),
    ("sessions", {"run": "x"}, 400, "There is no parameter 'run' here; there are none."),
    ("layers", {"run": "x"}, 404, "There is no run 'x'; write 'net/first'."),
    ("steps", {"run": "x"}, 404, "There is no run 'x'; write 'net/first'."),
    ("matrix", MATRIX | {"kind": "grads"}, 404, f"There is no kind 'grads'; write one of {KINDS}."),
    (
        "matrix",
        MATRIX | {"kind": "weights"},
        404,
        f"The run {RUN!r} has no 'weights' yet; it has activations, gradients.",
    ),
    ("matrix", MATRIX | {"statistic": "l3"}, 400, f"statistic was given as 'l3'; write one of {STATISTICS}."),
    ("matrix", MATRIX | {"width": 0}, 400, "width was given as '0'; write a whole number from 1 to 4096."),
    ("matrix", MATRIX | {"width": 4097}, 400, "width was given as '4097'; write a whole number from 1 to 4096."),
    ("matrix", MATRIX | {"width": "1e3"}, 400, "width was given as '1e3'; write a whole number from 1 to 4096."),
    ("matrix", MATRIX | {"width": ""}, 400, "width was given as ''; write a whole number from 1 to 4096."),
    ("matrix", MATRIX | {"width": "٣"}, 400, "width was given as '٣'; write a whole number from 1 to 4096."),
    ("matrix", MATRIX | {"by": "type"}, 400, "by was given as 'type'; write layer."),
    ("matrix", MATRIX | {"first": 9, "last": 8}, 400, "first (9) is after last (8); write them the other way round."),
    (
        "matrix",
        MATRIX | {"first": -1},
        400,
        "first was given as '-1'; write a whole number from 0 to 9007199254740992.",
    ),
    ("series", SERIES | {"row": 4}, 404, "There is no row 4 in 'gradients'; its rows are 0 to 3."),
    (
        "series",
        SERIES | {"row": 1, "by": "layer"},
        404,
        "Layer 1 has no parameters; `rows` in the head of `matrix` lists those that have.",
    ),
    ("series", SERIES | {"row": "one"}, 400, "row was given as 'one'; write a whole number from 0 to 2147483647."),
    ("series", SERIES | {"statistics": "l2,"}, 400, f"statistics was given as ''; write one of {STATISTICS}."),
    (
        "frame",
        {"run": RUN, "step": "-10"},
        400,
        "step was given as '-10'; write a whole number from 0 to 9007199254740992.",
    ),
    ("histograms", HISTOGRAMS | {"row": 4}, 404, "There is no row 4 in 'gradients'; its rows are 0 to 3."),
    ("histograms", HISTOGRAMS | {"kind": "updates"}, 404, f"The run {RUN!r} has no histograms of 'updates' yet."),
    (
        "profile",
        PROFILE | {"kinds": "timing,weights"},
        400,
        "kinds was given as 'weights'; write one of trace, timing, memory, flops, activity, silent_units.",
    ),
    (
        "profile_series",
        PROFILE_SERIES | {"kind": "trace"},
        400,
        "kind was given as 'trace'; write one of timing, memory, flops, activity.",
    ),
    ("profile_series", PROFILE_SERIES, 404, f"The run {RUN!r} has no 'timing' yet."),
    ("trace_series", {"run": RUN, "width": 3}, 404, f"The run {RUN!r} has no 'trace' yet."),
    (
        "nothing.js",
        {},
        404,
        "The viewer was not built; run `pip install .` in NeuralDbg's source folder, then start TensorBoard again.",
    ),
]
MISSING = [
    (route, given, name)
    for route, given in (
        ("matrix", MATRIX),
        ("series", SERIES),
        ("histograms", HISTOGRAMS),
        ("profile", PROFILE),
        ("profile_series", PROFILE_SERIES),
        ("trace_series", {"run": RUN, "width": 3}),
        ("anomalies", {"run": RUN}),
    )
    for name in given
]
PLACEHOLDERS = {
    "run": "NAME", "kind": "KIND", "statistic": "NAME", "statistics": "NAME,NAME", "row": "NUMBER", "width": "COLUMNS",
    "kinds": "KIND,KIND",
}  # fmt: skip


@pytest.mark.parametrize(("route", "parameters", "status", "sentence"), BAD)
def test_what_is_wrong_is_said_in_one_sentence(server, monkeypatch, tmp_path, route, parameters, status, sentence):
    monkeypatch.setattr("tensorboard_plugin_neuraldbg.viewer_files.FOLDER", tmp_path / "static")
    answer = server.ask(route, **parameters)
    assert (answer.status, answer.error) == (status, sentence)


@pytest.mark.parametrize(("route", "parameters", "name"), MISSING)
def test_a_missing_parameter_is_named(server, route, parameters, name):
    answer = server.ask(route, **{key: value for key, value in parameters.items() if key != name})
    assert answer.status == 400
    assert answer.error == f"The parameter {name!r} is missing; write {name}={PLACEHOLDERS[name]}."


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("route", ["sessions", "matrix", "index.js"])
def test_only_get_is_allowed(server, route, method):
    response = server.get(f"/data/plugin/neuraldbg/{route}", method=method)
    assert (response.status_code, response.headers["Allow"]) == (405, "GET")
    assert response.json == {"error": f"{method} is not allowed here; write GET."}


def refusal(guard, host=None, **headers):
    """Return the status and the sentence with which a request is refused; None where it passes."""
    environ = EnvironBuilder(headers=headers).get_environ()
    environ.pop("HTTP_HOST", None)
    if host is not None:
        environ["HTTP_HOST"] = host
    try:
        guard.check(Request(environ))
    except RequestError as error:
        return error.status, str(error)
    return None


def guard_of(host=None, *, bind_all=False):
    return Guard.from_flags(argparse.Namespace(host=host, bind_all=bind_all))


LOOPBACK = ["localhost", "localhost:6006", "LOCALHOST:6006", "localhost.", "127.0.0.1:6006", "127.8.9.1", "[::1]:6006"]
FOREIGN = [
    "evil.example",
    "evil.example:6006",
    "192.168.1.5:6006",
    "localhost.evil.example",
    "[::2]:6006",
    "[::1",
    "",
    None,
]


@pytest.mark.parametrize("host", LOOPBACK)
@pytest.mark.parametrize("flag", [None, "localhost", "gpu7"])
def test_loopback_names_pass(flag, host):
    assert refusal(guard_of(flag), host) is None


@pytest.mark.parametrize("host", FOREIGN)
def test_other_names_are_refused(host):
    for flag in (None, "gpu7"):
        status, _ = refusal(guard_of(flag), host)
        assert status == 403


@pytest.mark.parametrize("host", [*LOOPBACK, *FOREIGN])
@pytest.mark.parametrize("guard", [guard_of(bind_all=True), guard_of("0.0.0.0"), guard_of("::")])  # noqa: S104
def test_any_name_passes_when_tensorboard_listens_everywhere(guard, host):
    assert refusal(guard, host) is None


@pytest.mark.parametrize(
    ("flag", "host"), [("gpu7", "GPU7:6006"), ("10.0.0.7", "10.0.0.7:80"), ("fe80::1", "[fe80::1]:80")]
)
def test_the_name_given_to_tensorboard_passes(flag, host):
    assert refusal(guard_of(flag), host) is None


def test_a_refused_name_is_told_what_to_do():
    assert refusal(guard_of(), "evil.example:6006") == (
        403,
        (
            "This TensorBoard does not answer to the host name 'evil.example': open it as localhost, or start it with "
            "--host or --bind_all."
        ),
    )


@pytest.mark.parametrize("site", ["same-origin", "none", None])
def test_requests_of_our_own_pages_pass(site):
    headers = {"Sec-Fetch-Site": site} if site else {}
    assert refusal(guard_of(), "localhost", **headers) is None


@pytest.mark.parametrize("site", ["cross-site", "same-site", "anything"])
def test_requests_of_other_pages_are_refused(site):
    assert refusal(guard_of(bind_all=True), "localhost", **{"Sec-Fetch-Site": site}) == (
        403,
        f"This request came from another page (Sec-Fetch-Site: {site}); open TensorBoard itself.",
    )


@pytest.mark.parametrize(
    "route",
    [
        *("sessions", "session", "layers", "steps", "matrix", "series", "frame", "histograms"),
        *("profile", "profile_series", "trace_series", "anomalies", "index.js", "x"),
    ],
)
def test_every_route_is_guarded(server, route):
    path = f"/data/plugin/neuraldbg/{route}"
    assert server.get(path, headers={"Host": "evil.example"}).status_code == 403
    response = server.get(path, headers={"Sec-Fetch-Site": "cross-site"})
    assert (response.status_code, response.mimetype) == (403, "application/json")


def test_what_fails_inside_is_logged_and_not_told(server, monkeypatch, caplog):
    def fail(_session):
        raise RuntimeError("a secret path")

    monkeypatch.setattr(queries, "layers", fail)
    answer = server.ask("layers", run=RUN)
    assert (answer.status, answer.document) == (
        500,
        {"error": "The request failed inside NeuralDbg; TensorBoard's log says why."},
    )
    assert "a secret path" in caplog.text
