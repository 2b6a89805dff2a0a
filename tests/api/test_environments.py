"""Runtime environments as users write and meet them: on one cluster, without a network.

What is installed is a wheel that the test writes itself; virtual environments go into a cache of
the module's own."""

from __future__ import annotations

import os
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import freehold as fh
from api.conftest import PATIENCE
from freehold import errors

KEYS = "env_vars, working_dir, excludes, py_modules, pip, uv, worker_process_setup_hook, config"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tests of this module write."""
    return tmp_path_factory.mktemp("environments")


@pytest.fixture(scope="module")
def job(folder: Path) -> Iterator[None]:
    """A session whose tasks have two variables, and a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FREEHOLD_CACHE", str(folder / "cache"))
        variables = {"FROM": "job", "JOB_ONLY": "yes"}
        fh.init(num_cpus=2, log_to_driver=False, runtime_env={"env_vars": variables})
        yield
        fh.shutdown()


def value_of(ref: fh.ObjectRef[Any]) -> Any:
    return fh.get(ref, timeout=60)


@fh.remote
def variables(*names: str) -> list[str | None]:
    return [os.environ.get(name) for name in names]


@fh.remote
def here() -> tuple[str, list[str]]:
    return str(Path.cwd()), sorted(path.name for path in Path.cwd().iterdir())


@fh.remote
def imported(name: str) -> dict[str, Any]:
    """What a module says, and where it and the interpreter are."""
    module = __import__(name)
    return {"word": module.WORD, "file": module.__file__, "python": sys.executable}


