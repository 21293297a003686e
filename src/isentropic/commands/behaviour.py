"""``isentropic behaviour``: models on public tests of stereotypes, compared item by item."""

from __future__ import annotations

from collections.abc import Sequence

from isentropic.behaviour import PairedBehaviour, read_sets
from isentropic.commands.compare import numbered_names
from isentropic.commands.measure import model_on_device, write_results
from isentropic.commands.outputs import check_outputs
from isentropic.commands.screen import Screen
from isentropic.labels import behaviour_lines
from isentropic.models.load import check_there
from isentropic.schema import Behaviour
from isentropic.settings import BehaviourSettings


def run_behaviour(models: Sequence[str], settings: BehaviourSettings) -> Behaviour:
    """Score models on public test sets; returns the result."""
    outputs = {"--json": None if settings.json == "-" else settings.json, "--html": settings.html}
    check_outputs(outputs, {f"the model {name!r}": name for name in models})
    screen = Screen(quiet=settings.json == "-")
    tests = PairedBehaviour(read_sets(str(settings.benchmarks), settings.sets), settings.margin)
    for name in models:
        check_there(name)
    with screen.live():
        for name, place in zip(numbered_names(models), models, strict=True):
            loaded, bf16 = model_on_device(place, settings)
            tests.score(name, loaded, bf16=bf16, bar=screen.bar)
    result = tests.result()
    # The files first: nothing that goes wrong on the screen may cost them.
    for line in behaviour_lines(result) + write_results(result, settings):
        screen.say(line)
    return result
