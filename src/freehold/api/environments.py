"""Runtime environments as users write them: checked, merged, and made into what travels.

``runtime_env={...}`` may stand in ``init``, on a remote function or class, and in ``.options``.
What is wrong with it is said where it is written. At the first call that uses it the files that it
names are packed, once for each session, and from then on it is a key (``wire.environments``).

A child inherits: what a task submits runs in the task's own environment; one that is given for it
is laid over that. Variables are merged, every other key replaces what was there. A function that
travels takes its packages along instead of the names of folders, which mean nothing elsewhere.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from freehold.api import packaging
from freehold.api.options import text
from freehold.runtime import current
from freehold.wire import serial
from freehold.wire.environments import (
    Environment,
    EnvironmentDescribed,
    Installation,
    Package,
)

if TYPE_CHECKING:
    from freehold.runtime.driver import Driver
    from freehold.runtime.process import Process

Chosen = TypeVar("Chosen", bound=Struct)

KEYS: Final = (
    "env_vars",
    "working_dir",
    "excludes",
    "py_modules",
    "pip",
    "uv",
    "worker_process_setup_hook",
    "config",
)
#: What may stand beside the packages of an installer, and how that is called elsewhere.
INSTALLER_KEYS: Final = {
    "pip": ("packages", "pip_check", "pip_install_options"),
    "uv": ("packages", "uv_check", "uv_pip_install_options"),
}
#: Seconds that an environment may take to be made: Ray's figure; large wheels take minutes.
SETUP_SECONDS: Final = 600.0


class RuntimeEnv(dict[str, Any]):
    """What tasks find around them, checked when it is made. The same as a dict with these keys.

    Args:
        env_vars: variables of the worker's environment; ``${NAME}`` in a value is what it was.
        working_dir: folder (or zip file of its contents) that tasks work in and import from. Files
            that match patterns in its .gitignore and .freeholdignore files stay behind.
        excludes: more such patterns.
        py_modules: folders of packages, files, modules or wheels that tasks can import.
        pip, uv: requirements to install: a list, the path of a requirements file, or a dict with
            ``packages`` (either), ``pip_check`` (verify them together) and
            ``pip_install_options``; for uv ``uv_check`` and ``uv_pip_install_options``.
        worker_process_setup_hook: a function, or the name of one ("module.function"), that each
            worker calls before its first task.
        config: ``{"setup_timeout_seconds": 600}``.

    Raises TypeError or ValueError, naming the key and what it takes.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(checked(given))


def checked(given: object) -> dict[str, Any]:
    """``runtime_env`` as the user wrote it. Raises TypeError or ValueError for what is wrong."""
    if not isinstance(given, Mapping):
        raise TypeError(f"runtime_env must be a dict, not {given!r}")
    for key in given:
        if key not in KEYS:
            import difflib  # (for mistakes only)

            near = difflib.get_close_matches(str(key), KEYS, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ";"
            raise ValueError(
                f"unknown key {key!r} in runtime_env{hint} the keys are: {', '.join(KEYS)}"
            )
    values = {key: given[key] for key in KEYS if given.get(key) is not None}
    if "pip" in values and "uv" in values:
        raise ValueError("runtime_env has both 'pip' and 'uv': they would install into one place")
    for key, check in CHECKS.items():
        if key in values:
            values[key] = check(values[key])
    if "excludes" in values and "working_dir" not in values and "py_modules" not in values:
        raise ValueError("runtime_env['excludes'] is about files, and there are none to send")
    return values


def _variables(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise TypeError(f"runtime_env['env_vars'] must be a dict of strings, not {value!r}")
    found = {}
    for name, item in value.items():
        name = text("the name of a variable in runtime_env['env_vars']", name)
        if not name or "=" in name or "\0" in name:
            raise ValueError(f"runtime_env['env_vars']: {name!r} cannot be a variable's name")
        found[name] = text(f"runtime_env['env_vars'][{name!r}]", item)
    return found


def _folder(value: object) -> str:
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"runtime_env['working_dir'] must be a path, not {value!r}")
    path = os.fspath(value)
    if "://" in path:
        raise ValueError(
            f"runtime_env['working_dir'] must be a folder or zip file here, not {path!r}: "
            "nothing is fetched from elsewhere; download it first"
        )
    return path


def _patterns(value: object) -> list[str]:
    return _strings("runtime_env['excludes']", value)


def _strings(what: str, value: object) -> list[str]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{what} must be a list of strings, not {value!r}")
    return [text(f"an item of {what}", item) for item in value]


def _modules(value: object) -> list[str | ModuleType]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"runtime_env['py_modules'] must be a list, not {value!r}")
    for item in value:
        if not isinstance(item, str | os.PathLike | ModuleType):
            raise TypeError(
                "runtime_env['py_modules'] takes paths of folders, files and wheels, and modules, "
                f"not {item!r}"
            )
    return [item if isinstance(item, ModuleType) else os.fspath(item) for item in value]


