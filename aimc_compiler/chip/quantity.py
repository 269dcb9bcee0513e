"""Pydantic types of the spec: numbers that are written with their unit and held in SI."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from aimc_compiler.units import parse_quantity, parse_rate, print_quantity


class SpecModel(BaseModel):
    """Strict: unknown keys are errors. Frozen: a spec is changed by making another one."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True)


def _quantity(unit: str) -> tuple[BeforeValidator, PlainSerializer, Any]:
    def read(value: Any) -> float:
        return parse_quantity(value, unit)

    def write(value: float) -> str:
        return print_quantity(value, unit)

    return BeforeValidator(read), PlainSerializer(write), Field(ge=0, allow_inf_nan=False)


Seconds = Annotated[float, *_quantity("s")]
Joules = Annotated[float, *_quantity("J")]
Siemens = Annotated[float, *_quantity("S")]
Ohms = Annotated[float, *_quantity("ohm")]
SquareMetres = Annotated[float, *_quantity("m2")]
Bytes = Annotated[float, *_quantity("B")]
Rate = Annotated[float, BeforeValidator(parse_rate), PlainSerializer(lambda value: f"{value:g}/tick")]
