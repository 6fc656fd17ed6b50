"""What a check of the bucket finds: reachable, writable, and emptied of expired entries by a rule."""

from __future__ import annotations

import json
import time
from typing import Any

from askonce.stores._s3_bucket import Bucket
from askonce.stores._s3_errors import S3Error
from askonce.stores._s3_leases import Leases
from askonce.stores.protocol import Health


def check(bucket: Bucket, leases: Leases) -> Health:
    """List, write (the first time) and read the rules. Raises nothing that S3 says."""
    started = time.perf_counter()
    warnings: list[str] = []
    lifecycle: str | None = None
    ok = True
    try:
        bucket.page(bucket.root, None, 1)
        try:
            leases.find_out()
        except S3Error as error:
            warnings.append(f"nothing can be stored: {error}")
        rules = bucket.lifecycle()
        covered = None if rules is None else any(_covers(rule, bucket.root) for rule in rules)
        lifecycle = "unknown" if covered is None else "yes" if covered else "no"
        if covered is False:
            warnings.append(_advice(bucket))
        region = bucket.region()
    except S3Error as error:
        ok, region = False, None
        warnings.append(str(error))
    return Health(
        ok=ok,
        kind=kind(bucket),
        latency=time.perf_counter() - started,
        detail={
            **place(bucket),
            "region": region,
            "conditional_writes": leases.conditional,
            "lifecycle_rule": lifecycle,
        },
        warnings=tuple(warnings),
    )


def kind(bucket: Bucket) -> str:
    """What answers."""
    return f"s3 {bucket.explain.host}"


def place(bucket: Bucket) -> dict[str, str | int | float | None]:
    """Where the entries are."""
    return {"bucket": bucket.name, "prefix": bucket.root.rstrip("/")}


def _covers(rule: dict[str, Any], root: str) -> bool:
    """Whether a lifecycle rule removes all objects under the root some day."""
    if rule.get("Status") != "Enabled" or not {"Days", "Date"} & rule.get("Expiration", {}).keys():
        return False
    condition: dict[str, Any] = rule.get("Filter") or {}
    condition = condition.get("And", condition)
    if condition.keys() - {"Prefix"}:  # a tag, a size: not all of them
        return False
    return root.startswith(condition.get("Prefix", rule.get("Prefix", "")))


def _advice(bucket: Bucket) -> str:
    rule = {
        "ID": "askonce",
        "Status": "Enabled",
        "Filter": {"Prefix": bucket.root},
        "Expiration": {"Days": 30},
    }
    return (
        f"no lifecycle rule removes what has expired under {bucket.root} in bucket {bucket.name!r}: it stays "
        f"and costs. Add {json.dumps({'Rules': [rule]})}, with more days than the longest ttl has"
    )
