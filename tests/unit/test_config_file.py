"""Configuration: every problem at once, and who overrides whom."""

import pytest

from abaw.config_file import load_config
from abaw.errors import AbawError, ExitCode


def load(tmp_path, text="", **options):
    path = tmp_path / "data.toml"
    path.write_text(text)
    return load_config(path, **options)


def test_an_empty_file_gives_the_defaults_and_derived_paths(tmp_path):
    cfg = load(tmp_path)
    assert cfg.faces_store == tmp_path / "features/faces"
    assert cfg.run_dir("fuse", "netease", "va") == tmp_path / "runs/fuse-va-netease"
    assert cfg.predictions_store(cfg.run_dir("fuse", "netease", "va")) == tmp_path / "predictions/fuse-va-netease"
    assert cfg.features_store("audio", "logmel") == tmp_path / "features/audio-logmel"


def test_paths_are_relative_to_the_file(tmp_path):
    cfg = load(tmp_path, '[data]\nvideos = "v"\nannotations = { va = "labels/VA" }\n')
    assert (cfg.data.videos, cfg.data.annotations["va"]) == (tmp_path / "v", tmp_path / "labels/VA")


def test_all_problems_come_in_one_message(tmp_path):
    with pytest.raises(AbawError) as caught:
        load(tmp_path, '[finetune]\nstep = 3\nlr = "abc"\n[alignment]\nx = 1\n')
    assert str(caught.value) == (
        "error: 3 problems in data.toml\n"
        '  where: alignment  unknown key (did you mean "align"?)\n'
        "         finetune.lr  expected a number, got 'abc'\n"
        '         finetune.step  unknown key (did you mean "steps"?)\n'
        "  fix:   see [alignment], [finetune] in data.example.toml"
    )
    assert caught.value.code is ExitCode.CONFIG


def test_a_problem_of_a_table_is_not_repeated_for_its_task_tables(tmp_path):
    with pytest.raises(AbawError, match="1 problem") as caught:
        load(tmp_path, "[fuse]\nlr = -1\n[fuse.va]\nsteps = 3\n")
    assert caught.value.where == "fuse.lr  input should be greater than 0, got -1"


def test_a_task_table_stands_over_its_table(tmp_path):
    cfg = load(tmp_path, "[fuse]\nlr = 0.1\nsteps = 7\n[fuse.va]\nlr = 0.2\n")
    assert (cfg.fuse_for("va").lr, cfg.fuse_for("va").steps, cfg.fuse_for("au").lr) == (0.2, 7, 0.1)


def test_set_stands_over_both(tmp_path):
    cfg = load(tmp_path, "[fuse]\nlr = 0.1\n[fuse.va]\nlr = 0.2\n", overrides=["fuse.lr=0.3"])
    assert cfg.fuse_for("va").lr == cfg.fuse_for("au").lr == 0.3


def test_set_reaches_one_task(tmp_path):
    cfg = load(tmp_path, overrides=["fuse.va.lr=0.3"])
    assert (cfg.fuse_for("va").lr, cfg.fuse_for("au").lr) == (0.3, 5e-5)


def test_a_flag_stands_over_set_and_none_means_not_given(tmp_path):
    cfg = load(tmp_path, overrides=["run.device=cuda", "run.seed=3"], flags={"run": {"device": "cpu", "seed": None}})
    assert (cfg.run.device, cfg.run.seed) == ("cpu", 3)


def test_a_preset_fills_what_the_table_leaves_out(tmp_path):
    cfg = load(tmp_path, '[pretrain]\npreset = "vit_base_224"\nsteps = 5\n')
    assert (cfg.pretrain.batch_size, cfg.pretrain.steps) == (512, 5)


def test_an_unknown_preset_lists_the_names(tmp_path):
    with pytest.raises(AbawError, match="1 problem") as caught:
        load(tmp_path, '[pretrain]\npreset = "vit_huge"\n')
    assert caught.value.where.startswith('pretrain.preset  unknown name "vit_huge"')
    assert "vit_" in caught.value.where


def test_an_unknown_task_table_is_refused(tmp_path):
    with pytest.raises(AbawError, match="1 problem") as caught:
        load(tmp_path, "[fuse.vaa]\nlr = 1\n")
    assert caught.value.where == 'fuse.vaa  unknown key or task "vaa" (did you mean "va"?)'


@pytest.mark.parametrize("text", ["lr=1", "fuse.lr", "fuse.=1", ".lr=1"])
def test_an_unreadable_override_shows_the_form(tmp_path, text):
    with pytest.raises(AbawError, match="cannot read --set"):
        load(tmp_path, overrides=[text])


def test_a_missing_file_says_how_to_get_one(tmp_path):
    with pytest.raises(AbawError, match="no configuration file") as caught:
        load_config(tmp_path / "none.toml")
    assert "abaw synth" in caught.value.fix


def test_broken_toml_names_the_line(tmp_path):
    with pytest.raises(AbawError, match="line 2"):
        load(tmp_path, "[fuse]\nlr = = 3\n")


def test_a_named_encoder_is_checked_too(tmp_path):
    with pytest.raises(AbawError, match="1 problem") as caught:
        load(tmp_path, '[encoders.mine]\nencoder = "mae"\nweight = "x"\n')
    assert caught.value.where == 'encoders.mine.weight  unknown key (did you mean "weights"?)'


def problems(folder, text):
    with pytest.raises(AbawError) as caught:
        load(folder, text)
    return caught.value.where.splitlines()


