"""Calibration items, filler text, run folders and the accuracy check, by themselves."""

import dataclasses
import io
import json
import os
import signal
import types

import pytest

import planner_model
from moa.plan import accuracy
from moa.plan.calibration import PHRASES, STRATA, Composer, Corpus, Maker, read_items
from moa.plan.collect import Collector, Source, Wish, parse_sources
from moa.plan.errors import PlannerError
from moa.plan.filler import filler
from moa.plan.runfolder import Interrupted, Progress, RunFolder, clock, read_lines


@pytest.fixture(scope="module")
def composer():
    return Composer(planner_model.words(), planner_model.TEMPLATE)


@pytest.fixture(scope="module")
def corpus(composer):
    return Corpus(composer, None, 40000, seed=3)


def maker(composer, corpus, bucket=700, fresh=False, sink=16, seed=0):
    return Maker(composer, corpus, bucket, sink, seed, fresh)


def test_filler_is_the_same_for_a_seed_and_reads_like_text():
    text = filler(1, 5000)
    assert text == filler(1, 5000) != filler(2, 5000)
    assert 5000 <= len(text) < 7000 and text.endswith(".\n")
    sentences = text.replace("\n\n", " ").split(". ")
    assert all(sentence[0].isupper() for sentence in sentences)
    assert len(set(sentences)) > 0.9 * len(sentences)


@pytest.mark.parametrize("bucket", [400, 701, 1024])
@pytest.mark.parametrize("fresh", [False, True])
def test_needles_have_the_length_and_hold_their_answer(composer, corpus, bucket, fresh):
    make = maker(composer, corpus, bucket, fresh)
    decode = composer.tokenizer.decode
    for index in range(6):
        item = make.needle(index)
        assert item.kind == "needle" and item.bucket == bucket
        assert len(item.prompt) + max(map(len, item.candidates)) == bucket
        assert item.candidates[0] == item.response and len(set(item.candidates)) == 8
        text, answer = decode(item.prompt), decode(item.response)
        assert text.count(answer) == 1
        for wrong in item.candidates[1:]:
            assert decode(wrong) not in text
        assert ("Dr. " in text) == (fresh and index % 3 == 2)


def test_needles_lie_where_their_depth_says(composer, corpus):
    make = maker(composer, corpus, sink=100)
    depths = []
    for index in range(STRATA):
        item = make.needle(index)
        number = planner_model.words().decode(item.response).strip()
        text = planner_model.words().decode(item.prompt)
        head, tail = (len(part) for part in frame_of(composer, index, text))
        room = len(text) - tail - max(100, head) - len("\n.\n") - len(needle_of(index, text))
        at = text.index(number) - needle_of(index, text).index(number) - 1
        first = max(100, head)
        assert at == pytest.approx(first + item.depth * room, abs=3)
        depths.append(item.depth)
    assert sorted(int(d * STRATA) if d < 1 else STRATA - 1 for d in depths) == list(
        range(STRATA)
    )
    assert min(depths) == 0.0 and max(depths) == 1.0


def frame_of(composer, index, text):
    phrase = PHRASES[index % 2]
    who = next((n for n in ("Alice", "Bruno", "Clara", "Derek", "Elena") if n in text), "")
    before, question = phrase.before.format(who=who), phrase.question.format(who=who)
    head = f"<user>{before}\n\n"
    tail = f"\n\n{question}\n<assistant>{phrase.answer.format(who=who)}"
    assert text.startswith(head) and text.endswith(tail)
    return head, tail


def needle_of(index, text):
    start = {0: "The magic number is ", 1: "The access code of "}[index % 2]
    begin = text.index("\n" + start) + 1
    return text[begin : text.index("\n", begin)]


def test_lists_are_repeated_and_texts_go_on(composer, corpus):
    make = maker(composer, corpus)
    item = make.copy(4)
    text = composer.tokenizer.decode(item.prompt)
    words = composer.tokenizer.decode(item.response)
    assert f"The list of words is:{words}." in text and text.endswith("The list of words is:")
    plain = make.plain(2, 30)
    assert (len(plain.prompt), len(plain.response)) == (670, 30)
    whole = plain.prompt + plain.response
    assert "".join(map(chr, whole)) in "".join(map(chr, corpus.ids))
    told = make.summary(0, 40)
    assert len(told.prompt) == 660 and told.response == ()


def test_items_are_the_same_for_a_seed_and_fresh_ones_are_others(composer, corpus):
    for kind in ("needle", "copy"):
        item = getattr(maker(composer, corpus), kind)(3)
        assert item == getattr(maker(composer, corpus), kind)(3)
        others = [
            getattr(maker(composer, corpus, seed=1), kind)(3),
            getattr(maker(composer, corpus, fresh=True), kind)(3),
            getattr(maker(composer, corpus), kind)(3, 1),
        ]
        assert len({item.hash, *(other.hash for other in others)}) == 4


def test_calibration_and_validation_read_different_halves(composer, corpus):
    import random

    text = lambda ids: "".join(map(chr, ids))
    half = len(corpus.ids) // 2
    for seed in range(20):
        early = corpus.cut(500, random.Random(seed), False)
        late = corpus.cut(500, random.Random(seed), True)
        assert text(early) in text(corpus.ids[:half])
        assert text(late) in text(corpus.ids[half:])


