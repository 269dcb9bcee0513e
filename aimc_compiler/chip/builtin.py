"""The chips that come along: YAML files beside the package, or inside it where it is installed from a wheel."""

from collections.abc import Sequence
from pathlib import Path

from aimc_compiler.chip.figures import suggest
from aimc_compiler.chip.reader import read_spec
from aimc_compiler.chip.spec import ChipSpec
from aimc_compiler.errors import InternalError, SpecError

DEFAULT = "analog-fabric"
_SUFFIXES = (".yaml", ".yml")


def builtin_names() -> tuple[str, ...]:
    """Names of the built-in chips, the default one first."""
    names = sorted(path.stem for path in _folder().glob("*.yaml"))
    return (DEFAULT, *(name for name in names if name != DEFAULT))


def load_chip(name_or_path: str | Path = DEFAULT, overrides: Sequence[str] = ()) -> ChipSpec:
    """A built-in chip by name, or a spec file by path (it holds a "/" or ends in .yaml).

    overrides: "tile.rows=128", as ``--set`` takes them. Raises SpecError.

        >>> load_chip("hermes", ["tile.count=16"]).tile.count
        16
    """
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in text or "\\" in text or text.endswith(_SUFFIXES):
        return read_spec(Path(name_or_path), overrides=overrides)
    names = builtin_names()
    if text not in names:
        hint = suggest(text.lower(), names)
        close = f"; {hint}" if hint.startswith("did") else "."
        raise SpecError(
            f"no built-in chip is called {text!r}{close} There are {', '.join(names)}; "
            "for a file of your own give its path, ending in .yaml"
        )
    return read_spec(_folder() / f"{text}.yaml", name=f"{text}.yaml", overrides=overrides)


def _folder() -> Path:
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "chipspecs", package.parent / "chipspecs"):
        if (folder / f"{DEFAULT}.yaml").is_file():
            return folder
    raise InternalError(f"the built-in chip specs are missing: neither in nor beside {package}; install again")
