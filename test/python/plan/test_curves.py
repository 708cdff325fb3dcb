"""Profiles: written, read, and refused when they cannot be right."""

from dataclasses import replace

import numpy as np
import pytest
from plan_support import make_curves, write_profile

from moa.plan import PlanError
from moa.plan.curves import load_curves, load_profile


@pytest.mark.parametrize("rows", [False, True])
def test_written_curves_are_read(rows, tmp_path):
    curves = make_curves(500, rows=rows)
    curves = replace(curves, signed=curves.curve[:, :2] / 3)
    path = tmp_path / "profile" / "500" / "summary.npz"
    curves.write(path)
    first = path.read_bytes()
    again = load_curves(path)
    again.write(path)
    assert path.read_bytes() == first
    np.testing.assert_array_equal(again.curve, curves.curve)
    np.testing.assert_array_equal(again.signed, curves.signed)
    assert (again.rows is not None) == rows
    for key in ("length", "sink", "block", "items", "kv_heads", "estimator", "blocks"):
        assert getattr(again, key) == getattr(curves, key)
    assert (again.layers, again.q_heads) == (3, 4)


def test_faults_of_curves():
    good = make_curves(512)
    nan, rising, negative = good.curve.copy(), good.curve.copy(), good.curve - 1e3
    nan[1, 2, 3] = np.nan
    rising[0, 0, 5] += 1
    wrong = {
        "length: expected 1 to": replace(good, length=0),
        "items: expected 1 to": replace(good, items=0),
        r"curve: expected \[layers, q_heads, blocks \+ 1\]": replace(good, curve=np.ones(3)),
        "kv_heads: expected a divisor of 4": replace(good, kv_heads=3),
        "curve: expected 7 to 8 blocks of 64": replace(good, curve=good.curve[..., :6]),
        "curve/1/2/3: expected a finite loss, found nan": replace(good, curve=nan),
        "curve: expected losses that never rise": replace(good, curve=rising),
        "curve: expected losses of 0 or more": replace(good, curve=negative),
        r"rows: expected \[3, 4, 8, 9\]": replace(good, rows=np.zeros((3, 4, 8, 8))),
        r"signed: expected \[3, 2, 9\]": replace(good, signed=good.curve),
        "signed/1/2/3: expected a finite loss, found nan": replace(
            good, kv_heads=4, signed=nan
        ),
        "signed: expected losses of 0 or more": replace(good, kv_heads=4, signed=negative),
    }
    for message, curves in wrong.items():
        with pytest.raises(PlanError, match=f"curves: {message}.*profile again"):
            curves.check()


def test_signed_losses_are_those_of_kv_heads():
    good = make_curves(512, rows=True)
    assert good.kv_heads == 2
    signed = good.curve[:, 1:3]
    curves = replace(good, signed=signed).by_sign().check()
    assert curves.curve.shape == good.curve.shape
    np.testing.assert_allclose(curves.curve.reshape(3, 2, 2, 9).sum(2), signed)
    np.testing.assert_array_equal(curves.curve[:, 0], curves.curve[:, 1])
    assert curves.estimator == "set-signed" and curves.rows is None
    message = r"512/summary.npz: expected signed losses, found none; .* --losses sizes"
    with pytest.raises(PlanError, match=message):
        good.by_sign()


def test_faults_of_files(tmp_path):
    path = tmp_path / "summary.npz"
    with pytest.raises(PlanError, match="expected a profile, found none; profile again"):
        load_curves(path)
    path.write_bytes(b"PK not a zip")
    with pytest.raises(PlanError, match=r"expected a profile \(.npz\), found"):
        load_curves(path)
    np.savez(path, curve=np.array([{}], dtype=object))
    with pytest.raises(PlanError, match=r"expected a profile \(.npz\), found"):
        load_curves(path)
    np.savez(path, curve=np.ones((1, 1, 9)), length=512)
    with pytest.raises(PlanError, match="sink: expected numbers, found none"):
        load_curves(path)
    np.savez(path, curve=np.array("x"))
    with pytest.raises(PlanError, match="curve: expected numbers, found <U1"):
        load_curves(path)


def test_profiles_of_a_run(tmp_path):
    run = write_profile(tmp_path, (1024, 512))
    profile = load_profile(run)
    assert list(profile.curves) == [512, 1024] and len(profile.sha256) == 64
    assert load_profile(run).sha256 == profile.sha256
    replace(make_curves(512), items=9).write(run / "profile/512/summary.npz")
    assert load_profile(run).sha256 != profile.sha256
    for key, value in (("sink", 128), ("kv_heads", 4), ("model_config_sha256", "other")):
        replace(make_curves(512), **{key: value}).write(run / "profile/512/summary.npz")
        with pytest.raises(PlanError, match=f"{key}: expected .* as .*1024.*; profile all"):
            load_profile(run)
    make_curves(448).write(run / "profile/512/summary.npz")
    with pytest.raises(PlanError, match="length: expected length 512, found 448"):
        load_profile(run)
    with pytest.raises(
        PlanError, match="found none; profile the model first: moa-plan profile"
    ):
        load_profile(tmp_path / "empty")
