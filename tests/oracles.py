"""Slow, obvious answers that the tests hold the package to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

LOPSIDED = ["a"] * 9 + ["b"] * 4 + ["c"] * 2 + ["d"] + ["e"] * 6


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def topical(labels: list[str], seed: int = 0, between: float = 0.5) -> np.ndarray:
    """Differences with an effect of each topic, around -0.08."""
    draw = rng(seed)
    effect = {label: draw.normal(0, between) for label in sorted(set(labels))}
    return -0.08 + np.array([effect[label] for label in labels]) + draw.normal(0, 1, len(labels))


def slow_cr2(y: np.ndarray, x: np.ndarray, contrast: np.ndarray, labels: list, group: np.ndarray):
    """CR2 and Satterthwaite df by the matrices of Bell-McCaffrey and Imbens-Kolesar, one loop at a time."""
    n = len(y)
    bread = np.linalg.inv(x.T @ x)
    maker = np.eye(n) - x @ bread @ x.T
    e = maker @ y
    clusters = sorted(set(labels))
    rows = {c: [i for i in range(n) if labels[i] == c] for c in clusters}

    kinds = sorted(set(group.tolist()))
    effect = {}
    for k in kinds:
        products = [
            e[i] * e[j]
            for c in clusters
            for i in rows[c]
            for j in rows[c]
            if i != j and group[i] == group[j] == k
        ]
        s2 = sum(e[i] ** 2 for i in range(n) if group[i] == k) / (sum(group == k) - 1)
        effect[k, k] = min(max(sum(products) / len(products), 0), s2) if products else 0.0
        effect["noise", k] = s2 - effect[k, k]
    for k in kinds:
        for m in kinds:
            if k != m:
                cross = [
                    e[i] * e[j]
                    for c in clusters
                    for i in rows[c]
                    for j in rows[c]
                    if (group[i], group[j]) == (k, m)
                ]
                bound = math.sqrt(effect[k, k] * effect[m, m])
                effect[k, m] = min(max(sum(cross) / len(cross), -bound), bound) if cross else 0.0
    phi = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            if labels[i] == labels[j]:
                phi[i, j] = effect[group[i], group[j]] + (effect["noise", group[i]] if i == j else 0.0)

    pulled = []
    for c in clusters:
        g = rows[c]
        values, vectors = np.linalg.eigh(maker[np.ix_(g, g)])
        root = vectors @ np.diag([1 / math.sqrt(v) if v > 1e-10 else 0.0 for v in values]) @ vectors.T
        a = root @ x[g] @ bread @ contrast
        pulled.append(a @ maker[g])
    b = np.array(pulled)
    omega = b @ phi @ b.T
    variance = sum((row @ y) ** 2 for row in b)
    return math.sqrt(variance), np.trace(omega) ** 2 / np.trace(omega @ omega)


def naive_entropies(model: Any, prompt_ids: Sequence[int], response_ids: Sequence[int]) -> Any:
    """One row, no padding, all logits: the entropy of each distribution that predicts a token of the response."""
    import torch

    logits = model(input_ids=torch.tensor([[*prompt_ids, *response_ids]])).logits[0, len(prompt_ids) - 1 : -1]
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


def log_likelihood(model: Any, ids: Sequence[int], first: int) -> float:
    """log p of ids[first:] given what stands before, one plain forward pass."""
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    scores = torch.log_softmax(logits[:-1], -1)
    return float(sum(scores[t - 1, ids[t]] for t in range(first, len(ids))))
