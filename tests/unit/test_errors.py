"""The user's error: three lines, one look-up message, and safe passage between processes."""

import pickle

import pytest

from abaw.errors import AbawError, ExitCode, choose


def test_error_prints_what_where_and_fix():
    error = AbawError("no such thing", where="a.toml: x", fix="write y")
    assert str(error) == "error: no such thing\n  where: a.toml: x\n  fix:   write y"


def test_error_survives_pickling_with_all_fields():
    error = pickle.loads(pickle.dumps(AbawError("w", where="h", fix="f", code=ExitCode.MISSING)))
    assert (error.what, error.where, error.fix, error.code) == ("w", "h", "f", ExitCode.MISSING)


def test_choose_returns_the_entry():
    assert choose({"a": 1}, "a", what="thing", where="k") == 1


def test_choose_names_the_closest_and_all_entries():
    with pytest.raises(AbawError) as caught:
        choose({"netease": 1, "static": 2}, "neteas", what="fusion model", where="fuse.model")
    assert caught.value.what == 'unknown fusion model "neteas"'
    assert caught.value.fix == 'did you mean "netease"? choose one of: netease, static'
    assert caught.value.code is ExitCode.CONFIG