def _requirements(installer: str, value: object) -> dict[str, Any]:
    """A list, a file or a dict, as a dict."""
    keys = INSTALLER_KEYS[installer]
    where = f"runtime_env[{installer!r}]"
    if not isinstance(value, Mapping):
        value = {"packages": value}
    for key in value:
        if key not in keys:
            raise ValueError(f"unknown key {key!r} in {where}; the keys are: {', '.join(keys)}")
    packages = value.get("packages")
    if isinstance(packages, str | os.PathLike):
        packages = os.fspath(packages)
    else:
        packages = _strings(f"{where}['packages']", packages)
        if not packages:
            raise ValueError(f"{where} names no package")
    check = value.get(keys[1], False)
    if not isinstance(check, bool):
        raise TypeError(f"{where}[{keys[1]!r}] must be True or False, not {check!r}")
    options = _strings(f"{where}[{keys[2]!r}]", value.get(keys[2]) or [])
    return {"packages": packages, keys[1]: check, keys[2]: options}


def _hook(value: object) -> object:
    if isinstance(value, str):
        if "." not in value.strip("."):
            raise ValueError(
                "runtime_env['worker_process_setup_hook'] must be a function or its name with its "
                f"module, as 'module.function', not {value!r}"
            )
    elif not callable(value):
        raise TypeError(
            f"runtime_env['worker_process_setup_hook'] must be a function, not {value!r}"
        )
    return value


def _config(value: object) -> dict[str, float]:
    keys = ("setup_timeout_seconds",)
    if not isinstance(value, Mapping):
        raise TypeError(f"runtime_env['config'] must be a dict, not {value!r}")
    for key in value:
        if key not in keys:
            raise ValueError(
                f"unknown key {key!r} in runtime_env['config']; the keys are: {', '.join(keys)}"
            )
    seconds = value.get(keys[0], SETUP_SECONDS)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"setup_timeout_seconds must be seconds, not {seconds!r}")
    if not 0 < seconds < float("inf"):
        raise ValueError(f"setup_timeout_seconds must be finite seconds > 0, not {seconds}")
    return {keys[0]: float(seconds)}


CHECKS: Final[dict[str, Callable[[Any], Any]]] = {
    "env_vars": _variables,
    "working_dir": _folder,
    "excludes": _patterns,
    "py_modules": _modules,
    "pip": lambda value: _requirements("pip", value),
    "uv": lambda value: _requirements("uv", value),
    "worker_process_setup_hook": _hook,
    "config": _config,
}

# ------------------------------------------------------------------------- into what travels


def key_of(process: Process, given: Mapping[str, Any] | None) -> bytes:
    """The key under which the process asks for workers in a checked ``runtime_env``, or in its own.

    Raises what ``described`` does.
    """
    if given is None:
        return process.environment_key
    name = repr(given)
    known = process.environments.get(name)
    if known is None:
        key = process.use_environment(described(process, given))
        process.environments[name] = known = (given, key)  # (held: the name has ids in it)
    return known[1]


def announce(driver: Driver, given: Mapping[str, Any], preload: Sequence[str]) -> None:
    """Have all that the driver submits run in this, and its node begin to prepare it."""
    environment = described(driver, given)
    if preload:
        environment.preload = list(preload)
        environment.python_path = [entry or str(Path.cwd()) for entry in sys.path]
    driver.adopt_environment(environment)
    with driver.lock:
        message = EnvironmentDescribed(driver.environment_key, environment, workers=True)
        driver.transport.send(driver.node, message)
        driver.transport.flush()


