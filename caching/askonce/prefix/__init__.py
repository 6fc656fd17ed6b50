"""Ask where the provider's own prompt cache is warm.

Providers keep the prefixes of prompts for some minutes, each deployment for itself, and charge a tenth for
what they know. `PrefixAffinity` says which of several deployments last saw the longest prefix of a request;
`annotate` says to a provider where a prompt may be cut.
"""

from __future__ import annotations

from askonce.prefix._affinity import Pick, PrefixAffinity
from askonce.prefix._annotate import annotate

__all__ = ["Pick", "PrefixAffinity", "annotate"]
