"""What a worker finds around it: the variables, folders and imports of its runtime environment.

A worker is bound once. Then, before any code of the user, it takes the environment's variables,
works in its folder and imports from its packages first, from where the driver does after that.
The setup hook is the user's code and therefore waits for the first task, on the main thread;
what it raises is raised for every task that comes here, since none may run without it.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from typing import Final

from freehold import errors
from freehold.wire import serial
from freehold.wire.environments import Furnished

#: ``${NAME}`` in a value stands for what the variable was before, as in PATH.
BEFORE: Final = re.compile(r"\$\{(\w+)\}")


class Surroundings:
    """The environment of one worker."""

    def __init__(self, furnished: Furnished) -> None:
        self.furnished = furnished
        self.hook = furnished.environment.hook
        self.failure = ""

    def move_in(self) -> None:
        """Take what needs none of the user's code."""
        before = dict(os.environ)
        for name, value in self.furnished.environment.env_vars.items():
            os.environ[name] = BEFORE.sub(lambda match: before.get(match[1], ""), value)
        import_from(self.furnished.python_path)
        if self.furnished.working_dir:
            os.chdir(self.furnished.working_dir)

    def set_up(self) -> None:
        """Run the hook, once. Raises RuntimeEnvSetupError if it has raised, now or before."""
        if self.hook:
            hook, self.hook = self.hook, b""
            try:
                serial.load_function(hook)()
            except BaseException:
                self.failure = traceback.format_exc()
        if self.failure:
            raise errors.RuntimeEnvSetupError(
                f"worker_process_setup_hook raised in worker {os.getpid()}:\n{self.failure}"
            )


def import_from(path: list[str]) -> None:
    """Look for modules there first."""
    for entry in reversed(path):
        with contextlib.suppress(ValueError):
            sys.path.remove(entry)
        sys.path.insert(0, entry)
