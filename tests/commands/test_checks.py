"""What a launcher left in the environment: believed where it is whole, else refused in a line that names the variable."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from isentropic.commands.checks import LAUNCHER, MPI_SIZES, check_contexts, check_range, launched_process
from isentropic.errors import InputError
from isentropic.settings import TrainSettings
from tiny import lines_file

WHOLE = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in (*LAUNCHER, *MPI_SIZES):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, (0, 1)),
        (WHOLE, (1, 2)),
        ({"RANK": "0"}, (0, 1)),
        ({"WORLD_SIZE": "1"}, (0, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "pod-0", "MASTER_PORT": "23456"}, (0, 1)),
        ({"LOCAL_RANK": "-1"}, (0, 1)),
        ({**WHOLE, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}, (0, 1)),
        ({**WHOLE, "OMPI_COMM_WORLD_SIZE": "2"}, (1, 2)),
    ],
)
def test_what_is_whole_is_believed(monkeypatch, environment, found):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched_process() == found


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"RANK": "1"}, "RANK is '1'"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is '2'"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE is ''"),
        ({"RANK": ""}, "RANK is ''"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK is ''"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"RANK": "1.0", "WORLD_SIZE": "2"}, "RANK is '1.0'"),
        ({"RANK": "-3"}, "RANK is '-3'"),
        ({"LOCAL_RANK": "0"}, "LOCAL_RANK is '0'"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "pod-0", "MASTER_PORT": "23456"}, "LOCAL_RANK not"),
        ({**WHOLE, "MASTER_ADDR": ""}, "MASTER_ADDR not"),
        ({**WHOLE, "MASTER_PORT": "port"}, "MASTER_PORT is 'port'"),
        ({**WHOLE, "RANK": "2"}, "RANK is 2"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "OMPI_COMM_WORLD_SIZE is 2"),
        ({"PMI_SIZE": "x"}, "PMI_SIZE is 'x'"),
    ],
)
def test_what_is_left_over_is_refused_by_name(monkeypatch, environment, named):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError) as caught:
        launched_process()
    assert named in str(caught.value) and "unset" in str(caught.value) and "\n" not in str(caught.value)


def test_a_context_that_the_model_cannot_read_is_refused(tiny_loaded, tmp_path):
    groups = ("male", "female")
    file = lines_file(tmp_path / "contexts.jsonl", [{"context": "x" * 300, "male": " he", "female": " she"}])
    with pytest.raises(InputError, match="the model's context is 256"):
        check_contexts(str(file), groups, tiny_loaded)
    lines_file(file, [{"context": "The nurse", "male": " he", "female": " she"}])
    check_contexts(str(file), groups, tiny_loaded)
    tiny_loaded.model.resize_token_embeddings(200)
    with pytest.raises(InputError, match="ids end at 199"):
        check_contexts(str(file), groups, tiny_loaded)


def test_a_dtype_that_does_not_hold_the_weights_is_refused(tiny_loaded):
    with torch.no_grad():
        tiny_loaded.model.model.norm.weight[0] = -7e4
    for dtype, fits in (("float32", True), ("bfloat16", True), ("auto", True), ("float16", False)):
        with nullcontext() if fits else pytest.raises(InputError, match="model.norm.weight .* 70000"):
            check_range(TrainSettings(save_dtype=dtype), tiny_loaded)
