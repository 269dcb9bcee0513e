"""Pydantic types of the spec: numbers that are written with their unit and held in SI."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from aimc_compiler.records import record
from aimc_compiler.units import parse_quantity, parse_rate, print_quantity, print_rate, print_time_exactly


class SpecModel(BaseModel):
    """Strict: unknown keys are errors. Frozen: a spec is changed by making another one."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True, allow_inf_nan=False
    )


@record
class Unit:
    """Stands in the annotation of a quantity, so that the reference and the messages can name its unit."""

    symbol: str
    example: str


Path = tuple[str | int, ...]
Fault = tuple[Path, str]


class CrossCheckError(ValueError):
    """Figures that contradict each other: (path below the model, message) of each contradiction.

    A ValueError, so that pydantic collects it with the other faults; the reader takes the paths out again.
    """

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, path))}: {text}" if path else text for path, text in faults))
        self.faults = faults


def raise_faults(*faults: Fault | None) -> None:
    """Raise the faults that are there, together."""
    present = tuple(fault for fault in faults if fault is not None)
    if present:
        raise CrossCheckError(present)


def _quantity(
    unit: str, example: str, write: Callable[[float], str] | None = None
) -> tuple[BeforeValidator, PlainSerializer, Any, WithJsonSchema, Unit]:
    def read(value: Any) -> float:
        return parse_quantity(value, unit)

    def write_si(value: float) -> str:
        return print_quantity(value, unit)

    schema = {"type": "string", "pattern": r"^\s*[+-]?[0-9.]", "examples": [example], "x-si-unit": unit}
    return (
        BeforeValidator(read),
        PlainSerializer(write or write_si),
        Field(ge=0, allow_inf_nan=False),
        WithJsonSchema(schema),
        Unit(symbol=unit, example=example),
    )


Seconds = Annotated[float, *_quantity("s", "130 ns")]
Age = Annotated[float, *_quantity("s", "1 day", print_time_exactly), Field(gt=0)]
Joules = Annotated[float, *_quantity("J", "0.1 pJ")]
Siemens = Annotated[float, *_quantity("S", "25 uS")]
Ohms = Annotated[float, *_quantity("ohm", "0.35 ohm")]
SquareMetres = Annotated[float, *_quantity("m2", "1.2 mm2")]
Bytes = Annotated[float, *_quantity("B", "16 KiB")]
Rate = Annotated[
    float,
    BeforeValidator(parse_rate),
    PlainSerializer(print_rate),
    WithJsonSchema({"type": "string", "pattern": r"/\s*tick\s*$", "examples": ["64/tick"], "x-si-unit": "1/tick"}),
    Unit(symbol="1/tick", example="64/tick"),
]
