"""Continuous batching: tokens as of each request alone, and every way a request ends."""

import queue

import pytest
import torch

import moa.hf
from conftest import make_plan
from moa.errors import OutOfPagesError, OutOfRangeError, UnsupportedError
from moa.hf.graph import Decoder
from moa.serving import (
    Accepted,
    End,
    Engine,
    Piece,
    QueueFullError,
    Request,
    Sampling,
    StoppedError,
)
from served import END, idle, model, planned, tokenizer

GREEDY = Sampling(temperature=0)
PAGE = 64 * 64 * 2 * 4  # Bytes: tokens, head_dim, keys and values, f32.


@pytest.fixture(scope="module")
def loaded():
    return planned()


@pytest.fixture(autouse=True)
def one_thread():
    """Products of small matrices then have the same order of sums at any batch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Client:
    """Requests and their events."""

    def __init__(self, engine):
        self.engine, self.ended, self.events = engine, queue.SimpleQueue(), {}

    def send(self, request):
        events = []

        def sink(event):
            events.append(event)
            if isinstance(event, End):
                self.ended.put(event)

        number = self.engine.submit(request, sink)
        self.events[number] = events
        return number

    def wait(self, count):
        for _ in range(count):
            self.ended.get(timeout=30)

    def tokens(self, number):
        return [event.token for event in self.events[number] if isinstance(event, Piece)]

    def text(self, number):
        return "".join(event.text for event in self.events[number] if isinstance(event, Piece))


def prompt(tokens, seed=0):
    generator = torch.Generator().manual_seed(1000 * seed + tokens)
    return torch.randint(0, END, (tokens,), generator=generator).tolist()


def alone(loaded, ids, new):
    """What moa.hf generates of one prompt, greedily."""
    row = torch.tensor([ids])
    out = loaded.generate(
        row, attention_mask=torch.ones_like(row), max_new_tokens=new, do_sample=False,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return out[0, len(ids) :].tolist()


SIZES = [300, 41, 170, 1, 64, 200, 333, 20, 5, 90]


def serve_all(engine, sizes=SIZES, new=24):
    client = Client(engine)
    numbers = [client.send(Request(prompt(n), new, GREEDY, ignore_eos=True)) for n in sizes]
    client.wait(len(numbers))
    return client, numbers


def test_tokens_are_those_of_each_request_alone(loaded):
    with Engine(loaded, tokenizer(), max_sequences=6, chunk_tokens=128) as engine:
        client, numbers = serve_all(engine)
        for number, size in zip(numbers, SIZES):
            assert client.tokens(number) == alone(loaded, prompt(size), 24)
            first, *_, last = client.events[number]
            assert first == Accepted()
            assert (last.reason, last.generated) == ("length", 24)
            assert 0 < last.kv_bytes <= last.dense_bytes
        stats = idle(engine)
    assert stats["pages"]["pages_used"] == stats["pages"]["sequences"] == 0
    assert stats["scheduler"]["preemptions"] == 0


def test_steps_of_a_decoder_say_the_same(loaded):
    """What CUDA devices take for steps without prompts; on the CPU it runs eagerly."""
    with Engine(loaded, tokenizer(), max_sequences=6, chunk_tokens=128) as engine:
        engine._model.decoder = Decoder(loaded, engine._pages)
        client, numbers = serve_all(engine)
        for number, size in zip(numbers, SIZES):
            assert client.tokens(number) == alone(loaded, prompt(size), 24)
        assert engine.call(lambda: engine._pages.counters["batch_steps"]) > 0
        assert idle(engine)["pages"]["pages_used"] == 0


def test_preempted_requests_say_the_same(loaded):
    """A pool for about two requests: admission waits, the youngest give way."""
    room = loaded.moa.module.kv_bytes(333 + 24, 333 + 24)[0] + 8 * PAGE
    with Engine(
        loaded, tokenizer(), max_sequences=6, chunk_tokens=64, max_bytes=room
    ) as engine:
        client, numbers = serve_all(engine)
        for number, size in zip(numbers, SIZES):
            assert client.tokens(number) == alone(loaded, prompt(size), 24)
        stats = idle(engine)
    assert stats["pages"]["pages_used"] == 0
    assert stats["pages"]["pages_high_water"] * stats["pages"]["page_bytes"] <= room


def test_prefixes_are_reused_under_the_row_rule():
    rows = make_plan([[0.0, 0.0, 64.0, 64.0]] * 2, [[1.0, 1.0, 0.5, 0.5]] * 2, length="row")
    loaded = planned(rows)
    common = prompt(256)
    with Engine(loaded, tokenizer(), prefix_reuse=True, max_bytes=400 * PAGE) as engine:
        client = Client(engine)
        numbers, prompts = [], []
        for seed in range(4):
            prompts.append(common + prompt(30, seed))
            numbers.append(client.send(Request(prompts[-1], 20, GREEDY, ignore_eos=True)))
            client.wait(1)
        counters = engine.call(lambda: engine._pages.counters)
        for number, own in zip(numbers, prompts):
            assert client.tokens(number) == alone(loaded, own, 20)
    assert counters["prefix_tokens_reused"] >= 2 * 256


def test_seeds_hold_whatever_else_runs(loaded):
    sampled = Request(prompt(50), 30, Sampling(0.9, 0.95, 0, seed=7), ignore_eos=True)
    with Engine(loaded, tokenizer()) as engine:
        client = Client(engine)
        single = client.send(sampled)
        client.wait(1)
        among = [client.send(Request(prompt(n), 30, Sampling(seed=n))) for n in (9, 80)]
        among.insert(1, client.send(sampled))
        client.wait(3)
        assert client.tokens(single) == client.tokens(among[1])
        unseeded = [client.send(Request(prompt(50), 30, Sampling(2.0))) for _ in range(2)]
        client.wait(2)
        assert client.tokens(unseeded[0]) != client.tokens(unseeded[1])


def test_stop_strings_and_end_tokens(loaded):
    ids = prompt(41)
    full = alone(loaded, ids, 40)
    with Engine(loaded, tokenizer()) as engine:
        client = Client(engine)
        whole = client.send(Request(ids, 40, GREEDY, ignore_eos=True))
        client.wait(1)
        text = client.text(whole)
        stop = text[10:13]
        cut = client.send(Request(ids, 40, GREEDY, (stop, "never there"), ignore_eos=True))
        client.wait(1)
        assert client.text(cut) == text[: text.index(stop)]
        assert client.events[cut][-1].reason == "stop"
        engine._ends = frozenset({full[7]})
        ended = client.send(Request(ids, 40, GREEDY))
        client.wait(1)
        assert client.tokens(ended) == full[: full.index(full[7]) + 1]
        assert client.events[ended][-1].reason == "stop"
        assert idle(engine)["pages"]["pages_used"] == 0


def test_cancelled_requests_give_their_pages_back(loaded):
    with Engine(loaded, tokenizer(), max_sequences=2) as engine:
        client = Client(engine)
        numbers = [
            client.send(Request(prompt(200, n), 800, GREEDY, ignore_eos=True)) for n in range(4)
        ]
        for number in reversed(numbers):  # The last two wait, the first two run.
            engine.cancel(number)
        client.wait(4)
        assert [client.events[n][-1].reason for n in numbers] == ["cancelled"] * 4
        assert idle(engine)["pages"]["pages_used"] == 0
        engine.cancel(numbers[0])  # It has ended: nothing happens.
        serve_all(engine, SIZES[:2])


def test_what_can_never_run_is_refused(loaded):
    with Engine(loaded, tokenizer(), max_bytes=4 * PAGE) as engine:
        client = Client(engine)
        for request, message in [
            (Request(prompt(1024), 1), "the prompt has 1024 tokens; the maximum context"),
            (Request(prompt(1000), 25), "ask for at most 24 new tokens"),
            (Request([], 5), "the prompt has no tokens"),
            (Request([1], 0), "0 new tokens"),
        ]:
            with pytest.raises(OutOfRangeError, match=message):
                client.send(request)
        number = client.send(Request(prompt(700), 20))
        client.wait(1)
        (end,) = client.events[number]
        assert end.reason == "refused"
        assert isinstance(end.error, OutOfPagesError)
        assert idle(engine)["pages"]["pages_used"] == 0


def test_a_full_queue_refuses(loaded):
    with Engine(loaded, tokenizer(), max_sequences=1, max_waiting=2) as engine:
        client = Client(engine)
        with pytest.raises(QueueFullError, match="2 requests wait"):
            for _ in range(50):
                client.send(Request(prompt(100), 500, GREEDY, ignore_eos=True))
        assert engine.counters.ended["rejected"] == 1
        for number in client.events:
            engine.cancel(number)
        client.wait(len(client.events))
        client.send(Request(prompt(10), 2))
        client.wait(1)


def test_a_failed_step_ends_its_requests_alone(loaded):
    with Engine(loaded, tokenizer(), max_sequences=1) as engine:
        whole = engine._model.step

        def fail(entries, tokens):
            engine._model.step = whole
            raise MemoryError("made up")

        engine._model.step = fail
        client = Client(engine)
        first = client.send(Request(prompt(30), 5))
        client.wait(1)
        second = client.send(Request(prompt(30), 5, GREEDY, ignore_eos=True))
        client.wait(1)
        end = client.events[first][-1]
        assert (end.reason, str(end.error)) == ("failed", "made up")
        assert client.tokens(second) == alone(loaded, prompt(30), 5)
        assert idle(engine)["pages"]["pages_used"] == 0


def test_a_tokenizer_that_fails_ends_one_request(loaded):
    def fail(token):
        raise ValueError("made up")

    with Engine(loaded, tokenizer()) as engine:
        client = Client(engine)
        first, second = (client.send(Request(prompt(n), 9, GREEDY)) for n in (20, 30))
        engine.call(lambda: setattr(engine._tickets[first].text, "push", fail))
        client.wait(2)
        assert str(client.events[first][-1].error) == "made up"
        assert client.events[second][-1].reason in ("stop", "length")
        assert idle(engine)["pages"]["pages_used"] == 0


def test_a_failure_inside_a_forward_pass(loaded):
    """Layers are out of step then; the runtime takes the rows back."""
    with Engine(loaded, tokenizer()) as engine:
        attend, calls = engine._model.cache.attend, []

        def fail(layer, *tensors):
            calls.append(layer)
            if len(calls) == 10:  # The second layer of the fifth step, a decode.
                raise RuntimeError("made up")
            attend(layer, *tensors)

        engine._model.cache.attend = fail
        client = Client(engine)
        first = client.send(Request(prompt(30), 50, GREEDY, ignore_eos=True))
        client.wait(1)
        assert client.events[first][-1].reason == "failed"
        assert client.tokens(first) == alone(loaded, prompt(30), 4)
        second = client.send(Request(prompt(70), 5, GREEDY, ignore_eos=True))
        client.wait(1)
        assert client.tokens(second) == alone(loaded, prompt(70), 5)
        assert idle(engine)["pages"]["pages_used"] == 0


def test_stopping_ends_what_runs(loaded):
    engine = Engine(loaded, tokenizer()).start()
    client = Client(engine)
    number = client.send(Request(prompt(100), 900, GREEDY, ignore_eos=True))
    engine.stop()
    assert client.events[number][-1].reason == "cancelled"
    assert engine._pages.stats["pages_used"] == engine._pages.stats["sequences"] == 0
    with pytest.raises(StoppedError, match="is stopping"):
        client.send(Request(prompt(3), 1))


def test_a_broken_scheduler_stops_the_engine(loaded):
    engine = Engine(loaded, tokenizer()).start()

    class Broken:
        stats = engine._scheduler.stats

        def submit(self, *_):
            return 1

        def next(self):
            raise RuntimeError("made up")

    engine._scheduler = Broken()
    client = Client(engine)
    number = client.send(Request(prompt(3), 1))
    client.wait(1)
    assert client.events[number][-1].reason == "failed"
    with pytest.raises(StoppedError, match="stopped at an error: made up"):
        client.send(Request(prompt(3), 1))
    assert not engine.running
    engine.stop()


def test_rotations_that_depend_on_the_batch_are_refused():
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    loaded = moa.hf.load(
        model(rope_parameters=rope), plan=make_plan([[0.0] * 4] * 2, [[1.0] * 4] * 2)
    )
    with pytest.raises(UnsupportedError, match="depend on the longest sequence"):
        Engine(loaded, tokenizer())
