"""The server as clients see it: the openai package, and plain HTTP for what it hides."""

import concurrent.futures
import json
import socket
import time

import pytest

openai = pytest.importorskip("openai")
import httpx  # noqa: I001  It comes with openai.

from moa.serving.server import Settings, listen
from served import END, idle, model, planned, serving, tokenizer

PAGE = 64 * 64 * 2 * 4  # Bytes: tokens, head_dim, keys and values, f32.
MESSAGES = [{"role": "user", "content": "Say something."}]
GREEDY = {"temperature": 0, "extra_body": {"ignore_eos": True}}


@pytest.fixture(scope="module")
def loaded():
    return planned()


@pytest.fixture(scope="module")
def server(loaded):
    with serving(loaded, max_bytes=600 * PAGE) as found:
        yield found


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server[0]}/v1", api_key="any", max_retries=0)


def post(server, path, **body):
    return httpx.post(f"{server[0]}{path}", json=body, timeout=30)


def refusal(answer, status):
    """The message of an error in OpenAI's form."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error["message"]


def test_models(client):
    (found,) = client.models.list().data
    assert (found.id, found.object) == ("tiny", "model")
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="this server has 'tiny'"):
        client.models.retrieve("other")


def test_chat_whole_and_streamed_say_the_same(client):
    whole = client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_completion_tokens=30, **GREEDY
    )
    (choice,) = whole.choices
    assert (choice.finish_reason, choice.message.role) == ("length", "assistant")
    prompt = tokenizer().apply_chat_template(
        MESSAGES, add_generation_prompt=True, tokenize=False
    )
    assert whole.usage.prompt_tokens == len(prompt.encode())
    assert whole.usage.completion_tokens == 30
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 30
    chunks = list(
        client.chat.completions.create(
            model="tiny", messages=MESSAGES, max_tokens=30, stream=True,
            stream_options={"include_usage": True}, **GREEDY,
        )
    )  # fmt: skip
    *parts, usage = chunks
    assert (usage.choices, usage.usage) == ([], whole.usage)
    assert parts[0].choices[0].delta.role == "assistant"
    assert parts[-1].choices[0].finish_reason == "length"
    assert len({chunk.id for chunk in chunks}) == 1
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    assert text == choice.message.content
    assert len(parts) > 10


def test_completions_of_text_and_of_tokens(client):
    ask = lambda prompt, **more: client.completions.create(
        model="tiny", prompt=prompt, max_tokens=20, **GREEDY, **more
    )
    whole = ask("Once upon a time")
    assert whole.choices[0].finish_reason == "length"
    tokens = list(tokenizer()("Once upon a time")["input_ids"])
    assert ask(tokens).choices[0].text == whole.choices[0].text
    assert ask([tokens]).choices[0].text == whole.choices[0].text
    streamed = "".join(chunk.choices[0].text for chunk in ask("Once upon a time", stream=True))
    assert streamed == whole.choices[0].text
    short = client.completions.create(model="tiny", prompt="a", **GREEDY)
    assert short.usage.completion_tokens == 16  # OpenAI's default.


def test_what_the_model_says_is_what_transformers_generates(client, loaded):
    ids = tokenizer()("Once upon a time", return_tensors="pt")
    want = loaded.generate(
        **ids, max_new_tokens=20, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    got = client.completions.create(
        model="tiny", prompt="Once upon a time", max_tokens=20, **GREEDY
    )
    new = want[0, ids["input_ids"].shape[1] :]
    assert got.choices[0].text == tokenizer().decode(new, skip_special_tokens=True)


def test_stop(client):
    ask = lambda **more: client.completions.create(
        model="tiny", prompt="abc", max_tokens=40, **GREEDY, **more
    )
    text = ask().choices[0].text
    stop = text[8:11]
    for given in (stop, ["never there", stop]):
        cut = ask(stop=given)
        assert cut.choices[0].text == text[: text.index(stop)]
        assert cut.choices[0].finish_reason == "stop"
        streamed = ask(stop=given, stream=True)
        assert "".join(chunk.choices[0].text for chunk in streamed) == cut.choices[0].text


def test_seed(client):
    ask = lambda **more: (
        client.completions.create(
            model="tiny", prompt="abc", max_tokens=40, temperature=1.5, top_p=0.95, **more
        )
        .choices[0]
        .text
    )
    assert ask(seed=3) == ask(seed=3) != ask(seed=4)
    assert ask() != ask()


def test_many_clients_at_once(server, client):
    def ask(number):
        return "".join(
            chunk.choices[0].text
            for chunk in client.completions.create(
                model="tiny",
                prompt="x" * (1 + 9 * number),
                max_tokens=25,
                stream=True,
                **GREEDY,
            )
        )

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        together = list(pool.map(ask, range(12)))
    assert together == [ask(number) for number in range(12)]
    assert idle(server[1])["pages"]["pages_used"] == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_pages(server, stream):
    address, engine = server
    before = engine.counters.ended["cancelled"]
    body = {"prompt": "x" * 100, "max_tokens": 800, "ignore_eos": True, "stream": stream}
    host, port = address.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n"
        head += "Content-Type: application/json\r\n\r\n"
        connection.sendall(head.encode() + data)
        if stream:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        else:
            while engine.stats()["scheduler"]["running"] == 0:
                time.sleep(0.01)
    assert idle(engine)["pages"]["pages_used"] == 0
    assert engine.counters.ended["cancelled"] == before + 1


def test_what_cannot_fit_is_refused_with_the_reason(server):
    long = post(server, "/v1/completions", prompt="x" * 1024, max_tokens=1)
    assert "the prompt has 1024 tokens; the maximum context" in refusal(long, 400)
    assert long.json()["error"]["code"] == "context_length_exceeded"
    many = post(server, "/v1/completions", prompt="x" * 1000, max_tokens=25)
    assert "ask for at most 24 new tokens" in refusal(many, 400)
    empty = post(server, "/v1/completions", prompt="", max_tokens=25)
    assert "prompt is empty" in refusal(empty, 400)
    odd = post(server, "/v1/completions", prompt=5)
    assert "prompt: Input should be a valid string or Input should be" in refusal(odd, 400)
    assert odd.json()["error"]["param"] == "prompt"
    chat = post(
        server, "/v1/chat/completions", messages=[{"role": "user", "content": "x" * 990}]
    )
    assert chat.status_code == 200  # The default of max_tokens is what is left.


def test_bytes_that_are_never_there(loaded):
    with serving(loaded, max_bytes=4 * PAGE) as small:
        for stream in (False, True):
            answer = post(small, "/v1/completions", prompt="x" * 700, stream=stream)
            assert "bytes" in refusal(answer, 400)
            assert answer.json()["error"]["code"] == "kv_memory_exceeded"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"n": 2}, "n is 2; one choice"),
        ({"best_of": 3}, "best_of is not provided"),
        ({"logprobs": 3}, "log probabilities are not provided: leave logprobs out"),
        ({"tools": [{"type": "function"}]}, "tools are not provided"),
        ({"response_format": {"type": "json_object"}}, "leave response_format out"),
        ({"presence_penalty": 0.5}, "penalties are not provided"),
        ({"echo": True}, "echo"),
        ({"temperature": -1}, "temperature is -1.0, expected 0 to 100"),
        ({"top_p": 0}, "top_p is 0.0, expected above 0"),
        ({"seed": 2**70}, "seed"),
        ({"stop": ["x"] * 17}, "stop takes at most 16 strings"),
        ({"max_tokens": 0}, "max_tokens: Input should be greater than or equal to 1"),
        ({"max_tokens": "many"}, "max_tokens: Input should be a valid integer"),
        ({"prompt": ["a", "b"]}, "prompt has 2 prompts"),
        ({"prompt": [3, END + 1]}, f"token {END + 1} is not one of 0 to {END}"),
        ({"prompt": None}, "prompt"),
    ],
)
def test_refused_fields(server, body, message):
    answer = post(server, "/v1/completions", **({"prompt": "a"} | body))
    assert message in refusal(answer, 400)


def test_fields_that_wish_nothing_are_taken(server):
    nothing = {"n": 1, "logprobs": None, "tools": [], "presence_penalty": 0, "echo": False,
               "response_format": {"type": "text"}, "user": "me", "stop": None, "seed": None,
               "top_p": None, "temperature": None, "stream": None}  # fmt: skip
    assert post(server, "/v1/completions", prompt="a", **nothing).status_code == 200


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages"),
        (
            [{"role": "wizard", "content": "x"}],
            "the chat template refuses: no such role: wizard",
        ),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "a part of type image_url"),
        ("hello", "messages"),
    ],
)
def test_refused_messages(server, messages, message):
    answer = post(server, "/v1/chat/completions", messages=messages, max_tokens=2)
    assert message in refusal(answer, 400)


def test_message_in_parts(server):
    ask = lambda content: post(
        server, "/v1/chat/completions", messages=[{"role": "user", "content": content}],
        max_tokens=9, temperature=0,
    ).json()["choices"][0]  # fmt: skip
    parts = [{"type": "text", "text": "ab"}, {"type": "text", "text": "c"}]
    assert ask(parts) == ask("abc")


def test_wrong_paths_methods_and_bodies(server):
    assert "/v1/nothing: Not Found" in refusal(httpx.get(f"{server[0]}/v1/nothing"), 404)
    assert "Method Not Allowed" in refusal(httpx.get(f"{server[0]}/v1/completions"), 405)
    answer = httpx.post(
        f"{server[0]}/v1/completions",
        content=b"{",
        headers={"Content-Type": "application/json"},
    )
    message = "the body is not JSON (Expecting property name enclosed in double quotes at "
    assert message in refusal(answer, 400) and answer.json()["error"]["param"] is None
    answer = post(server, "/v1/completions", prompt="a", model="other")
    assert "this server has 'tiny'" in refusal(answer, 404)


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/x-www-form-urlencoded"}])
@pytest.mark.parametrize("content", [b'{"prompt": "a"}', b"", b"[1]", b"null"])
def test_bodies_that_are_no_json_object(server, headers, content):
    answer = httpx.post(f"{server[0]}/v1/completions", content=content, headers=headers)
    assert "expected a JSON object as body, sent as Content-Type: app" in refusal(answer, 400)


@pytest.mark.parametrize("content", [b'{"prompt": "\xe9"}', b'{"prompt":' + b"[" * 100000])
def test_bodies_that_no_reader_takes(server, content):
    answer = httpx.post(
        f"{server[0]}/v1/completions",
        content=content,
        headers={"Content-Type": "application/json"},
    )
    assert refusal(answer, 400)
    assert answer.json()["error"]["code"] == "invalid_value"


@pytest.mark.parametrize("content", [b"a\\ud800b", b"\\udfff"])
def test_halves_of_characters(server, content):
    for path, body in (
        ("completions", b'{"prompt": "%b"}'),
        ("chat/completions", b'{"messages": [{"role": "user", "content": "%b"}]}'),
    ):
        answer = httpx.post(
            f"{server[0]}/v1/{path}",
            content=body % content,
            headers={"Content-Type": "application/json"},
        )
        assert "has half of a character (U+D" in refusal(answer, 400)


def test_what_was_not_foreseen_is_an_error_in_openais_form(server, monkeypatch):
    def fail(*_):
        raise RuntimeError("oh")

    monkeypatch.setattr("moa.serving.api.Api._encode", fail)
    answer = post(server, "/v1/completions", prompt="a")
    assert refusal(answer, 500) == (
        "the server failed at this request (RuntimeError('oh')); its log says where"
    )


def test_a_model_without_a_chat_template(loaded, monkeypatch):
    monkeypatch.setattr("served.TEMPLATE", None)
    with serving(loaded) as plain:
        answer = post(plain, "/v1/chat/completions", messages=MESSAGES)
        assert "use /v1/completions" in refusal(answer, 400)
        assert not httpx.get(f"{plain[0]}/v1/models").json()["data"][0]["chat"]


def test_key_and_body_limit(loaded):
    settings = Settings("tiny", api_key="secret", max_body=2000)
    with serving(loaded, settings) as guarded:
        address = guarded[0]
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            answer = httpx.get(f"{address}/v1/models", headers=headers)
            assert "API key is missing or wrong" in refusal(answer, 401)
        assert httpx.get(f"{address}/health").status_code == 200
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0)
        assert client.models.list().data[0].id == "tiny"
        headers = {"Authorization": "Bearer secret"}
        whole = httpx.post(
            f"{address}/v1/completions", json={"prompt": "x" * 2000}, headers=headers
        )
        assert "more than 2000 bytes" in refusal(whole, 413)
        chunks = (b"x" * 500 for _ in range(10))  # No Content-Length.
        piecewise = httpx.post(f"{address}/v1/completions", content=chunks, headers=headers)
        refusal(piecewise, 413)


def test_a_full_queue(loaded):
    with serving(loaded, max_sequences=1, max_waiting=1) as (address, engine):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0)
        ask = lambda **more: client.completions.create(
            model="tiny", prompt="a", max_tokens=900, extra_body={"ignore_eos": True}, **more
        )
        streams = [ask(stream=True)]
        while engine.stats()["scheduler"]["running"] == 0:
            time.sleep(0.01)
        streams.append(ask(stream=True))
        with pytest.raises(openai.RateLimitError, match="1 requests wait already") as caught:
            ask(stream=True)
        assert caught.value.response.headers["Retry-After"] == "1"
        for stream in streams:
            stream.close()
        assert idle(engine)["pages"]["pages_used"] == 0


def test_metrics_and_health(server):
    address, engine = server
    post(server, "/v1/completions", prompt="a", max_tokens=3, ignore_eos=True)
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    assert int(values["moa_serve_generated_tokens_total"]) == engine.counters.generated_tokens
    assert int(values['moa_serve_requests_ended_total{reason="length"}']) > 0
    assert float(values["moa_serve_time_to_first_token_seconds_sum"]) > 0
    assert any(name.startswith("moa_") and "pages" in name for name in values)
    assert httpx.get(f"{address}/health").json() == {"status": "ok"}


def test_a_stopped_engine(loaded):
    with serving(loaded) as (address, engine):
        engine.stop()
        assert httpx.get(f"{address}/health").status_code == 503
        answer = post((address, engine), "/v1/completions", prompt="a")
        assert "the engine is stopping" in refusal(answer, 503)


def test_a_failed_step_is_an_answer(loaded):
    with serving(loaded) as (address, engine):

        def fail(entries, tokens):
            raise RuntimeError("made up")

        engine._model.step = fail
        answer = post((address, engine), "/v1/completions", prompt="a")
        assert "the engine failed: made up" in refusal(answer, 500)
        streamed = post((address, engine), "/v1/completions", prompt="a", stream=True)
        events = streamed.text.strip().split("\n\n")
        assert "made up" in json.loads(events[0].removeprefix("data: "))["error"]["message"]
        assert events[1] == "data: [DONE]"


def test_a_taken_port():
    with listen("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(OSError, match="in use"):
            listen("127.0.0.1", first.getsockname()[1])


def test_bfloat16(loaded):
    import moa.hf
    from served import PLAN

    half = moa.hf.load(model().bfloat16(), plan=PLAN)
    with serving(half) as found:
        answer = post(
            found, "/v1/completions", prompt="abc" * 100, max_tokens=9, ignore_eos=True
        )
        assert answer.json()["usage"]["completion_tokens"] == 9
