"""Continuous batching through Python: rows as of each request alone, refusals."""

import threading

import pytest
import torch

import moa
from conftest import make_plan
from moa.errors import InvalidArgumentError, OutOfPagesError, OutOfRangeError
from moa.runtime import Cache, Context, Module, Scheduler, Sequence, attend

HQ, HKV, D, LAYERS = 4, 2, 64, 2
PAGE = 2 * 64 * D * 4
SHAPE = f"layers={LAYERS},q_heads={HQ},kv_heads={HKV},head_dim={D}"
# A prompt and tokens to sample, for each request.
REQUESTS = [(150, 80), (40, 100), (200, 90), (63, 70), (64, 130), (130, 20)]


@pytest.fixture(scope="module")
def module():
    """Dense heads, whose pages run out, beside short ones."""
    plan = make_plan([[0.0, 128.0, 0.0, 0.0]] * LAYERS, [[1.0, 0.0, 0.5, 1.0]] * LAYERS)
    artifact = moa.compile(plan, SHAPE, dtype="f32", max_length=1024)
    return Module(Context(2), str(artifact.path))


class Conversation:
    """The tensors of a request, and how its rows were fed since row 0."""

    def __init__(self, tokens, seed):
        generator = torch.Generator().manual_seed(seed)
        make = lambda heads: torch.randn(LAYERS, tokens, heads, D, generator=generator)
        self.q, self.k, self.v = make(HQ), make(HKV), make(HKV)
        self.out = torch.full_like(self.q, float("nan"))
        self.chunks = []

    def entry(self, layer, sequence, first, tokens, out=None):
        rows = slice(first, first + tokens)
        out = self.out if out is None else out
        tensors = (self.q, self.k, self.v, out)
        return (sequence, *(tensor[layer, rows] for tensor in tensors))


def conversations(requests=REQUESTS):
    # The token that was sampled last is never fed.
    return [Conversation(p + n - 1, seed) for seed, (p, n) in enumerate(requests)]


def feed(cache, served, entries, layers=LAYERS):
    for layer in range(layers):
        attend(
            cache,
            layer,
            [served[e.user].entry(layer, e.sequence, e.first_row, e.tokens) for e in entries],
        )


def serve(cache, scheduler, served, step_done=lambda entries: None):
    """Until nothing is left to do."""
    while entries := scheduler.next():
        feed(cache, served, entries)
        for e in entries:
            if e.first_row == 0:
                served[e.user].chunks = []
            served[e.user].chunks.append(e.tokens)
        scheduler.commit()
        step_done(entries)


def expect_alone(module, conversation, length):
    """The bits of the request in a cache of its own, fed by the same chunks."""
    cache = Cache(module)
    sequence = Sequence(cache, length)
    out = torch.full_like(conversation.out, float("nan"))
    first = 0
    for tokens in conversation.chunks:
        for layer in range(LAYERS):
            attend(cache, layer, [conversation.entry(layer, sequence, first, tokens, out)])
        first += tokens
    assert first == conversation.q.shape[1]
    assert torch.equal(conversation.out, out)


@pytest.mark.parametrize("admission", ["optimistic", "reserved"])
def test_rows_are_those_of_each_request_alone(module, admission):
    cache = Cache(module, max_bytes=40 * PAGE)
    scheduler = Scheduler(
        cache, max_sequences=8, max_step_tokens=160, chunk_tokens=128, admission=admission
    )
    served = conversations()
    for user, (prompt, new) in enumerate(REQUESTS):
        assert scheduler.submit(prompt, new, user=user) == user + 1
    serve(cache, scheduler, served)
    stats = scheduler.stats
    assert stats["finished"] == stats["submitted"] == len(REQUESTS)
    assert (stats["preemptions"] > 0) == (admission == "optimistic")
    assert (stats["rows_again"] > 0) == (admission == "optimistic")
    assert stats["limit_bytes"] == 40 * PAGE
    assert cache.stats["pages_used"] == 0
    assert cache.stats["pages_high_water"] <= 40
    for conversation, (prompt, new) in zip(served, REQUESTS, strict=True):
        expect_alone(module, conversation, prompt + new)


def test_entries_say_what_to_feed(module):
    cache = Cache(module)
    scheduler = Scheduler(cache, max_step_tokens=512, chunk_tokens=64)
    served = conversations([(100, 3)])
    scheduler.submit(100, 3, user=0)
    steps = []

    def note(entries):
        assert len(entries) == 1
        e = entries[0]
        steps.append((e.request, e.first_row, e.tokens, e.generated, e.samples, e.last))

    serve(cache, scheduler, served, note)
    assert steps == [
        (1, 0, 64, 0, False, False),
        (1, 64, 36, 0, True, False),
        (1, 100, 1, 1, True, False),
        (1, 101, 1, 2, True, True),
    ]
    assert scheduler.next() == []


def test_requests_stop_and_are_cancelled(module):
    cache = Cache(module)
    scheduler = Scheduler(cache)
    served = conversations([(70, 50)] * 3)
    for user in range(3):
        scheduler.submit(70, 50, user=user)
    entries = scheduler.next()
    feed(cache, served, entries)
    scheduler.commit([False, True, False])  # The second ends with its first token.
    assert scheduler.stats["finished"] == 1
    entries = scheduler.next()
    assert [e.user for e in entries] == [0, 2]
    scheduler.cancel(1)  # In the step under way: it goes when that is over.
    assert scheduler.stats["running"] == 2
    feed(cache, served, entries)
    scheduler.commit()
    scheduler.cancel(3)
    with pytest.raises(InvalidArgumentError, match="there is no request 3"):
        scheduler.cancel(3)
    assert scheduler.stats["cancelled"] == 2
    assert scheduler.next() == []
    assert cache.stats["pages_used"] == 0


