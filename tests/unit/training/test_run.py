"""Run folders: begun, continued, refused, done."""

from pathlib import Path

import pytest

from abaw.errors import AbawError
from abaw.publish import publish
from abaw.training.run import RunFolder, write_json


def start(path: Path, lr: float = 0.1, overwrite: bool = False) -> RunFolder:
    settings, inputs = {"lr": lr, "path": path}, {"faces": {"fingerprint": "abc"}}
    return RunFolder.start(path, stage="test", settings=settings, inputs=inputs, overwrite=overwrite)


def test_a_run_records_inputs_versions_and_settings(tmp_path: Path) -> None:
    run = start(tmp_path / "r")
    assert run.record()["inputs"] == {"faces": {"fingerprint": "abc"}}
    assert set(run.record()["versions"]) >= {"abaw", "torch", "python"}
    assert (run.path / "config.json").is_file()


def test_a_run_with_the_same_settings_is_taken_up(tmp_path: Path) -> None:
    start(tmp_path / "r").finish({"score": 1.0})
    again = start(tmp_path / "r")
    assert again.is_done
    assert again.result() == {"score": 1.0}


@pytest.mark.parametrize("state", ["done", "resume.pt"])
def test_other_settings_are_refused_by_name(tmp_path: Path, state: str) -> None:
    write_json(start(tmp_path / "r").path / state, {})
    with pytest.raises(AbawError, match=r"settings.lr: 0.1 recorded, 0.2 now"):
        start(tmp_path / "r", lr=0.2)


def test_a_run_that_never_got_anywhere_may_change(tmp_path: Path) -> None:
    start(tmp_path / "r")
    assert "0.2" in (start(tmp_path / "r", lr=0.2).path / "config.json").read_text()


def test_overwrite_starts_afresh(tmp_path: Path) -> None:
    start(tmp_path / "r").finish({})
    assert not start(tmp_path / "r", lr=0.2, overwrite=True).is_done
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


def test_metrics_written_after_a_resume_point_are_cut(tmp_path: Path) -> None:
    run = start(tmp_path / "r")
    length = run.append_metrics({"step": 1})
    run.append_metrics({"step": 2})
    run.cut_metrics(length)
    assert run.metrics_path.read_text() == '{"step": 1}\n'


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", 1)

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(AbawError, match="No space left"):
        publish(tmp_path / "a.json", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "1\n"


def test_a_garbled_record_is_an_error_of_three_lines(tmp_path: Path) -> None:
    run = start(tmp_path / "r")
    run.finish({})
    (run.path / "run.json").write_text("{")
    with pytest.raises(AbawError, match="run.json of run r cannot be read"):
        start(tmp_path / "r")
