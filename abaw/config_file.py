"""Reading the configuration: TOML, presets, task tables, ``--set`` and flags merged before one validation.

Owns precedence and the message that lists every problem with its dotted key. The schema is ``config``'s.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from abaw.config import AudioEncoderConfig, Config, FinetuneConfig, FuseConfig, SubmitConfig, Table, VisualEncoderConfig
from abaw.errors import AbawError, ExitCode, closest
from abaw.presets import PRESET_KEYS, choices, preset_values
from abaw.tasks import TASKS

TASK_TABLES: dict[str, type[Table]] = {"finetune": FinetuneConfig, "fuse": FuseConfig, "submit": SubmitConfig}

FILES_OF_A_TASK = {"sample", "predictions"}

# pydantic's type of a problem starts with the type it wanted
EXPECTED = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "text", "list": "a list"}

# what pydantic adds to the place of a problem
_TAGS = ("literal[", "list[", "dict[", "function-", "visual-encoder", "audio-encoder")
# the tag of a table of [encoders], and whose keys it does not have
_OTHER_KIND: tuple[tuple[str, str, type[Table]], ...] = (
    ("visual-encoder", "sound", AudioEncoderConfig),
    ("audio-encoder", "visual", VisualEncoderConfig),
)

Raw = dict[str, Any]


def load_config(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Mapping[str, Any]] | None = None,
    optional: bool = False,
) -> Config:
    """Read and validate a configuration file.

    ``overrides`` are ``table.key=value`` with a TOML value; ``flags`` are table -> key -> value, None = not given.
    ``optional``: a file that is not there counts as an empty one. Raises AbawError (configuration) naming every
    problem at once.
    """
    raw = {} if optional and not path.exists() else _read_toml(path)
    for text in overrides:
        keys, value = _parse_override(text)
        _set(raw, keys, value)
    for table, values in (flags or {}).items():
        for key, value in values.items():
            if value is not None:
                _set(raw, [table, key], value)
    root = path.resolve().parent
    problems = _unknown_tasks(raw)
    for key in [key for key in raw if key == "root" or key.endswith("_tasks")]:  # fields of ours, not of the file
        problems.append(f"{key}  unknown key")
        del raw[key]
    tasks = _split_task_tables(raw, problems)
    content: Raw = {**raw, "root": root}
    for table, by_task in tasks.items():
        content[f"{table}_tasks"] = by_task
    for table in PRESET_KEYS:
        _apply_presets(content, table, problems)
    config = _validate(content, root=root, problems=problems)
    if config is not None and config.run.output.exists() and not config.run.output.is_dir():
        problems.append(f"run.output  {config.run.output} is not a folder")
    if problems or config is None:
        raise _problems_error(path, sorted(set(problems)))
    return config


def _read_toml(path: Path) -> Raw:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, IsADirectoryError) as error:
        raise AbawError(
            f"there is no configuration file {path}",
            where=str(path.resolve().parent),
            fix="give one with -c FILE; data.example.toml shows every key, `abaw synth OUT` writes one that works",
            code=ExitCode.CONFIG,
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise AbawError(
            f"{path} cannot be read as TOML: {error}",
            where=str(path),
            fix="correct that line; strings need quotes, tables are written [like_this]",
            code=ExitCode.CONFIG,
        ) from error


def _parse_override(text: str) -> tuple[list[str], Any]:
    name, equals, value = text.partition("=")
    keys = [key.strip() for key in name.split(".")]
    if not equals or len(keys) < 2 or not all(keys):
        raise AbawError(
            f"cannot read --set {text!r}",
            where="--set",
            fix='write --set table.key=value, e.g. --set fuse.lr=1e-4 or --set align.detector="center"',
            code=ExitCode.CONFIG,
        )
    try:
        return keys, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return keys, value.strip()  # a bare word, as a shell hands it over


def _set(raw: Raw, keys: list[str], value: Any) -> None:
    """Set a dotted key; a task table's own value for the same key gives way, since flags stand above it."""
    _table(raw, keys[:-1])[keys[-1]] = value
    if keys[0] in TASK_TABLES and keys[1] not in TASKS:
        for own in [raw[keys[0]].get(task) for task in TASKS]:
            if isinstance(own, dict) and (len(keys) == 2 or isinstance(own.get(keys[1]), dict)):
                _table(own, keys[1:-1]).pop(keys[-1], None)


def _table(raw: Raw, keys: list[str]) -> Raw:
    """The table at a place, made where there is none."""
    for key in keys:
        if not isinstance(raw.get(key), dict):
            raw[key] = {}
        raw = raw[key]
    return raw


def _split_task_tables(raw: Raw, problems: list[str]) -> dict[str, Raw]:
    """Take [table.<task>] out of their tables and merge each over its table."""
    found: dict[str, Raw] = {}
    for table in TASK_TABLES:
        content = raw.get(table)
        if not isinstance(content, dict):
            continue
        fields = TASK_TABLES[table].model_fields
        by_task = {key: value for key, value in content.items() if isinstance(value, dict) and key not in fields}
        own = {key: value for key, value in content.items() if key not in by_task}
        for task, values in by_task.items():
            if task not in TASKS:
                problems.append(_unknown(f"{table}.{task}", "key or task", task, [*fields, *TASKS]))
                continue
            # A sample file or a predictions store belongs to one task: others do not inherit it.
            foreign = FILES_OF_A_TASK if task != own.get("task", fields["task"].default) else set()
            shared = {key: value for key, value in own.items() if key not in foreign}
            found.setdefault(table, {})[task] = {**_over(shared, values, fields), "task": task}
        raw[table] = own
    return found