def travelling(options: Chosen) -> Chosen:
    """Options of a function or class that travels: with packages instead of files."""
    given = getattr(options, "runtime_env", None)
    process = current.process()
    if given is None or process is None:
        return options
    packed = dict(given)
    excludes = packed.pop("excludes", [])
    if "working_dir" in packed:
        packed["working_dir"] = _packed(process, packed["working_dir"], excludes)
    if "py_modules" in packed:
        packed["py_modules"] = [_module(process, item, excludes) for item in packed["py_modules"]]
    return replace(options, runtime_env=packed)


def described(process: Process, given: Mapping[str, Any]) -> Environment:
    """A checked ``runtime_env``, laid over what the process passes on to its children, with its
    files packed.

    Raises FileNotFoundError or ValueError for files that cannot be packed, SerializationError for
    a hook that cannot travel.
    """
    under = process.environment or Environment()
    new = replace(under)
    excludes = given.get("excludes", [])
    if "env_vars" in given:
        merged = {**under.env_vars, **given["env_vars"]}
        new.env_vars = dict(sorted(merged.items()))
    if "working_dir" in given:
        new.working_dir = _packed(process, given["working_dir"], excludes)
    if "py_modules" in given:
        new.py_modules = [_module(process, item, excludes) for item in given["py_modules"]]
    for installer in ("pip", "uv"):
        if installer in given:
            new.installation = _installation(installer, given[installer])
    if "worker_process_setup_hook" in given:
        new.hook = _packed_hook(given["worker_process_setup_hook"])
    if "config" in given:
        new.setup_seconds = given["config"]["setup_timeout_seconds"]
    return new


def _packed(process: Process, folder: str | Package, excludes: Sequence[str]) -> Package:
    if isinstance(folder, Package):
        return folder
    path = Path(folder).expanduser()
    if path.is_dir():
        return packaging.pack_folder(process, path, excludes)
    if path.is_file() and path.suffix == ".zip":
        return packaging.pack_archive(process, path)
    raise FileNotFoundError(
        f"runtime_env['working_dir'] must be a folder or a .zip file; {path.absolute()} is neither"
    )


def _module(process: Process, item: str | ModuleType | Package, excludes: Sequence[str]) -> Package:
    if isinstance(item, Package):
        return item
    if isinstance(item, ModuleType):
        return packaging.pack_module(process, item, excludes)
    path = Path(item).expanduser()
    if path.is_dir():
        return packaging.pack_folder(process, path, excludes, within=path.absolute().name)
    if path.is_file() and path.suffix == ".whl":
        return packaging.pack_archive(process, path, wheel=True)
    if path.is_file() and path.suffix == ".zip":
        return packaging.pack_archive(process, path)
    if path.is_file() and path.suffix == ".py":
        return packaging.pack_file(process, path)
    raise FileNotFoundError(
        "runtime_env['py_modules'] takes folders, .py files, wheels and .zip files; "
        f"{path.absolute()} is none of these"
    )


def _installation(installer: str, given: Mapping[str, Any]) -> Installation:
    _, check, options = INSTALLER_KEYS[installer]
    packages = given["packages"]
    lines = _read_requirements(Path(packages)) if isinstance(packages, str) else packages
    return Installation(installer, lines, given[options], given[check])


def _read_requirements(file: Path) -> list[str]:
    """The lines of a requirements file, with those of the files that it names by ``-r``."""
    lines: list[str] = []
    for line in file.read_text().splitlines():
        words = line.split()
        if words and words[0] in ("-r", "--requirement") and len(words) > 1:
            lines += _read_requirements(file.parent / words[1])
        elif words and not words[0].startswith("#"):
            lines.append(line.strip())
    return lines


class _Named:
    """Calls a function by its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> None:
        from importlib import import_module

        module, _, function = self.name.rpartition(".")
        getattr(import_module(module), function)()


def _packed_hook(hook: Any) -> bytes:
    what = "runtime_env['worker_process_setup_hook']"
    pickled, captured = serial.pickle_function(
        _Named(hook) if isinstance(hook, str) else hook, what
    )
    if captured:
        raise ValueError(f"{what} must not hold references: it runs before any task")
    return pickled


def checked_modules(names: Iterable[str] | None) -> list[str]:
    """``preload`` of ``init``. Raises TypeError or ValueError."""
    found = _strings(
        "preload", list(names) if names and not isinstance(names, str) else names or []
    )
    for name in found:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"preload takes names of modules, and {name!r} cannot be one")
    return found