def wheel(folder: Path, name: str, word: str) -> Path:
    """A wheel of one module, version 1.0."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}.py", f"WORD = {word!r}\n")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        file.writestr(f"{info}/RECORD", f"{name}.py,,\n")
    return path


# --- what is wrong is said where it is written ---------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ([], TypeError, "runtime_env must be a dict, not []"),
        (
            {"env_var": {}},
            ValueError,
            f"unknown key 'env_var' in runtime_env; did you mean 'env_vars'? the keys are: {KEYS}",
        ),
        (
            {"pip": ["a"], "uv": ["b"]},
            ValueError,
            "runtime_env has both 'pip' and 'uv': they would install into one place",
        ),
        (
            {"env_vars": {"A": 1}},
            TypeError,
            "runtime_env['env_vars']['A'] must be a string, not 1",
        ),
        (
            {"env_vars": {"A=B": "1"}},
            ValueError,
            "runtime_env['env_vars']: 'A=B' cannot be a variable's name",
        ),
        (
            {"working_dir": "s3://x.zip"},
            ValueError,
            (
                "runtime_env['working_dir'] must be a folder or zip file here, not 's3://x.zip': "
                "nothing is fetched from elsewhere; download it first"
            ),
        ),
        (
            {"excludes": ["a"]},
            ValueError,
            "runtime_env['excludes'] is about files, and there are none to send",
        ),
        (
            {"pip": {"package": ["a"]}},
            ValueError,
            (
                "unknown key 'package' in runtime_env['pip']; the keys are: packages, pip_check, "
                "pip_install_options"
            ),
        ),
        ({"uv": []}, ValueError, "runtime_env['uv'] names no package"),
        (
            {"py_modules": "folder"},
            TypeError,
            "runtime_env['py_modules'] must be a list, not 'folder'",
        ),
        (
            {"worker_process_setup_hook": "hook"},
            ValueError,
            (
                "runtime_env['worker_process_setup_hook'] must be a function or its name with its "
                "module, as 'module.function', not 'hook'"
            ),
        ),
        (
            {"config": {"setup_timeout_seconds": 0}},
            ValueError,
            "setup_timeout_seconds must be finite seconds > 0, not 0",
        ),
    ],
)
def test_what_is_wrong_is_said_at_once(given: Any, error: type[Exception], words: str) -> None:
    """Goal: every mistake is named with its key and what would be right, without a session.

    Method: the same dict as a RuntimeEnv, as an option of a function, and of ``options``."""
    with pytest.raises(error) as caught:
        fh.remote(runtime_env=given)
    assert str(caught.value) == words
    with pytest.raises(error, match=re.escape(words)):
        here.options(runtime_env=given)
    if isinstance(given, dict):
        with pytest.raises(error, match=re.escape(words)):
            fh.RuntimeEnv(**given)


def test_preload_takes_names_of_modules() -> None:
    """Goal: what cannot be a module is refused before anything starts."""
    with pytest.raises(ValueError, match="preload takes names of modules, and 'a-b' cannot be one"):
        fh.init(preload=["a-b"])
    assert not fh.is_initialized()


# --- variables and inheritance -------------------------------------------------------------------


def test_variables_are_merged_and_children_inherit(job: None) -> None:
    """Goal: the job's variables reach its tasks; a task's own are laid over them; what it submits
    has both, and ``${NAME}`` is what the variable was.

    Method: a task with two variables of its own that asks a child without an environment."""

    @fh.remote(runtime_env={"env_vars": {"FROM": "task", "PATH": "/first:${PATH}"}})
    def parent() -> Any:
        return value_of(variables.remote("FROM", "JOB_ONLY", "PATH"))

    assert value_of(variables.remote("FROM", "JOB_ONLY")) == ["job", "yes"]
    child_from, child_job, path = value_of(parent.remote())
    assert (child_from, child_job) == ("task", "yes")
    assert path.startswith("/first:/")


def test_a_worker_is_in_one_environment(job: None) -> None:
    """Goal: no task ever sees the variables of another environment.

    Method: 60 tasks of three environments, mixed."""
    kinds = [
        variables.options(runtime_env={"env_vars": {"FROM": name}}) for name in ("a", "b", "c")
    ]
    found = fh.get([kinds[i % 3].remote("FROM") for i in range(60)], timeout=60)

    assert found == [[name] for _ in range(20) for name in ("a", "b", "c")]


def test_variables_that_libraries_read_early(job: None) -> None:
    """Goal: what must be there when the process begins is.

    Method: PYTHONHASHSEED, which the interpreter reads before any code of ours."""

    @fh.remote(runtime_env={"env_vars": {"PYTHONHASHSEED": "7"}})
    def digest() -> tuple[int, int]:
        return hash("word"), sys.flags.hash_randomization

    one, two = (digest.options(name=name) for name in "ab")
    assert value_of(one.remote()) == value_of(two.remote())


def test_actors_have_environments(job: None) -> None:
    """Goal: an actor lives in its own environment."""

    @fh.remote(runtime_env={"env_vars": {"FROM": "actor"}})
    class Where:
        def answer(self) -> str | None:
            return os.environ.get("FROM")

    assert value_of(Where.remote().answer.remote()) == "actor"


# --- files ---------------------------------------------------------------------------------------


def test_a_working_dir(job: None, folder: Path) -> None:
    """Goal: tasks work in a copy of the folder and import from it; ignored files stay behind; a
    file that is changed gives another copy, in the next session of the same program.

    Method: a folder with ignore files at two depths, and ``excludes``."""
    program = folder / "program"
    (program / "data").mkdir(parents=True)
    (program / "lesson.py").write_text("WORD = 'one'\n")
    (program / "data" / "kept.txt").write_text("kept")
    (program / "data" / "big.bin").write_text("not wanted")
    (program / "data" / ".freeholdignore").write_text("/big.*\n")
    (program / "run.log").write_text("not wanted")
    (program / "keep.log").write_text("wanted")
    (program / ".gitignore").write_text("*.log\n!keep.log\n")
    (program / "secret.txt").write_text("not wanted")
    environment = {"working_dir": program, "excludes": ["secret.*"]}

    where, names = value_of(here.options(runtime_env=environment).remote())
    assert names == [".gitignore", "data", "keep.log", "lesson.py"]
    assert Path(where) != program
    assert sorted(path.name for path in (Path(where) / "data").iterdir()) == [
        ".freeholdignore",
        "kept.txt",
    ]
    assert value_of(imported.options(runtime_env=environment).remote("lesson"))["word"] == "one"

    (program / "lesson.py").write_text("WORD = 'two'\n")
    changed = {**environment, "env_vars": {"CHANGED": "1"}}
    assert value_of(imported.options(runtime_env=changed).remote("lesson"))["word"] == "two"


def test_a_zip_as_working_dir_and_modules_of_all_kinds(job: None, folder: Path) -> None:
    """Goal: a zip file of a folder's contents, a package's folder, a file, a module and a wheel.

    Method: one environment with all of them."""
    zipped = folder / "zipped.zip"
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr("in_zip.py", "WORD = 'zip'\n")
    package = folder / "a_package"
    package.mkdir()
    (package / "__init__.py").write_text("WORD = 'package'\n")
    single = folder / "single.py"
    single.write_text("WORD = 'file'\n")
    loaded = folder / "loaded.py"
    loaded.write_text("WORD = 'module'\n")
    module = ModuleType("loaded")
    module.__file__ = str(loaded)
    environment = {
        "working_dir": zipped,
        "py_modules": [package, single, module, wheel(folder, "in_wheel", "wheel")],
    }
    task = imported.options(runtime_env=environment)

    names = ("in_zip", "a_package", "single", "loaded", "in_wheel")
    found = fh.get([task.remote(name) for name in names], timeout=60)

    assert [each["word"] for each in found] == ["zip", "package", "file", "module", "wheel"]


def test_too_much_to_send(job: None, folder: Path) -> None:
    """Goal: a folder that is too large is refused with the names of what makes it so.

    Method: two sparse files of 400 MB."""
    large = folder / "large"
    large.mkdir()
    for name in ("a.bin", "b.bin"):
        with (large / name).open("wb") as file:
            file.truncate(400 << 20)

    with pytest.raises(ValueError, match="more than the 536,870,912 of a package") as caught:
        here.options(runtime_env={"working_dir": large}).remote()

    lines = str(caught.value).splitlines()
    assert lines[1:3] == ["    419,430,400 bytes  a.bin", "    419,430,400 bytes  b.bin"]
    assert ".freeholdignore" in lines[-1]


def test_a_folder_that_is_not_there(job: None, folder: Path) -> None:
    """Goal: the full path is named."""
    with pytest.raises(FileNotFoundError, match=re.escape(str(folder / "nowhere"))):
        here.options(runtime_env={"working_dir": folder / "nowhere"}).remote()
    with pytest.raises(FileNotFoundError, match=re.escape(str(folder / "nowhere"))):
        here.options(runtime_env={"py_modules": [folder / "nowhere"]}).remote()


def test_a_function_takes_its_files_along(job: None, folder: Path) -> None:
    """Goal: a function with a ``working_dir`` can be called by a task that cannot see the folder.

    Method: the folder is moved away once the function has been captured."""
    program = folder / "moved"
    program.mkdir()
    (program / "lesson.py").write_text("WORD = 'moved'\n")
    inner = imported.options(runtime_env={"working_dir": program})

    @fh.remote
    def outer() -> Any:
        return fh.get(inner.remote("lesson"), timeout=60)

    assert value_of(outer.remote())["word"] == "moved"
    program.rename(folder / "away")
    assert value_of(outer.options(runtime_env={"env_vars": {"X": "1"}}).remote())["word"] == "moved"


# --- installers ----------------------------------------------------------------------------------


def test_pip_installs_once_and_behind_it_is_what_was_there(job: None, folder: Path) -> None:
    """Goal: a requirement is importable in a virtual environment of its own; numpy, which was not
    asked for, still is; the second use installs nothing.

    Method: a requirements file that names another, and a folder of wheels for an index."""
    wheel(folder, "tiny_one", "installed")
    (folder / "more.txt").write_text("tiny_one==1.0  # the only one\n")
    (folder / "requirements.txt").write_text("# what we need\n-r more.txt\n")
    options = ["--no-index", "--find-links", str(folder)]
    environment = {
        "pip": {
            "packages": str(folder / "requirements.txt"),
            "pip_check": False,
            "pip_install_options": options,
        }
    }

    @fh.remote(runtime_env={**environment, "env_vars": {"OTHER": "1"}})
    def both() -> tuple[str, int]:
        import numpy as np
        import tiny_one  # type: ignore[import-not-found]  # it is in the environment only

        return tiny_one.WORD, int(np.arange(4).sum())

    found = value_of(imported.options(runtime_env=environment).remote("tiny_one"))
    assert found["word"] == "installed"
    assert Path(found["file"]).is_relative_to(folder / "cache" / "venvs")
    assert Path(found["python"]).is_relative_to(folder / "cache" / "venvs")
    assert value_of(both.remote()) == ("installed", 6)
    assert len(list((folder / "cache" / "venvs").glob("*/ready"))) == 1


def test_an_installation_that_fails(job: None, folder: Path) -> None:
    """Goal: the tasks fail with the installer's last words, all of them at once, and nothing of
    it is left; other tasks go on.

    Method: three tasks that want what is not in the index."""
    options = ["--no-index", "--find-links", str(folder)]
    environment = {"pip": {"packages": ["no_such_thing"], "pip_install_options": options}}
    task = here.options(runtime_env=environment)

    refs = [task.remote() for _ in range(3)]
    assert value_of(variables.remote("FROM")) == ["job"]
    for ref in refs:
        with pytest.raises(errors.RuntimeEnvSetupError) as caught:
            fh.get(ref, timeout=60)
        assert "No matching distribution found for no_such_thing" in str(caught.value)

    kept = {path.stem for path in (folder / "cache" / "venvs").glob("*/ready")}
    locks = list((folder / "cache" / "venvs").glob("*.lock"))
    assert len(locks) == len(kept)


def test_an_actor_whose_environment_fails(job: None, folder: Path) -> None:
    """Goal: its calls fail with the reason."""

    @fh.remote(
        runtime_env={"pip": {"packages": ["nothing"], "pip_install_options": ["--nonsense"]}}
    )
    class Never:
        def call(self) -> int:
            return 1

    with pytest.raises(errors.FreeholdError, match="no such option: --nonsense"):
        fh.get(Never.remote().call.remote(), timeout=60)


def test_an_installation_that_takes_too_long(job: None, folder: Path) -> None:
    """Goal: it is ended when its time is over, and the error names the option.

    Method: a source package whose build sleeps."""
    slow = folder / "slow_one"
    slow.mkdir()
    (slow / "backend.py").write_text("import time\ntime.sleep(600)\n")
    (slow / "pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    )
    environment = {
        "pip": {"packages": [str(slow)], "pip_install_options": ["--no-index"]},
        "config": {"setup_timeout_seconds": 3},
    }

    with pytest.raises(errors.RuntimeEnvSetupError, match="setup_timeout_seconds"):
        fh.get(here.options(runtime_env=environment).remote(), timeout=60)


# --- the hook ------------------------------------------------------------------------------------


def test_the_setup_hook_runs_before_the_first_task(job: None, folder: Path) -> None:
    """Goal: once for each worker, given as a function or by name.

    Method: a function that counts in a variable; a name in a module that is shipped."""

    def count() -> None:
        os.environ["HOOKED"] = str(int(os.environ.get("HOOKED", "0")) + 1)

    once = variables.options(runtime_env={"worker_process_setup_hook": count})
    assert fh.get([once.remote("HOOKED") for _ in range(20)], timeout=60) == [["1"]] * 20

    module = folder / "hooks.py"
    module.write_text("import os\ndef set_up():\n    os.environ['HOOKED'] = 'by name'\n")
    by_name = {"worker_process_setup_hook": "hooks.set_up", "py_modules": [str(module)]}
    assert value_of(variables.options(runtime_env=by_name).remote("HOOKED")) == ["by name"]


def test_a_hook_that_raises(job: None) -> None:
    """Goal: every task fails with what it raised; none runs.

    Method: four tasks, so that workers are used again."""

    def broken() -> None:
        raise KeyError("no such thing")

    task = variables.options(runtime_env={"worker_process_setup_hook": broken})
    for ref in [task.remote("FROM") for _ in range(4)]:
        with pytest.raises(errors.RuntimeEnvSetupError, match="KeyError: 'no such thing'"):
            fh.get(ref, timeout=60)


# --- modules of the driver -----------------------------------------------------------------------


def test_the_drivers_own_modules_are_shipped(
    job: None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a module that only the driver can import arrives without being asked for, with what it
    imports, also late; its classes are one class, and its tracebacks show its lines.

    Method: a folder that the driver looks in since after the session began, which workers do
    not."""
    own = folder / "own"
    (own / "parts").mkdir(parents=True)
    (own / "parts" / "__init__.py").write_text("")
    (own / "parts" / "inner.py").write_text("class Thing:\n    pass\n")
    (own / "assistant.py").write_text(
        "from parts.inner import Thing\n"
        "def make():\n    return Thing()\n"
        "def same(thing):\n    from parts import inner\n    return type(thing) is inner.Thing\n"
        "def fails():\n    raise KeyError('in assistant')\n"
    )
    monkeypatch.syspath_prepend(str(own))
    import assistant  # type: ignore[import-not-found]  # the test has just written it

    thing = fh.remote(assistant.make).remote()
    assert value_of(fh.remote(assistant.same).remote(thing)) is True
    with pytest.raises(KeyError, match="in assistant") as caught:
        value_of(fh.remote(assistant.fails).remote())
    assert "raise KeyError('in assistant')" in str(caught.value)