def test_a_step_given_up_is_fed_again(module):
    cache = Cache(module)
    scheduler = Scheduler(cache)
    served = conversations([(100, 5)])
    scheduler.submit(100, 5, user=0)
    feed(cache, served, scheduler.next(), layers=1)  # The second layer fails.
    scheduler.abort_step()
    serve(cache, scheduler, served)
    assert scheduler.stats["aborted_steps"] == 1
    expect_alone(module, served[0], 105)


def test_sequences_are_lent_for_a_step(module):
    cache = Cache(module)
    scheduler = Scheduler(cache)
    served = conversations([(70, 2)])
    scheduler.submit(70, 2, user=0)
    for end in (scheduler.abort_step, scheduler.commit):
        entries = scheduler.next()
        sequence = entries[0].sequence
        feed(cache, served, entries)
        assert sequence.seen() == 70
        end()
        with pytest.raises(InvalidArgumentError, match="sequence is NULL"):
            sequence.seen()
        with pytest.raises(InvalidArgumentError, match="is NULL or of another cache"):
            attend(cache, 0, [served[0].entry(0, sequence, 70, 1)])
    # A step under way goes with its scheduler, whose cache stays.
    sequence = scheduler.next()[0].sequence
    del scheduler, end
    with pytest.raises(InvalidArgumentError, match="sequence is NULL"):
        sequence.fork()
    assert cache.stats["sequences"] == 0
    assert cache.stats["pages_used"] == 0


def test_refusals(module):
    cache = Cache(module, max_bytes=8 * PAGE)
    with pytest.raises(
        ValueError, match="admission is 'fair', expected optimistic or reserved"
    ):
        Scheduler(cache, admission="fair")
    with pytest.raises(InvalidArgumentError, match="chunk_tokens is 63"):
        Scheduler(cache, chunk_tokens=63)
    scheduler = Scheduler(cache)
    with pytest.raises(InvalidArgumentError, match="expected at least 1 of each"):
        scheduler.submit(0, 1)
    with pytest.raises(OutOfRangeError, match="exceed the artifact's max length 1024"):
        scheduler.submit(1000, 100)
    with pytest.raises(OutOfPagesError, match="ask for fewer or raise max_bytes"):
        scheduler.submit(500, 100)
    for call in (scheduler.commit, scheduler.abort_step):
        with pytest.raises(InvalidArgumentError, match="no step under way"):
            call()
    assert scheduler.stats["submitted"] == 0
    scheduler.submit(64, 1, user=0)
    entries = scheduler.next()
    with pytest.raises(InvalidArgumentError, match="has a step under way"):
        scheduler.next()
    with pytest.raises(InvalidArgumentError, match="layer 0 has seen 0 rows, expected 64"):
        scheduler.commit()
    assert entries[0].sequence.seen() == 0  # Still there: so is the step.
    feed(cache, conversations([(64, 1)]), entries)
    with pytest.raises(InvalidArgumentError, match="stops has 2 values"):
        scheduler.commit([True, False])
    scheduler.commit([True])


def test_prompts_that_begin_alike():
    """Tokens given with a request are found by the next; other salts share nothing."""
    plan = make_plan([[0.0] * HQ] * LAYERS, [[1.0] * HQ] * LAYERS, length="row")
    artifact = moa.compile(plan, SHAPE, dtype="f32", max_length=1024)
    cache = Cache(Module(Context(1), str(artifact.path)), max_bytes=200 * PAGE)
    cache.set_prefix_reuse()
    scheduler = Scheduler(cache, max_sequences=8, max_step_tokens=512, chunk_tokens=512)
    tokens = list(range(200))
    firsts = []
    for salt in (0, 0, 1):
        number = scheduler.submit(200, 2, tokens=tokens, salt=salt)
        entries = scheduler.next()
        firsts.append(entries[0].first_row)
        served = conversations([(200, 2)])
        feed(cache, served, entries)
        scheduler.commit()
        scheduler.add_tokens(number, [7])
        with pytest.raises(InvalidArgumentError):
            scheduler.add_tokens(number, [7, 8])
        scheduler.cancel(number)
    assert firsts == [0, 192, 0]
    with pytest.raises(ValueError, match="tokens has 200 values, expected prompt_tokens, 3"):
        scheduler.submit(3, 1, tokens=tokens)


def test_threads_with_a_cache_each(module):
    served = [conversations() for _ in range(3)]

    def work(own):
        cache = Cache(module, max_bytes=40 * PAGE)
        scheduler = Scheduler(cache, max_sequences=8, max_step_tokens=160, chunk_tokens=128)
        for user, (prompt, new) in enumerate(REQUESTS):
            scheduler.submit(prompt, new, user=user)
        serve(cache, scheduler, own)

    threads = [threading.Thread(target=work, args=(own,)) for own in served]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for own in served[1:]:
        for one, other in zip(served[0], own, strict=True):
            assert not torch.isnan(one.out).any()
            assert torch.equal(one.out, other.out)
