"""What becomes one line and an exit code, and what keeps its traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from isentropic.errors import InputError
from isentropic.files import disk_fault
from isentropic.text import never_fail, visible


def guarded(run: Callable[[], int | None]) -> int:
    """Bad input is one line on standard error and exit code 2; anything else keeps its traceback."""
    never_fail(sys.stdout)
    try:
        return run() or 0
    except InputError as error:
        return complain(*str(error).splitlines())
    except ModuleNotFoundError as error:
        if str(error.name).startswith("isentropic"):
            raise
        return complain(
            f"the package {error.name!r} is not installed in {sys.executable}; run 'make demo', "
            f"or install requirements.lock and use that Python"
        )
    except Exception as error:
        fault = disk_fault(error)
        if fault is None:
            raise
        return complain(
            f"a file could not be written ({fault}); what was saved before is kept; free some space or "
            "change the permissions, then run it again"
        )
    except KeyboardInterrupt:
        sys.stderr.write("isentropic: stopped by Ctrl-C\n")
        return 130


def gate(verdict: str | None) -> int:
    """The exit code of a verdict with ``--gate``; 4 where none was reached.

    Example:
        >>> gate("certified"), gate("exceeds"), gate("insufficient"), gate(None)
        (0, 3, 4, 4)
    """
    return {"certified": 0, "exceeds": 3}.get(str(verdict), 4)


def complain(*lines: str) -> int:
    sys.stderr.write("".join(f"isentropic: error: {visible(line)}\n" for line in lines))
    return 2
