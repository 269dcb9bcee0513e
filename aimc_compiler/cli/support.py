"""`aimc support`: what of a network would be analog, digital or without a place, before anything is compiled."""

import json
from typing import Annotated

import typer

import aimc_compiler as aimc
from aimc_compiler.cli.options import Json, NamedRules, RuleOption, Set, read_rule_options
from aimc_compiler.cli.reference import MODEL_FORMS, find_model
from aimc_compiler.cli.terminal import terminal
from aimc_compiler.errors import DataError
from aimc_compiler.graph import support_of


def support(
    model: Annotated[str, typer.Argument(help=f"The network: {MODEL_FORMS}.")],
    chip: Annotated[
        str | None, typer.Option(help="A built-in chip or a spec file: then with tiles and missing prices.")
    ] = None,
    rule: RuleOption = None,
    named_rules: NamedRules = None,
    sets: Set = None,
    as_json: Json = False,
) -> None:
    """List what would be analog, digital and unsupported; exit code 1 where something is unsupported."""
    from aimc_compiler.report import support_json, support_lines, support_table

    if chip is None and sets:
        raise DataError("--set changes a chip: name it with --chip")
    spec = None if chip is None else aimc.load_chip(chip, overrides=tuple(sets or ()))
    rules = read_rule_options(rule or [], named_rules)
    network, example = find_model(model)
    found = support_of(network, example, chip=spec, rules=rules)
    if as_json:
        print(json.dumps(support_json(found), indent=2))  # noqa: T201
    else:
        console = terminal()
        console.print(support_table(found))
        console.print()
        console.print(*support_lines(found), sep="\n", markup=False)
    if not found.supported:
        raise typer.Exit(1)
