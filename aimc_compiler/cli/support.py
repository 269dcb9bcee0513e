"""`aimc support`: what of a network would be analog, digital or without a place, before anything is compiled."""

import json
from typing import Annotated

import typer

import aimc_compiler as aimc
from aimc_compiler.cli.options import Json, NamedRules, RuleOption, Set, read_rule_options
from aimc_compiler.cli.reference import MODEL_FORMS, find_model
from aimc_compiler.cli.terminal import terminal
from aimc_compiler.compiler.entries import ONLY
from aimc_compiler.errors import DataError, RuleError
from aimc_compiler.graph import Entry, support_of


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
    if isinstance(example, tuple):
        example = {ONLY: Entry(inputs=example)}
    elif rules and len(example) > 1:
        raise RuleError(
            "rules place the matrices of all entries together: leave them out here, aimc compile takes them"
        )
    found = {
        name: support_of(
            network, entry.inputs, entry.kwargs, entry.batch_dim, method=entry.method, chip=spec, rules=rules
        )
        for name, entry in example.items()
    }
    if as_json:
        reports = {name: support_json(each) for name, each in found.items()}
        print(json.dumps(reports if len(found) > 1 else next(iter(reports.values())), indent=2))  # noqa: T201
    else:
        console = terminal()
        for name, each in found.items():
            console.print(*([f"entry {name}:"] if len(found) > 1 else []), support_table(each), sep="\n")
            console.print()
            console.print(*support_lines(each), sep="\n", markup=False)
    if not all(each.supported for each in found.values()):
        raise typer.Exit(1)
