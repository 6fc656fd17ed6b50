"""A provider on loopback that speaks the protocols of many and misbehaves on demand.

Theory of operation, one file per idea:

* `server` is the face, `FakeProvider`: what a test starts, steers and asks.
* `wire` is HTTP on sockets; `exchange` writes one answer, with the faults that only bytes on a
  socket can show (cut, hold, close-delimited).
* `desk` is the shared state: what was asked, which fault is next, who is in flight.
* `gate` lets a connection wait for a release and notice a peer that hangs up meanwhile.
* `faults` are values; `answers` turns one endpoint's answer into a faulty one, purely.
* `chat`, `responses`, `vectors`, `media` (OpenAI), `anthropic`, `gemini`, `cohere`, `lines` (Ollama) and
  `huggingface` are pure functions from an `Ask` to an `Answer`;
  `drafting` decides what the words are, `endpoints` which function a path means.
"""

from __future__ import annotations

from askonce.testing._provider.faults import Fault
from askonce.testing._provider.records import RecordedRequest
from askonce.testing._provider.server import FakeProvider

__all__ = ["FakeProvider", "Fault", "RecordedRequest"]
