"""What is documented is what there is: commands, configuration keys, formats."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import pytest
import typer
from pydantic_core import PydanticUndefined

from abaw import config
from abaw.cli import app
from abaw.config.encoders import AUDIO_NAMES, VISUAL_NAMES
from abaw.config_file import load_config
from abaw.presets import PRESETS
from abaw.store import Reason

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "data.example.toml"
COMMANDS = typer.main.get_command(app).commands
TABLES = {
    name: type(field.default)
    for name, field in config.Config.model_fields.items()
    if isinstance(field.default, config.Table)
} | {
    "encoders.mae": config.VisualEncoderConfig,
    "encoders.logmel": config.AudioEncoderConfig,
    "pretrain.sources": config.PretrainSource,
    "finetune.emma": config.EmmaConfig,
    "finetune.cotex": config.CotexConfig,
    "finetune.emae": config.EmaeConfig,
    "fuse.dual": config.DualBranchConfig,
    "fuse.ensemble": config.EnsembleConfig,
    "finetune.expr.extra": config.ExtraImages,
}

FLAGS = {
    "align": "all_faces config device dry_run export_crops json limit offline overwrite quiet set_ shard strict "
    "verbose workers",
    "pretrain": "config device dry_run init_from json overwrite quiet set_ verbose",
    "finetune": "ablate config device dry_run fold folds init_from json overwrite quiet set_ task verbose",
    "extract-visual": "config device dry_run encoder fold folds json limit overwrite quiet set_ shard strict verbose",
    "extract-audio": "config device dry_run encoder json limit overwrite quiet set_ shard strict verbose workers",
    "fuse": "ablate_streams acknowledge config device dry_run ensemble fold folds json more overwrite quiet "
    "set_ task verbose",
    "evaluate": "against config from_csv json labels predictions quiet raw set_ task verbose",
    "submit": "acknowledge check config dry_run edition json number overwrite predictions quiet sample set_ task "
    "verbose",
    "report": "config json labels out quiet raw run set_ task verbose with_faces",
    "predict": "all_faces config device json out overlay overwrite quiet raw runs set_ timeline verbose videos workers",
    "synth": "json out portraits quiet seconds seed sheet verbose videos workers",
    "doctor": "config device json quiet set_ verbose",
    "check": "config csv json quiet set_ verbose",
    "tune": "acknowledge also config dry_run json overwrite predictions quiet set_ verbose",
    "inspect": "convert json path quiet trained_on verbose verify",
    "import": "columns config dry_run format_ json kind limit name overwrite quiet set_ shard source strict trained_on "
    "verbose workers",
    "export": "dry_run faces format_ json limit out overwrite quiet shard store strict verbose workers",
}


@pytest.mark.parametrize("page", ["commands.md", "weights.md"])
def test_generated_pages_are_current(page):
    pages = runpy.run_path(str(ROOT / "docs/reference.py"))["pages"]()
    assert (ROOT / "docs" / page).read_text() == pages[page], "run `make docs`"


@pytest.mark.parametrize("name", [*VISUAL_NAMES, *AUDIO_NAMES])
@pytest.mark.parametrize("page", ["README.md", "docs/features.md"])
def test_every_encoder_is_in_the_tables(page, name):
    assert re.search(rf"^\|.*`{name}[`:]", (ROOT / page).read_text(), re.MULTILINE)


def test_flags_are_frozen():
    found = {name: " ".join(sorted(p.name for p in command.params)) for name, command in COMMANDS.items()}
    assert found == FLAGS, "new knobs go into the configuration, not into flags"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_an_example(name):
    assert f"Example: abaw {name}" in COMMANDS[name].help


@pytest.mark.parametrize("name", COMMANDS)
def test_the_readme_names_every_command(name):
    assert f"`{name}`" in (ROOT / "README.md").read_text()


def example_keys() -> dict[str, set[str]]:
    """Keys of each table of the example, those in a comment (no default) included."""
    found: dict[str, set[str]] = {}
    table = ""
    for line in EXAMPLE.read_text().splitlines():
        header = re.match(r"^(?:# )?\[+([\w.-]+)\]+", line)
        key = re.match(r"^(?:# )?(\w+) = ", line)
        if header:
            table = header[1]
        elif key:
            found.setdefault(table, set()).add(key[1])
    return found


@pytest.mark.parametrize("table", TABLES)
def test_the_example_documents_every_key_and_no_other(table):
    fields = set(TABLES[table].model_fields)
    fields -= {"sources", "emma", "cotex", "emae", "extra", "dual", "ensemble"}  # tables of their own
    assert example_keys().get(table) == fields


def test_the_example_loads_and_holds_the_defaults(tmp_path):
    raw = tomllib.loads(EXAMPLE.read_text())
    for table, model in TABLES.items():
        if table == "pretrain.sources":
            continue
        found = raw
        for part in table.split("."):
            found = found.get(part, {})
        for key, value in found.items():
            if isinstance(value, dict) and key not in ("annotations", "test"):
                continue  # a table of its own
            default = model.model_fields[key].default
            if table == "data" or default is PydanticUndefined:
                continue  # an example of the user's own folders
            shown = str(default) if isinstance(default, Path) else default
            assert value == shown, f"{table}.{key}"
    path = tmp_path / "data.toml"
    path.write_text(EXAMPLE.read_text())
    load_config(path)


@pytest.mark.parametrize("place", PRESETS)
def test_every_preset_loads(tmp_path, place):
    table, _, keys = place.partition(".")
    for names in PRESETS[place]:
        given = zip(keys.split("+"), names.split("+"), strict=True)
        lines = [f'{key} = "{name}"' for key, name in given]
        (tmp_path / "data.toml").write_text("\n".join([f"[{table}]", *lines]))
        load_config(tmp_path / "data.toml")


def test_the_pages_hold_no_placeholder():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    assert [page.name for page in pages if re.search(r"TODO|FIXME|XXX|_OUTPUT", page.read_text())] == []


def test_the_formats_page_lists_every_reason():
    text = (ROOT / "docs/formats.md").read_text()
    assert all(f"| {int(reason)} | {reason.name.lower().replace('_', ' ')} |" in text for reason in Reason)


def test_the_changelog_names_the_version():
    assert f"## {load_version()}" in (ROOT / "CHANGELOG.md").read_text()


def load_version() -> str:
    from abaw import __version__

    return __version__
