"""What every table of the configuration is made of: number types, paths relative to the file, and strictness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["auto", "fp32", "bf16"]
Weights = Literal["none", "balanced"] | list[float]
WeightsByHead = Weights | dict[str, Weights]


def _resolve(value: Any, info: ValidationInfo) -> Any:
    """Paths are relative to the TOML file's folder, which the loader passes as context."""
    root = (info.context or {}).get("root")
    if value == "":
        msg = "a path may not be empty"
        raise ValueError(msg)
    return (root or Path()) / Path(value).expanduser() if isinstance(value, str) else value


RelativePath = Annotated[Path, BeforeValidator(_resolve)]


class Table(BaseModel):
    """A table of the file: unknown keys are errors, values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _plain_name(value: str) -> str:
    if value != Path(value).name or value.startswith("."):
        msg = "a name may hold no path"
        raise ValueError(msg)
    return value


# A name that becomes part of a file's or folder's name; "" = the default.
Name = Annotated[str, AfterValidator(_plain_name)]
