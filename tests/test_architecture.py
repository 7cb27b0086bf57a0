"""The layout holds: imports point down, light modules stay light, modules stay small."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "abaw"
MODULES = sorted(ROOT.rglob("*.py"))
MAX_LINES = 350

# Lowest first. A module may import from lower layers, and from its own package.
LAYERS = [
    {"errors"},
    {
        "store",
        "store_header",
        "track_file",
        "weights",
        "checkpoint",
        "crop_names",
        "ensembles",
        "label_spaces",
        "tasks",
        "metrics",
        "open_files",
        "editions",
        "config",
        "config_file",
        "presets",
        "console",
        "timeline",
        "gaps",
        "pooled",
        "postprocess",
        "publish",
        "scored",
        "provenance",
        "rules",
        "_compat",
    },
    {"data", "media", "encoders", "models"},
    {"training", "executors", "extraction", "evaluation"},
    {"stages"},
    {"predicting"},
    {"cli"},
]
SIDEWAYS = {("encoders", "models")}
# Within layer 1, and nothing else.
LAYER_ONE = {
    "checkpoint": {"provenance", "publish"},
    "config": set(),
    "config_file": {"config", "presets", "tasks"},
    "editions": {"tasks"},
    "ensembles": {"pooled", "postprocess", "tasks"},
    "label_spaces": {"tasks"},
    "pooled": {"metrics", "tasks"},
    "scored": {"gaps", "postprocess", "store", "tasks"},
    "postprocess": {"publish"},
    "rules": {"provenance", "tasks"},
    "store": {"open_files", "provenance", "publish", "store_header", "track_file"},
    "store_header": {"provenance"},
    "track_file": {"provenance", "store_header"},
    "weights": {"provenance", "publish"},
    "tasks": {"metrics", "postprocess"},
}
TORCH_FREE = [
    "abaw.cli",
    "abaw.config_file",
    "abaw.data.annotations",
    "abaw.data.collection",
    "abaw.data.export_table",
    "abaw.data.foreign_features",
    "abaw.data.image_threads",
    "abaw.data.key_csv",
    "abaw.data.keyed",
    "abaw.data.label_sources",
    "abaw.data.ledger",
    "abaw.data.manifest",
    "abaw.data.splits",
    "abaw.data.windows",
    "abaw.data.dealing",
    "abaw.data.scored_labels",
    "abaw.data.decisions",
    "abaw.data.label_folders",
    "abaw.editions",
    "abaw.ensembles",
    "abaw.evaluation",
    "abaw.executors",
    "abaw.extraction",
    "abaw.gaps",
    "abaw.label_spaces",
    "abaw.metrics",
    "abaw.pooled",
    "abaw.postprocess",
    "abaw.provenance",
    "abaw.rules",
    "abaw.scored",
    "abaw.stages.check",
    "abaw.stages.doctor",
    "abaw.stages.evaluate",
    "abaw.stages.export_features",
    "abaw.stages.import_features",
    "abaw.stages.inspect",
    "abaw.stages.report",
    "abaw.stages.submit",
    "abaw.stages.synth",
    "abaw.stages.tune",
    "abaw.store",
    "abaw.tasks",
    "abaw.timeline",
    "abaw.weights",
]
HEAVY = ["torch", "timm", "torchaudio", "insightface", "av", "matplotlib", "ray"]


def unit_of(path: Path) -> str:
    """Name of the package or top-level module a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Dotted names below `abaw` that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("abaw"):
            assert node.level == 0
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "abaw" else [node.module]
            found |= {name.removeprefix("abaw.") for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("abaw.") for alias in node.names if alias.name.startswith("abaw.")}
    return found - {"__version__"}


def layer_of(unit: str) -> int:
    return next(number for number, units in enumerate(LAYERS) if unit in units)


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.parent != ROOT or p.stem not in ("__init__", "__main__")], ids=str
)
def test_imports_point_down(path):
    unit = unit_of(path)
    for name in imports_of(path):
        other = name.partition(".")[0]
        if other == unit or (unit, other) in SIDEWAYS:
            continue
        if layer_of(unit) == layer_of(other) == 1:
            assert other in LAYER_ONE.get(unit, set()), f"{path.name} imports {name}"
        else:
            assert layer_of(other) < layer_of(unit), f"{path.name} imports {name}"


def test_stages_meet_only_on_disk():
    for path in (ROOT / "stages").glob("*.py"):
        assert not [name for name in imports_of(path) if name.startswith("stages.")]


def test_only_cli_and_stages_use_the_console():
    users = {unit_of(path) for path in MODULES if "console" in imports_of(path)}
    assert users <= {"cli", "stages", "predicting"}


def test_modules_are_small():
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: count for name, count in long.items() if count > MAX_LINES} == {}


def test_every_module_says_what_it_is_for():
    silent = [
        path for path in MODULES if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_light_modules_do_not_import_torch():
    code = f"import importlib, sys\nfor name in {TORCH_FREE}: importlib.import_module(name)\n"
    code += f"print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_click_is_never_imported():
    assert [path for path in MODULES if "import click" in path.read_text()] == []


def test_nothing_is_called_utils():
    bad = {"utils", "common", "helpers", "base", "misc"}
    assert [path for path in MODULES if path.stem in bad or path.parent.name in bad] == []
