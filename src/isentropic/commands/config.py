"""Config files: a YAML or JSON file as the words of a command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from isentropic.errors import InputError
from isentropic.text import short

LARGEST = 2**20
"""Bytes; a file of settings holds a few thousand."""


def config_words(file: str, switches: set[str], known: set[str]) -> list[str]:
    """The pairs of a config file as flags. The facts beside the settings in a run folder's ``config.json``
    are passed over.

    Args:
        file: the file.
        switches: names of the settings that are true or false.
        known: names of all settings.

    Raises:
        InputError: it cannot be read, or a value is neither text nor a number nor true or false.
    """
    content = read_config(file)
    if content.get("schema") == "isentropic.config/1":
        content = {name: value for name, value in content.items() if name in known}
    words = []
    for name, value in content.items():
        if value is None:  # as if the line were not there
            continue
        if name in switches:
            if not isinstance(value, bool):
                raise InputError(
                    f"--config {file!r} gives {name} the value {short(value)}; write true or false"
                )
            words.append(f"--{'' if value else 'no-'}{name}")
        elif isinstance(value, bool):  # YAML reads on and off as true and false
            words.append(f"--{name}={'on' if value else 'off'}")
        elif isinstance(value, (str, int, float)):
            words.append(f"--{name}={value}")
        else:
            raise InputError(
                f"--config {file!r} gives {short(name)} a {type(value).__name__}; a setting is a text or a "
                "number; write it in quotes"
            )
    return words


def read_config(file: str) -> dict[str, Any]:
    import yaml

    try:
        if os.path.getsize(file) > LARGEST:
            raise InputError(
                f"--config {file!r} is larger than 1 MB; it is not a file of settings; give another"
            )
        text = Path(file).read_text(encoding="utf-8-sig")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise InputError(
                f"--config {file!r} repeats a part by *name, which can grow without end; write each setting "
                "out"
            )
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--config {file!r} cannot be read ({error}); give a YAML or JSON file") from error
    except InputError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = " ".join(str(error).split())[:200]
        raise InputError(f"--config {file!r} is not valid YAML ({where}); correct that line") from error
    if not isinstance(content, dict):
        raise InputError(f"--config {file!r} contains no settings; write one 'name: value' on each line")
    return content