def test_a_key_of_the_other_kind_of_encoder_is_called_that(tmp_path):
    text = '[encoders.a]\nencoder = "logmel"\nflip = true\n[encoders.b]\nencoder = "timm:resnet18"\nhop_s = 0.1\n'
    assert problems(tmp_path, text) == [
        "encoders.a.flip  is a key of visual encoders only",
        "encoders.b.hop_s  is a key of sound encoders only",
    ]


def test_an_unknown_encoder_is_found_before_a_stage_begins(tmp_path):
    assert problems(tmp_path, '[encoders.a]\nencoder = "hubbert"\n') == [
        "encoders.a.encoder  is no encoder (did you mean \"hubert\"?), got 'hubbert'"
    ]


def test_encoders_of_a_model_or_file_must_name_it(tmp_path):
    assert problems(tmp_path, '[encoders.a]\nencoder = "timm"\n[encoders.b]\nencoder = "onnx"\n') == [
        "encoders.a.encoder  write \"timm:<model>\", got 'timm'",
        "encoders.b.encoder  write \"onnx:<file>\", got 'onnx'",
    ]


@pytest.mark.parametrize("value", ['"men"', "0", "true", "1.5"])
def test_a_layer_is_a_number_but_0_or_the_mean(tmp_path, value):
    (found,) = problems(tmp_path, f'[encoders.a]\nencoder = "hubert"\nlayer = {value}\n')
    assert found.startswith('encoders.a.layer  give a layer from 1, one from the end such as -1, or "mean", got ')


def test_pixel_constants_are_three_or_none(tmp_path):
    (found,) = problems(tmp_path, '[encoders.a]\nencoder = "onnx:a.onnx"\nstd = [0.5]\n')
    assert found == "encoders.a.std  give three numbers, for red, green and blue, or none, got [0.5]"
    config = load(tmp_path, '[encoders.a]\nencoder = "onnx:a.onnx"\nmean = [0.0, 0.0, 0.0]\n')
    assert config.encoders["a"].mean == [0.0, 0.0, 0.0]


def test_labels_of_an_unknown_task_are_refused(tmp_path):
    with pytest.raises(AbawError, match="1 problem") as caught:
        load(tmp_path, '[data.annotations]\nexp = "x"\n')
    assert caught.value.where == 'data.annotations.exp  unknown task "exp" (did you mean "expr"?)'


def test_the_files_folder_cannot_be_set(tmp_path):
    with pytest.raises(AbawError) as caught:
        load(tmp_path, 'root = "x"\n')
    assert caught.value.where == "root  unknown key"


def test_an_output_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(AbawError, match="1 problem") as caught:
        load(tmp_path, '[run]\noutput = "out"\n')
    assert "is not a folder" in caught.value.where


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[finetune]\nsteps = "100"\n', "finetune.steps  expected a whole number"),
        ("[fuse]\nsteps = true\n", "fuse.steps  expected a whole number"),
        (
            '[fuse]\ngap = "holdd"\n',
            "fuse.gap  is no policy for gaps (one of: mask, hold, nearest, linear), got 'holdd'",
        ),
        ("[fuse]\nlr = inf\n", "fuse.lr"),
        ('[data]\nvideos = ""\n', "data.videos"),
        ("[fuse_tasks.va]\nlr = 1\n", "fuse_tasks  unknown key"),
    ],
)
def test_what_only_looks_like_a_value_is_refused(tmp_path, text, problem):
    with pytest.raises(AbawError) as caught:
        load(tmp_path, text)
    assert problem in caught.value.where


def test_a_wrong_preset_stands_beside_the_other_problems(tmp_path):
    with pytest.raises(AbawError, match="2 problems") as caught:
        load(tmp_path, '[fuse]\nmodel = "netese"\nlr = "abc"\n')
    assert 'fuse.model  unknown name "netese" (did you mean "netease"?)' in caught.value.where


@pytest.mark.parametrize("key", ["finetune.name", "finetune.split", "pretrain.name", "fuse.name"])
def test_a_name_may_hold_no_path(tmp_path, key):
    (tmp_path / "data.toml").write_text("")
    with pytest.raises(AbawError, match=f"{key}  .*a name may hold no path"):
        load_config(tmp_path / "data.toml", overrides=[f'{key}="../x"'])


def test_a_tables_own_table_is_merged_over_a_task_table_key_by_key(tmp_path):
    (tmp_path / "data.toml").write_text('[finetune.emae]\nview = "eyes"\n[finetune.expr.emae]\noperator = "mean"\n')
    cfg = load_config(tmp_path / "data.toml", overrides=["finetune.emae.style=dim"])
    assert cfg.finetune_for("expr").emae.model_dump() == {
        "view": "eyes",
        "operator": "mean",
        "style": "dim",
        "after": 0,
    }


def test_the_presets_of_model_and_size_together_stand_above_each_of_them(tmp_path):
    (tmp_path / "data.toml").write_text('[finetune]\npreset = "vit_base_224"\nmodel = "emma"\nwarmup_steps = 7\n')
    own = load_config(tmp_path / "data.toml").finetune
    assert (own.batch_size, own.accumulate, own.clip_norm, own.warmup_steps) == (400, 4, 0.05, 7)


def test_weights_are_named_from_the_files_folder_or_from_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "data.toml").write_text("")
    (tmp_path / "runs/one").mkdir(parents=True)
    cfg = load_config(tmp_path / "data.toml")
    assert cfg.weights_file("~/mae.pth") == tmp_path / "home/mae.pth"
    assert cfg.weights_file("runs/one") == tmp_path / "runs/one/best.safetensors"
