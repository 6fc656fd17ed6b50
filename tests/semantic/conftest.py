"""Embedders whose vectors a test decides, and the core's kit: a provider in memory, both kinds of caller."""

from __future__ import annotations

import importlib.util
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from askonce.semantic import FunctionEmbedder, SemanticLayer

sys.path.append(str(Path(__file__).parent))
_HOME = Path(__file__).resolve().parents[1] / "caching" / "conftest.py"
_spec = importlib.util.spec_from_file_location("core_kit", _HOME)
core = sys.modules.get("core_kit") or importlib.util.module_from_spec(_spec)
if "core_kit" not in sys.modules:
    sys.modules["core_kit"] = core
    _spec.loader.exec_module(core)


class Embeds:
    """A model that finds every two texts alike, but for those it is told about. Counts what it is asked."""

    def __init__(self, dimensions=8):
        self.dimensions = dimensions
        self.asked = []
        self.vectors = {}
        self.before = None
        self._lock = threading.Lock()

    def __call__(self, texts):
        with self._lock:
            self.asked += texts
        if self.before is not None:
            self.before()
        return [self.vector(text) for text in texts]

    def vector(self, text):
        if text in self.vectors:
            return self.vectors[text]
        return np.ones(self.dimensions)

    def at(self, text, cosine):
        """Put a text so far from all the others."""
        side = np.zeros(self.dimensions)
        side[0], side[1] = 1.0, -1.0
        base = np.ones(self.dimensions)
        base, side = base / np.linalg.norm(base), side / np.linalg.norm(side)
        self.vectors[text] = cosine * base + np.sqrt(1 - cosine**2) * side


@pytest.fixture
def embeds():
    return Embeds()


@pytest.fixture
def kit():
    """The core's kit; see tests/caching."""
    kit = core.Kit()
    yield kit
    for loop in kit.loops:
        loop.finish()
    for cache in kit.caches:
        cache.close()


@pytest.fixture
def layered(kit, embeds):
    """Makes caches with a layer over `embeds`. Nothing is sampled unless a test says so."""

    def make(store=None, *, cache=None, **options):
        options = {"shadow": 0.0, "timeout": 5.0, **options}
        embedder = options.pop("embedder", None) or FunctionEmbedder(embeds, name="test")
        return kit.cache(store, semantic=SemanticLayer(embedder, **options), **(cache or {}))

    return make
