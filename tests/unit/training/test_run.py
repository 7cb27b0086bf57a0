"""Run folders: begun, continued, refused, done."""

from pathlib import Path

import pytest

from abaw.errors import AbawError
from abaw.publish import publish
from abaw.training.run import RunFolder, write_json


def start(path: Path, lr: float = 0.1, **options: bool) -> RunFolder:
    settings, inputs = {"lr": lr, "path": path}, {"faces": {"fingerprint": "abc"}}
    return RunFolder.start(path, stage="test", settings=settings, inputs=inputs, **options)


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


def test_a_run_that_stopped_at_a_bad_step_may_go_on_with_another_rate(tmp_path: Path) -> None:
    run = start(tmp_path / "r")
    for name in ("resume.pt", "nonfinite.json"):
        write_json(run.path / name, {})
    again = start(tmp_path / "r", lr=0.01)
    assert '"lr": 0.01' in (again.path / "config.json").read_text()
    assert again.record()["warnings"] == [
        "changed after a step that was not finite: settings.lr: 0.1 recorded, 0.01 now"
    ]


def test_a_dry_run_after_a_bad_step_changes_nothing(tmp_path: Path) -> None:
    run = start(tmp_path / "r")
    for name in ("resume.pt", "nonfinite.json"):
        write_json(run.path / name, {})
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    start(tmp_path / "r", lr=0.01, dry_run=True)
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_nothing_else_may_change_after_a_bad_step(tmp_path: Path) -> None:
    run = start(tmp_path / "r")
    for name in ("resume.pt", "nonfinite.json"):
        write_json(run.path / name, {})
    with pytest.raises(AbawError, match="inputs.faces"):
        RunFolder.start(run.path, stage="test", settings={"lr": 0.01, "path": run.path}, inputs={"faces": "other"})


def test_redoing_a_run_spares_the_folds_in_its_folder(tmp_path: Path) -> None:
    write_json(start(tmp_path / "r").path / "done", {})
    write_json(start(tmp_path / "r" / "fold-0").path / "done", {})
    assert not start(tmp_path / "r", overwrite=True).is_done
    assert RunFolder(tmp_path / "r" / "fold-0").is_done


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


def test_keys_that_an_older_run_lacks_count_as_the_defaults(tmp_path: Path) -> None:
    old, new = {"lr": 0.1, "views": {"count": 2}}, {"lr": 0.1, "views": {"count": 2, "ratio": 0.5}, "stride": 1}
    defaults = {"views": {"count": 7, "ratio": 0.5}, "stride": 1}
    RunFolder.start(tmp_path / "r", stage="test", settings=old, inputs={}).finish({})
    assert RunFolder.start(tmp_path / "r", stage="test", settings=new, inputs={}, defaults=defaults).is_done
    with pytest.raises(AbawError, match=r"settings.stride: 1 recorded, 2 now"):
        RunFolder.start(tmp_path / "r", stage="test", settings=new | {"stride": 2}, inputs={}, defaults=defaults)
    with pytest.raises(AbawError, match="lr"):
        RunFolder.start(tmp_path / "r", stage="test", settings=new | {"lr": 0.2}, inputs={}, defaults=defaults)


def test_a_garbled_record_is_an_error_of_three_lines(tmp_path: Path) -> None:
    run = start(tmp_path / "r")
    run.finish({})
    (run.path / "run.json").write_text("{")
    with pytest.raises(AbawError, match="run.json of run r cannot be read"):
        start(tmp_path / "r")