def test_a_module_that_is_nowhere(job: None) -> None:
    """Goal: the error says where it was looked for and what to do; ``find_spec`` just says no.

    Method: a task that probes, one whose forked child imports, and one that imports itself."""

    @fh.remote
    def probes() -> bool:
        import importlib.util

        return importlib.util.find_spec("no_such_module") is None

    @fh.remote
    def imports() -> None:
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401

    @fh.remote
    def forks() -> int:
        child = os.fork()
        if not child:
            try:
                import only_in_the_child  # type: ignore[import-not-found]  # noqa: F401
            except ImportError:
                os._exit(7)
            os._exit(8)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert value_of(probes.remote())
    assert value_of(forks.remote()) == 7
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_module'") as caught:
        value_of(imports.remote())
    (note,) = caught.value.__notes__
    assert note.startswith("Module 'no_such_module' was looked for on this worker's sys.path:\n")
    assert "at the driver: it cannot be imported there either." in note
    assert "runtime_env={'py_modules': [...]}" in note


# --- preloading ----------------------------------------------------------------------------------


def test_preloaded_modules_are_there_from_the_start(
    disconnected: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: workers begin with the modules imported, once for all of them.

    Method: a module that notes who has imported it, and the parent of each worker."""
    (tmp_path / "heavy.py").write_text("import os\nWHO = os.getpid()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    fh.init(num_cpus=2, log_to_driver=False, preload=["heavy"])

    @fh.remote
    def who() -> tuple[bool, int, int]:
        there = "heavy" in sys.modules
        import heavy  # type: ignore[import-not-found]  # the test has just written it

        return there, heavy.WHO, os.getppid()

    found = fh.get([who.remote() for _ in range(8)], timeout=PATIENCE)
    assert len({importer for _, importer, _ in found}) == 1
    assert all(there and importer == parent for there, importer, parent in found)


def test_a_preload_that_fails(disconnected: None) -> None:
    """Goal: the tasks fail with the reason; nothing waits."""
    fh.init(num_cpus=1, log_to_driver=False, preload=["no_such_module"])

    with pytest.raises(errors.RuntimeEnvSetupError, match="preload of 'no_such_module'"):
        fh.get(here.remote(), timeout=PATIENCE)
