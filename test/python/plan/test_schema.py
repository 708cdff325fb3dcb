"""Plan files: every refusal, the canonical form, ids; beside the compiler's own."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from plan_support import PLANS, schema

import moa
from moa.plan import PlanError, PlannerError, load_plan, make_plan, parse_plan
from moa.plan.density import byte_density, kv_density
from moa.plan.model import ModelShape
from moa.plan.schema import faults_of, model_faults

#: Not JSON: what is wrong is said in the words of the parser, here Python's.
NOT_JSON = {
    "empty": ("", "p.json:1:1: expected JSON, found: Expecting value"),
    "cut_short": ('{"alphas": [[0]],\n "betas": [[0.5]', "p.json:2:17: expected JSON"),
    "nan": ('{"alphas": [[0]],\n"betas": [[NaN]]}',
            "p.json:2:12: expected JSON, found NaN; JSON has no NaN and no Infinity"),
    "infinity": ('{"alphas": [[-Infinity]], "betas": [[1]]}',
                 "p.json:1:14: expected JSON, found -Infinity"),
    "overflow": ('{"alphas": [[1e999]], "betas": [[1]]}', "p.json:1:14: expected JSON, found"),
    "comment": ("{} // no", "p.json:1:4: expected JSON"),
    "two_documents": ('{"alphas":[[0]],"betas":[[0]]} {}', "p.json:1:32: expected JSON"),
    "zero_byte": ('{"alphas":[[0]],"betas":[[0]]}\0 x', "p.json:1:31: expected JSON"),
    "half_a_pair": ('{"alphas":[[0]],"betas":[[0]],"x":"\\ud800"}',
                    "p.json:1: expected JSON, found half of a surrogate pair"),
    "key_twice": ('{"alphas":[[0]],\n"betas":[[0]],\n"alphas":[[1]]}',
                  "p.json:3: alphas: expected each key once, found 'alphas' again"),
    "key_twice_inside": (schema('"span":{"sink":64,\n"sink":64}'),
                         "p.json:2: span/sink: expected each key once"),
    "deep": ("[" * 100000, "p.json:1: expected at most 64 arrays and objects inside"),
    "bad_key": ('{"a\\q":1}', "p.json:1:4: expected JSON"),
    "bare_word": ('{"alphas": nonsense}', "p.json:1:12: expected JSON"),
    "unopened": ("]", "p.json:1:1: expected JSON"),
}  # fmt: skip

#: What is said here is what the compiler says, to the letter.
REFUSED = {
    "not_object": "[1, 2]",
    "other_format": '{"format":"x","alphas":[[0]],"betas":[[0]]}',
    "new_version": '{"format":"moa-plan",\n"version":2,\n"alphas":[[0]],"betas":[[0]]}',
    "version_float": '{"format":"moa-plan","version":1.0,"alphas":[[0]],"betas":[[0]]}',
    "no_version": '{"format":"moa-plan","alphas":[[0]],"betas":[[0]]}',
    "span_without_format": '{"alphas":[[0]],"betas":[[0]],"span":{}}',
    "no_alphas": '{"betas":[[0]]}',
    "no_betas": '{"alphas":[[0]]}',
    "no_layers": '{"alphas":[],"betas":[]}',
    "no_heads": '{"alphas":[[]],"betas":[[]]}',
    "alphas_number": '{"alphas":3,"betas":[[0]]}',
    "flat": '{"alphas":[0],"betas":[0]}',
    "ragged": '{"alphas":[[0,0],\n[0]],"betas":[[0,0],[0,0]]}',
    "fewer_betas": '{"alphas":[[0],[0]],\n"betas":[[0]]}',
    "shorter_betas": '{"alphas":[[0,0]],"betas":[[0]]}',
    "alpha_null": '{"alphas":[[0,\nnull\n]],"betas":[[0,0]]}',
    "beta_text": '{"alphas":[[0]],"betas":[["NaN"]]}',
    "alpha_true": '{"alphas":[[true]],"betas":[[0]]}',
    "alpha_half": '{"alphas":[[0],\n[0.5]],"betas":[[0],[0]]}',
    "alpha_huge": '{"alphas":[[1099511627777]],"betas":[[0]]}',
    "alpha_beyond_64_bits": '{"alphas":[[123456789012345678901234567890]],"betas":[[0]]}',
    "alpha_huge_negative": '{"alphas":[[-1e300]],"betas":[[0]]}',
    "beta_above": '{"alphas":[[0]],"betas":[[1.0000001]]}',
    "beta_below": '{"alphas":[[0]],"betas":[[-0.125]]}',
    "span_array": schema('"span":[]'),
    "sink_negative": schema('"span":{"sink":-1}'),
    "sink_half": schema('"span":{"sink":0.5}'),
    "sink_text": schema('"span":{"sink":"' + "x" * 70 + '"}'),
    "block_zero": schema('"span":{"block":0}'),
    "min_huge": schema('"span":{"min":1e18}'),
    "min_at_sink": schema('"span":{"sink":128,"min":128}'),
    "min_below_default_sink": schema('"span":{"min":64}'),
    "excludes_sink": schema('"span":{"includes_sink":false}'),
    "round_down": schema('"span":{"round":"down"}'),
    "length_unknown": schema('"span":{"length":"batch"}'),
    "length_number": schema('"span":{"length":3}'),
    "valid_reversed": schema('"span":{"valid":[4096,2048]}'),
    "valid_three": schema('"span":{"valid":[1,2,3]}'),
    "valid_text": schema('"span":{"valid":"all"}'),
    "windows_of_other_layers": schema('"span":{"window":[1,2]}'),
    "windows_number": schema('"span":{"window":64}'),
    "window_zero": schema('"span":{"window":[0]}'),
    "window_long": schema('"span":{"window":[1048577]}'),
    "window_text": schema('"span":{"window":["64"]}'),
    "window_half": schema('"span":{"window":[64.5]}'),
    "window_true": schema('"span":{"window":[true]}'),
    "window_behind_valid": schema('"span":{"window":[0],"valid":3}'),
    "mask_band": schema('"mask":{"band":"row"}'),
    "mask_dense_prefill": schema('"mask":{"prefill":"dense"}'),
    "mask_positions": schema('"mask":{"positions":"window"}'),
    "model_layers": schema('"model":{"layers":2}'),
    "model_heads": schema('"model":{"q_heads":4}'),
    "model_kv_heads": schema('"model":{"kv_heads":3}'),
    "model_name": schema('"model":{"name":7}'),
    "model_head_dim": schema('"model":{"head_dim":0}'),
    "kv_policy": schema('"kv":{"policy":"min"}'),
    "rules_per_layer": schema('"kv":{"rules_per_layer":1}'),
    "kv_format": schema('"kv":{"format":8}'),
    "kv_format_float": schema('"kv":{"format":16.0}'),
    "kv_format_none": schema('"kv":{"format":null}'),
    "kv_format_name": schema('"kv":{"format":[["e4m3","fp8"]]}'),
    "kv_format_layers": schema('"kv":{"format":[[16],[16]]}'),
    "kv_format_row": schema('"kv":{"format":["int8"]}'),
    "kv_format_heads": schema('"kv":{"format":[[16,16,16]]}'),
    "kv_format_ragged": schema(
        '"kv":{"format":[[16],[16,16]]}', "[[0,64],[0,64]]", "[[0.5,0.25],[0.5,0.25]]"
    ),
    "kv_format_model": schema('"model":{"kv_heads":1},"kv":{"format":[[16,16]]}'),
    "kv_format_before_policy": schema('"kv":{"policy":"min","format":8}'),
    "budget_on": schema('"budget":{"on":"both"}'),
    "budget_bounds": schema('"budget":{"bounds":0.5}'),
    "budget_bound": schema('"budget":{"bounds":{"2048":1.5}}'),
    "budget_length": schema('"budget":{"bounds":{"2k":0.5}}'),
    "density_wrong": schema('\n"density":{"2048":\n{"query":0.5}}'),
    "density_kv_wrong": schema(
        '"model":{"kv_heads":1},"density":{"2048":{"query":0.3906,"kv":0.39}}'
    ),
    "density_text": schema('"density":{"2048":"half"}'),
    "scores_array": schema('"scores":[]'),
    "provenance_text": schema('"provenance":"me"'),
}


def refusal(text):
    with pytest.raises(PlanError) as found:
        parse_plan(text, "p.json")
    return str(found.value)


@pytest.mark.parametrize("name", NOT_JSON)
def test_what_is_not_json(name):
    text, start = NOT_JSON[name]
    assert refusal(text).startswith(start), refusal(text)


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_those_of_the_compiler(name, tmp_path):
    (tmp_path / "p.json").write_text(REFUSED[name])
    done = subprocess.run(
        [moa.compiler.find_compiler(), "p.json", "--emit", "moa", "-o", "-",
         "--model", "layers=1,q_heads=2,kv_heads=1,head_dim=64"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    error, note = done.stderr.strip().split("\n")
    said = error.replace(": error: ", ": ", 1) + "; " + note.split(": note: ", 1)[1]
    assert refusal(REFUSED[name]) == said


@pytest.mark.parametrize("name", [*REFUSED, *NOT_JSON])
def test_refusals_are_one_line_and_come_first(name):
    text = REFUSED.get(name) or NOT_JSON.get(name, [""])[0]
    message = refusal(text)
    assert "\n" not in message and "expected" in message
    assert str(faults_of(text, "p.json")[0]) == message


def test_windows_of_a_model():
    two = ("[[0,64],[0,0]]", "[[1,0.25],[1,0]]")
    plan = parse_plan(schema('"span":{"sink":32,"window":[null,96]}', *two), "p.json")
    assert plan.windows == (None, 96)
    assert [(each.sink, each.most) for each in plan.layer_spans] == [(32, 0), (0, 96)]
    # In the second layer full and least spans, 640 and 128 tokens, are cut to 96.
    assert kv_density(plan, 1, 640) == (640 + 96) / (2 * 640)
    assert kv_density(plan, 2, 640) == (640 + 256 + 96 + 96) / (4 * 640)
    assert load_plan(PLANS / "smollm2-moa.json").windows == ()
    stated = '"model":{"kv_heads":1},"density":{"640":{"kv":0.575}},'
    parse_plan(schema(stated + '"span":{"window":[null,96]}', *two), "p.json")
    faults = faults_of(schema('"span":{"window":[0,-1]}', *two), "p.json")
    assert [fault.key for fault in faults] == ["span/window/0", "span/window/1"]


def test_all_faults_are_listed():
    text = schema(
        '"span":{"sink":-1,"block":0,\n"round":"down"},"mask":{"band":7},\n"scores":3,'
        '"density":{"0":{}},"budget":{"bounds":{"2048":0}}',
        "[[0.5,0]]", "[[0,2]]",
    )  # fmt: skip
    faults = faults_of(text, "p.json")
    assert [(fault.key, fault.line) for fault in faults] == [
        ("alphas/0/0", 1), ("betas/0/1", 1), ("span/sink", 1), ("span/block", 1),
        ("span/round", 2), ("mask/band", 2), ("budget/bounds/2048", 3), ("density/0", 3),
        ("scores", 3),
    ]  # fmt: skip
    assert all(fault.cure for fault in faults)


def test_damaged_files_are_refused_or_read():
    """Whatever happens to a file: a plan or a PlanError, nothing else."""
    good = schema(
        '"span":{"sink":4,"valid":[1,2]},"density":{"2048":{"kv":0.5}},"model":{"kv_heads":1},'
        '"budget":{"bounds":{"2048":0.5}},"x":[1e3,-1,null,"\\u00e9"]'
    )
    pieces = ["", "}", "]", ",", ":", '"', "[", "{", "1e999", "NaN", "-", "0", "9" * 5000,
              "null", "\\", "\x00", "\ud800", "é"]  # fmt: skip
    random, read = np.random.default_rng(0), 0
    for _ in range(1500):
        at, length = random.integers(len(good)), random.integers(4)
        text = good[:at] + pieces[random.integers(len(pieces))] + good[at + length :]
        try:
            plan = parse_plan(text, "p.json")
            assert parse_plan(plan.canonical, "p.json") == plan
            read += 1
        except PlanError as error:
            assert "\n" not in str(error) and faults_of(text, "p.json")
    assert 0 < read < 1000


def test_bytes_that_are_not_text(tmp_path):
    path = tmp_path / "p.json"
    path.write_bytes(b'{"alphas":[[0]],\n"betas":[[0]],"x":"\xff"}')
    with pytest.raises(PlanError, match="p.json:2:20: expected JSON, found bytes that are not"):
        load_plan(path)
    path.write_bytes(b'\xef\xbb\xbf{"alphas":[[0]],"betas":[[0]]}')
    assert load_plan(path) == parse_plan('{"alphas":[[0]],"betas":[[0]]}', "")
    with pytest.raises(PlanError, match="none.json: expected a readable plan file, found: No"):
        load_plan(tmp_path / "none.json")


def test_canonical_form_sorts_keeps_and_normalises():
    plan = parse_plan(
        '{"version": 1, "x-note": {"b": [1, 2.50], "a": null},\n'
        ' "format": "moa-plan", "other": "\\u00e9\\n\\u0001",\n'
        ' "alphas": [[1024, -0.0, 1023.9999999]], "betas": [[0, 1, 1e-7]]}',
        "p.json",
    )
    assert plan.canonical == (
        '{"alphas":[[1024.0,0.0,1024.0]],"betas":[[0.0,1.0,1e-07]],"format":"moa-plan",'
        '"other":"é\\n\\u0001","version":1,"x-note":{"a":null,"b":[1,2.5]}}\n'
    )
    assert not plan.legacy and plan.alphas[0, 2] == 1024
    again = parse_plan(plan.canonical, "")
    assert again == plan and again.id == plan.id and hash(again) == hash(plan)


def test_ids_are_those_of_the_compiler(tmp_path):
    known = "8f98657081c4158d919f915be691c540bb28c5dc7635512de64fcf7307e99cf2"
    assert parse_plan('{"alphas" : [[0]],"betas":[[5e-1]]}', "").id == known
    ids = {
        "smollm2-moa": "2c822527a3474323cbffa490a7ed6a87603c851037434170e8fa505af50e55e9",
        "smollm2-mixed": "89869b1c03de8bb79cef03c155f651e612a21924b249f2fe7f94a73249149711",
        "llama-3-70b-moa": "c3cc51f92a4429c9eda4a48335c149b72cac9fb554ed7cd503310fe5b31dc46c",
    }
    for name, want in ids.items():
        assert load_plan(PLANS / f"{name}.json").id == want
    # Numbers of every form, through the module attribute that the compiler prints.
    odd = '"x":[123456.789,1e15,1e16,1.5e300,0.00001,5e-324,9007199254740993.0,-0.0,' + (
        "12345678901234567890,-9223372036854775808,123456789012345678901234567890,-0]"
    )
    path = tmp_path / "odd.json"
    path.write_text(schema(odd))
    done = subprocess.run(
        [moa.compiler.find_compiler(), path, "--emit", "moa", "-o", "-",
         "--model", "layers=1,q_heads=2,kv_heads=1,head_dim=64"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f'"{load_plan(path).id}"' in done.stdout


def test_every_field_is_read():
    plan = parse_plan(
        schema(
            '"model":{"name":"m","architecture":"Llama","layers":1,"q_heads":2,"kv_heads":1,'
            '"head_dim":64,"max_position":8192},"span":{"includes_sink":true,"sink":4,'
            '"block":32,"round":"up","min":36,"length":"row","valid":[2048,8192]},'
            '"mask":{"band":"token","prefill":"sparse","positions":"absolute"},'
            '"kv":{"policy":"group-max","rules_per_layer":2},'
            '"budget":{"on":"kv","bounds":{"2048":0.5}},'
            '"density":{"2048":{"query":0.391,"kv":0.5,"layers":[0.5]}},'
            '"scores":{},"provenance":{"tool":"t"}'
        ),
        "p.json",
    )
    assert plan.warnings == ()
    assert (plan.model.name, plan.model.kv_heads, plan.model.max_position) == ("m", 1, 8192)
    assert plan.valid == (2048, 8192)
    span = plan.span
    assert (span.sink, span.block, span.min, span.per_row) == (4, 32, 36, True)
    assert plan.rules() == [[(0, 0.5), (64, 0.25)]]
    assert plan.kv_heads() == 1
    assert plan.kv_heads(ModelShape(1, 2, 2, 64)) == 2
    with pytest.raises(ValueError, match="read-only"):
        plan.alphas[0, 0] = 1


def test_warnings_of_the_file():
    plan = parse_plan(
        schema(
            '"mask":{"band":"block"},"span":{"valid":[2048,4096]},'
            '"model":{"max_position":2048},"budget":{"bounds":{"2048":0.3}},'
            '"density":{"2048":{"kv":0.5}}'
        ),
        "p.json",
    )
    block, valid, budget, unchecked = plan.warnings
    assert "up to 63 keys more" in block
    assert "beyond model/max_position 2048" in valid
    assert "query density is 0.391, above its budget 0.300" in budget
    assert "cannot be checked" in unchecked


def test_faults_for_a_model():
    text = schema('"model":{"kv_heads":1,"head_dim":64}')
    assert faults_of(text, "p", ModelShape(1, 2, 1, 64)) == []
    faults = faults_of(text, "p", ModelShape(2, 4, 2, 128))
    assert list(map(str, faults)) == [
        f"p: {key}: expected {want}, as the model has, found {found}; use the plan that was "
        "made for this model"
        for key, want, found in (
            ("alphas", "2 layers", 1), ("alphas/0", "4 query heads", 2),
            ("model/kv_heads", 2, 1), ("model/head_dim", 128, 64),
        )
    ]  # fmt: skip


def test_writing_is_whole_or_not_at_all(tmp_path):
    plan = make_plan([[0, 64]], [[1.0, 0.5]], {"x-note": "é"})
    plan.write(tmp_path / "new" / "p.json")
    data = (tmp_path / "new" / "p.json").read_bytes()
    assert hashlib.sha256(data).hexdigest() == plan.id
    assert load_plan(tmp_path / "new" / "p.json") == plan
    assert json.loads(data)["alphas"] == [[0, 64]]
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match="expected a place to write to"):
        plan.write(tmp_path / "file" / "p.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PlanError, match="expected a place to write to"):
        plan.write(tmp_path / "folder")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "new"]
    assert Path(tmp_path / "new" / "p.json").stat().st_mode & 0o777 == 0o644
    with pytest.raises(PlanError, match="plan:1: betas/0/1: expected 0 to 1"):
        make_plan([[0, 64]], [[1.0, 1.5]])


def test_formats_of_kv_heads():
    model = ModelShape(1, 2, 2, 64)
    plan = lambda form: parse_plan(schema(f'"kv":{{"format":{form}}}'), "p.json")
    assert parse_plan(schema(), "").formats(2) == [["16", "16"]]
    assert not parse_plan(schema(), "").has_8_bits and not plan("16").has_8_bits
    assert plan('"int8"').formats(2) == [["int8", "int8"]] and plan('"int8"').has_8_bits
    each = plan('[["e4m3",16]]')
    assert each.formats(2) == [["e4m3", "16"]] and not model_faults(each, model, "p.json")
    (fault,) = model_faults(plan('[["e4m3"]]'), model, "p.json")
    assert str(fault) == (
        "p.json: kv/format/0: expected 2 KV heads, as the model has, found 1; use the plan "
        "that was made for this model"
    )
    with pytest.raises(PlannerError, match="kv/format/0: expected 1 KV heads, .* found 2"):
        each.formats(1)
    # 1024 and 576 tokens at 2048, all but sink and newest block in half the bytes.
    assert byte_density(plan("16"), 2, 2048) == kv_density(each, 2, 2048) == 1600 / 4096
    assert byte_density(plan('"int8"'), 2, 2048) == (256 + 896 / 2 + 448 / 2) / 4096
    assert byte_density(each, 2, 2048) == (128 + 896 / 2 + 576) / 4096
    within = (
        '"model":{"kv_heads":2},"kv":{"format":[["e4m3",16]]},"budget":{"bytes":{"2048":B}}'
    )
    assert not parse_plan(schema(within.replace("B", "0.29")), "p.json").warnings
    (warning,) = parse_plan(schema(within.replace("B", "0.2")), "p.json").warnings
    assert warning == (
        "p.json: budget/bytes/2048: the plan's byte density is 0.281, above its budget 0.200"
    )
    with pytest.raises(PlanError, match="budget/bytes: expected an object of length"):
        parse_plan(schema('"budget":{"bytes":1}'), "p.json")
