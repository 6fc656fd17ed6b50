"""`askonce semantic tune`: what thresholds would have done, from a user's own log."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from askonce import ConfigurationError
from askonce.semantic import FunctionEmbedder, Logged, read_log, tune
from askonce.testing import FakeProvider
from askonce_cli import _app


def at(cosine, axis=1):
    """A vector so far from the first axis, towards another one."""
    vector = [cosine, 0.0, 0.0]
    vector[axis] += (1 - cosine * cosine) ** 0.5
    return tuple(vector)


LOG = [
    Logged(question="how do i reset the password of my account", answer="Click reset.", vector=at(1.0)),
    Logged(question="the way to get my forgotten login working again", answer="click reset", vector=at(0.96)),
    Logged(question="where on earth can one see my invoices", answer="In billing.", vector=at(0.91, 2)),
    Logged(question="how do i reset the password of my account", answer="Click reset.", vector=at(1.0)),
]


def point(found, threshold):
    return next(one for one in found if one.threshold == threshold)


def test_each_threshold_is_replayed_as_the_layer_would_have_met_the_questions():
    found = tune(LOG)
    assert {one.requests for one in found} == {3}  # the exact repeat is none of the layer's
    assert (point(found, 0.97).hits, point(found, 0.97).wrong) == (0, 0)
    assert (point(found, 0.95).hits, point(found, 0.95).wrong) == (1, 0)
    assert (point(found, 0.90).hits, point(found, 0.90).wrong) == (2, 1)
    assert point(found, 0.90).precision.rate == 0.5
    assert point(found, 0.90).error.rate == pytest.approx(1 / 3)


def test_what_was_a_hit_does_not_join_the_index():
    log = [
        Logged(question="alpha beta gamma delta", answer="a", vector=at(1.0)),
        Logged(question="epsilon zeta eta theta", answer="a", vector=at(0.9)),
        Logged(question="iota kappa lambda mu", answer="a", vector=at(0.6)),
    ]
    # The third is near the second only, which was answered by the first and is no row.
    assert point(tune(log), 0.89).hits == 1
    assert point(tune(log), 0.91).hits == 0


def test_guards_hold_here_as_well():
    log = [
        Logged(question="is port 80 open by default on it", answer="yes", vector=at(1.0)),
        Logged(question="is port 81 open by default on it", answer="no", vector=at(1.0)),
    ]
    assert {one.hits for one in tune(log)} == {0}
    assert {one.wrong for one in tune(log, guards=False)} == {1}


def test_partitions_are_kept_apart():
    one, two = LOG[0], LOG[1]
    apart = [one, Logged(question=two.question, answer=two.answer, vector=two.vector, partition="other")]
    assert {found.hits for found in tune(apart)} == {0}


def test_an_embedder_is_asked_in_batches():
    sizes = []

    def embed(texts):
        sizes.append(len(texts))
        return [[1.0, 2.0]] * len(texts)

    log = [Logged(question=f"words of number {number}", answer="a") for number in range(130)]
    told = []
    tune(log, FunctionEmbedder(embed, name="m"), progress=lambda done, total: told.append((done, total)))
    assert sizes == [64, 64, 2]
    assert told[-1] == (260, 260)


def test_a_log_of_chat_requests_has_its_partitions_by_what_surrounds_the_turn(tmp_path):
    def line(text, system):
        messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
        return json.dumps({"request": {"model": "m", "messages": messages}, "answer": "a"})

    file = tmp_path / "log.jsonl"
    file.write_text("\n".join([line("one", "s"), line("two", "s"), "", line("three", "other")]))
    one, two, three = read_log(file)
    assert (one.question, two.question, three.question) == ("one", "two", "three")
    assert one.partition == two.partition != three.partition
    assert "one" not in repr(one)


@pytest.mark.parametrize(
    "line",
    ["{", "5", "[]", "{}", '{"question": "q"}',
     '{"question": "", "answer": "a"}', '{"question": 5, "answer": "a"}',
     '{"question": "q", "answer": "a", "vector": []}', '{"question": "q", "answer": "a", "vector": ["x"]}',
     '{"request": {"messages": []}, "answer": "secret"}'],
)  # fmt: skip
def test_a_line_that_is_no_question_is_named_and_not_quoted(tmp_path, line):
    file = tmp_path / "log.jsonl"
    file.write_text('{"question": "q", "answer": "a"}\n' + line)
    with pytest.raises(ConfigurationError, match=r"line 2 .*allowed: ") as caught:
        read_log(file)
    assert "secret" not in str(caught.value)


def test_questions_without_vectors_need_an_embedder():
    with pytest.raises(ConfigurationError, match="vector"):
        tune([Logged(question="q", answer="a")])


def test_vectors_of_two_models_are_refused():
    log = [LOG[0], Logged(question="another one", answer="a", vector=(1.0, 2.0))]
    with pytest.raises(ConfigurationError, match="different numbers of dimensions"):
        tune(log)


# -- the command ------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path):
    file = tmp_path / "log.jsonl"
    lines = [{"question": one.question, "answer": one.answer, "vector": list(one.vector)} for one in LOG]
    file.write_text("\n".join(map(json.dumps, lines)))
    return file


def command(*arguments):
    return CliRunner().invoke(_app.app, ["semantic", "tune", *map(str, arguments)])


def test_the_command_shows_a_table_and_draws_a_plot(log, tmp_path):
    pytest.importorskip("matplotlib")
    png = tmp_path / "tune.png"
    result = command(log, "--png", png, "--max-error", "0.9")
    assert result.exit_code == 0, result.output
    assert "Hit rate" in result.output
    assert "lowest threshold under 90.00% of wrong answers" in " ".join(result.output.split())
    assert png.read_bytes().startswith(b"\x89PNG")
    assert png.stat().st_size > 5_000


def test_too_few_questions_show_nothing_and_are_said_to(log):
    result = command(log)
    assert result.exit_code == 0
    assert "more of them are needed" in " ".join(result.output.split())


def test_for_programs_there_is_json(log):
    result = command(log, "--json", "--no-guards")
    figures = json.loads(result.output)
    assert figures["requests"] == 3
    assert figures["threshold"] is None
    assert {row["threshold"] for row in figures["thresholds"]} >= {0.7, 0.95, 1.0}


def test_questions_are_embedded_by_an_endpoint(log, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    bare = tmp_path / "bare.jsonl"
    bare.write_text("\n".join(json.dumps({"question": one.question, "answer": one.answer}) for one in LOG))
    with FakeProvider() as provider:
        result = command(bare, "--embedding-model", "m", "--base-url", provider.base_url, "--json")
        assert result.exit_code == 0, result.output
        assert provider.calls_to("/embeddings") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--embedding-model", "a", "--sentence-transformer", "b"], "one of them"),
        (["--judge", "model"], "judge"),
    ],
)
def test_what_cannot_be_is_one_line_and_2(log, arguments, said):
    result = command(log, *arguments)
    assert result.exit_code == 2
    assert said in result.output


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "there is no file"),
        ("", "has no questions"),
        ("{", "line 1"),
        ('{"question":"q","answer":"a"}', "vector"),
    ],
)
def test_a_log_that_is_none_is_one_line_and_2(tmp_path, content, said):
    file = tmp_path / "log.jsonl"
    if content is not None:
        file.write_text(content)
    result = command(file)
    assert result.exit_code == 2
    assert said in result.output