def test_generated_text_of_validation_is_another_whatever_the_lengths():
    network = types.SimpleNamespace(tokenizer=planner_model.words())
    wish = Wish((Source("text"),), (512,), 1, 0, 16, 8, 3.0, planner_model.TEMPLATE)
    texts = []
    for changes in (dict(), dict(lengths=(2048,)), dict(fresh=True), dict(seed=1)):
        collector = Collector(network, dataclasses.replace(wish, **changes))
        texts.append(tuple(collector.corpora[None].ids[:3000]))
    assert texts[0] == texts[1] and len(set(texts)) == 3


@pytest.mark.parametrize("kind", ["needle", "copy", "summary", "plain"])
def test_lengths_without_room_are_refused(composer, corpus, kind):
    make = maker(composer, corpus, bucket=60)
    more = {"needle": (0,), "copy": (0,), "summary": (0, 48), "plain": (0, 60)}[kind]
    with pytest.raises(PlannerError, match="choose longer lengths"):
        getattr(make, kind)(*more)


def test_lines_of_items_read_back_and_are_checked(composer, corpus):
    make = maker(composer, corpus)
    items = [make.needle(0), dataclasses.replace(make.summary(0, 9), response=(1, 2))]
    lines = [json.loads(json.dumps(item.record())) for item in items]
    assert read_items(lines, "x") == items
    for broken in ({}, lines[0] | {"kind": "copy"}, lines[0] | {"prompt": 3}):
        with pytest.raises(PlannerError, match="f.jsonl:2: is not an item.*delete the file"):
            read_items([lines[1], broken], "f.jsonl")


def test_sources(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    text = f"synthetic, summarise:{tmp_path},{tmp_path / 'a.jsonl'}"
    assert parse_sources(text) == [
        Source("synthetic"),
        Source("summarise", tmp_path),
        Source("pairs", tmp_path / "a.jsonl"),
    ]


# The run folder.


def test_torn_lines_are_left_out(tmp_path):
    path = tmp_path / "lines"
    assert read_lines(path) == []
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert read_lines(path) == [{"a": 1}, {"a": 2}]


def test_steps_are_claimed_once_and_compared_by_field(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.claim("s", {"a": 1, "b": (2,)}) == folder.claim("s", {"b": [2], "a": 1})
    with pytest.raises(
        PlannerError, match="s was made with other inputs: b was .2., is 3, c was"
    ):
        folder.claim("s", {"a": 1, "b": 3, "c": 4})
    (tmp_path / "run.json").write_text("{broken")
    with pytest.raises(PlannerError, match="is not a run's record"):
        folder.record()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_one_line_on_a_terminal():
    out = Terminal()
    with Progress("work", 3, out=out) as progress:
        progress.skip()
        progress.step()
        progress.step()
    assert out.getvalue().count("\n") == 1 and out.getvalue().count("\rwork: ") == 2
    assert "work: 3/3" in out.getvalue()


def test_ctrl_c_ends_after_the_item():
    out = io.StringIO()
    with (
        pytest.raises(Interrupted, match="stopped after 2 of 5 .work.; the same command"),
        Progress("work", 5, as_json=True, out=out) as progress,
    ):
        progress.step()
        os.kill(os.getpid(), signal.SIGINT)
        progress.step()
    assert [json.loads(line)["done"] for line in out.getvalue().splitlines()] == [1, 2]
    with Progress("work", 1, out=out) as progress:
        os.kill(os.getpid(), signal.SIGINT)
        progress.step()  # Nothing is left, so nothing is interrupted.


def test_clock():
    assert [clock(s) for s in (3, 75, 3660)] == ["3 s", "1 min 15 s", "1 h 01 min"]


# Prediction against truth.


def test_random_windows_spare_fewer_heads_each_time():
    shape = {"layers": 12, "q_heads": 6, "kv_heads": 2}
    windows = list(accuracy.random_windows(10, shape, 5, seed=1))
    shortened = [int((w < 10).sum()) for w in windows]
    assert shortened == sorted(shortened) and shortened[-1] > 50
    for each in windows:
        assert each.shape == (12, 6) and each.min() >= 1 and each.max() <= 10
        grouped = each.reshape(12, 2, 3)
        assert (grouped == grouped[..., :1]).all()


def pair(true, signed, item=0):
    return accuracy.Pair(item, signed, signed, signed, -signed, true)


def test_correlations():
    found = accuracy.correlations([pair(x, 2 * x) for x in (1.0, 2.0, 5.0)])
    assert found["signed"]["pearson"] == pytest.approx(1)
    assert found["signed"]["predicted_over_true"] == pytest.approx(2)
    assert found["absolute"]["spearman"] == pytest.approx(-1)
    # Each item by its own scale.
    mixed = [pair(x, x) for x in (1.0, 2.0)] + [pair(100 * x, 100 * x, 1) for x in (1.0, 2.0)]
    assert accuracy.correlations(mixed)["signed"]["pearson"] == pytest.approx(1)
    flat = accuracy.correlations([pair(0.0, 1.0), pair(0.0, 2.0)])
    assert flat["signed"]["pearson"] is None and flat["signed"]["predicted_over_true"] is None