def _over(below: Raw, above: Raw, fields: Mapping[str, Any]) -> Raw:
    """One table over another; a table within them is merged key by key, any other value replaced."""
    nested = {key for key, field in fields.items() if isinstance(field.default, Table)}
    merged = {
        key: {**below[key], **above[key]}
        for key in nested
        if isinstance(below.get(key), dict) and isinstance(above.get(key), dict)
    }
    return {**below, **above, **merged}


def _unknown_tasks(raw: Raw) -> list[str]:
    """Keys of data.annotations and data.test that name no task."""
    data = raw.get("data")
    found = []
    for table in ("annotations", "test"):
        keys = data.get(table) if isinstance(data, dict) else None
        for key in keys if isinstance(keys, dict) else ():
            if key not in TASKS:
                found.append(_unknown(f"data.{table}.{key}", "task", key, TASKS))
    return found


def _unknown(dotted: str, what: str, name: str, names: Iterable[str]) -> str:
    """A problem line for a name that is not one of ``names``."""
    known = list(names)
    match = closest(name, known)
    hint = f'did you mean "{match}"?' if match else f"one of: {', '.join(known)}"
    return f'{dotted}  unknown {what} "{name}" ({hint})'


def _apply_presets(content: Raw, table: str, problems: list[str]) -> None:
    """Fill keys that a table leaves out from the presets it names."""
    default = Config.model_fields[table].default
    for entry in [content.setdefault(table, {}), *content.get(f"{table}_tasks", {}).values()]:
        if not isinstance(entry, dict):
            continue
        names = {key: entry.get(key, getattr(default, key)) for key in PRESET_KEYS[table]}
        for key, name in names.items():
            known = choices(table, key)
            if isinstance(name, str) and name not in known:
                problems.append(_unknown(f"{table}.{key}", "name", name, known))
        for key, value in preset_values(table, [str(name) for name in names.values()]).items():
            entry.setdefault(key, value)


def _validate(content: Raw, *, root: Path, problems: list[str]) -> Config | None:
    extra = {"run": {"output": str(root), **content["run"]}} if isinstance(content.get("run"), dict) else {}
    merged = {"run": {"output": str(root)}, **content, **extra}
    for table in ("finetune_tasks", "fuse_tasks", "submit_tasks"):
        merged.setdefault(table, {})
    try:
        return Config.model_validate(merged, context={"root": root})
    except ValidationError as error:
        details = error.errors()
        told = {tuple(map(str, detail["loc"])) for detail in details}
        for detail in details:
            place = [str(part) for part in detail["loc"]]
            # A key of the table itself comes back in each task table merged over it: say it once.
            if not (place[0].endswith("_tasks") and (place[0].removesuffix("_tasks"), *place[2:]) in told):
                problems.append(_describe(detail))
        return None


def _describe(detail: ErrorDetails) -> str:
    keys = [str(part) for part in detail["loc"]]
    if keys[0].endswith("_tasks"):
        keys[0] = keys[0].removesuffix("_tasks")
    dotted = ".".join(key for key in keys if not key.startswith(_TAGS))
    if detail["type"] == "extra_forbidden":
        for tag, kind, other in _OTHER_KIND:
            if tag in keys[:-1] and keys[-1] in other.model_fields:
                return f"{dotted}  is a key of {kind} encoders only"
        match = closest(keys[-1], _known_keys(keys[:-1]))
        hint = f' (did you mean "{match}"?)' if match else ""
        return f"{dotted}  unknown key{hint}"
    if detail["type"] == "missing":
        return f"{dotted}  is required"
    if detail["type"] == "value_error":  # a rule of ours, in its own words
        words = detail["msg"].removeprefix("Value error, ")
        return f"{dotted}  {words}" + ("" if isinstance(detail["input"], dict) else f", got {detail['input']!r}")
    expected = EXPECTED.get(detail["type"].partition("_")[0])
    message = f"expected {expected}" if expected and detail["type"].endswith(("_parsing", "_type")) else detail["msg"]
    return f"{dotted}  {message[0].lower() + message[1:]}, got {detail['input']!r}"


def _known_keys(parents: list[str]) -> list[str]:
    """Keys valid at a place of the file, for the closest match."""
    if not parents:
        return [name for name in Config.model_fields if name != "root" and not name.endswith("_tasks")]
    if parents[0] == "encoders":
        return sorted({*VisualEncoderConfig.model_fields, *AudioEncoderConfig.model_fields})
    table: type[BaseModel] = Config
    for name in parents:
        field = table.model_fields.get(name)
        if field is None or not isinstance(field.default, Table):
            return []
        table = type(field.default)
    return list(table.model_fields)


def _problems_error(path: Path, problems: list[str]) -> AbawError:
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    tables = sorted({problem.split(".")[0].split(" ")[0] for problem in problems})
    shown = ", ".join(f"[{table}]" for table in tables)
    return AbawError(
        f"{count} in {path.name}",
        where="\n".join(problems),
        fix=f"see {shown} in data.example.toml",
        code=ExitCode.CONFIG,
    )
