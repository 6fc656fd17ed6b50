"""Writes grafana.json, a dashboard for what `askonce.telemetry` exports to Prometheus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MINE = 'askonce_cache=~"$cache"'
SERVED = f'{MINE},askonce_status=~"hit|stale|coalesced|semantic"'
ASKED = f'{MINE},askonce_status=~"hit|stale|coalesced|semantic|miss"'
STEP = "[$__rate_interval]"

# Title, kind, unit, width, what it says, (legend, expression)...
PANELS: list[tuple[str, str, str, int, str, list[tuple[str, str]]]] = [
    ("Answered from the cache", "stat", "percentunit", 6, "Of what can be cached.", [
        ("", f"sum(increase(askonce_requests_total{{{SERVED}}}[$__range])) / "
             f"clamp_min(sum(increase(askonce_requests_total{{{ASKED}}}[$__range])), 1)"),
    ]),
    ("Money saved", "stat", "currencyUSD", 6, "Of models whose price is known.", [
        ("", f"sum(increase(askonce_dollars_saved_total{{{MINE}}}[$__range]))"),
    ]),
    ("Tokens saved", "stat", "short", 6, "", [
        ("", f"sum(increase(askonce_tokens_saved_total{{{MINE}}}[$__range]))"),
    ]),
    ("Time saved", "stat", "s", 6, "What the provider took for the answers it was not asked for again.", [
        ("", f"sum(increase(askonce_provider_saved_seconds_sum{{{MINE}}}[$__range]))"),
    ]),
    ("Calls by what became of them", "timeseries", "reqps", 12, "", [
        ("{{askonce_status}}", f"sum by (askonce_status) (rate(askonce_requests_total{{{MINE}}}{STEP}))"),
    ]),
    ("Share from the cache, by model", "timeseries", "percentunit", 12, "", [
        ("{{gen_ai_request_model}}",
         f"sum by (gen_ai_request_model) (rate(askonce_requests_total{{{SERVED}}}{STEP})) / "
         f"sum by (gen_ai_request_model) (rate(askonce_requests_total{{{ASKED}}}{STEP}))"),
    ]),
    ("Time until the answer, median and 99 of 100", "timeseries", "s", 12, "", [
        (f"{{{{askonce_status}}}} {name}",
         f"histogram_quantile({share}, sum by (le, askonce_status) "
         f"(rate(askonce_request_duration_seconds_bucket{{{MINE}}}{STEP})))")
        for name, share in (("median", 0.5), ("99 %", 0.99))
    ]),
    ("Tokens saved, by kind", "timeseries", "short", 12, "A second.", [
        ("{{gen_ai_token_type}}",
         f"sum by (gen_ai_token_type) (rate(askonce_tokens_saved_total{{{MINE}}}{STEP}))"),
    ]),
    ("Entries", "timeseries", "short", 8, "", [
        ("{{askonce_store}}", f"max by (askonce_store) (askonce_entries{{{MINE}}})"),
    ]),
    ("Size", "timeseries", "bytes", 8, "", [
        ("{{askonce_store}}", f"max by (askonce_store) (askonce_size_bytes{{{MINE}}})"),
    ]),
    ("Written", "timeseries", "Bps", 8, "", [
        ("bytes", f"sum(rate(askonce_answers_stored_size_bytes_total{{{MINE}}}{STEP}))"),
        ("answers", f"sum(rate(askonce_answers_stored_total{{{MINE}}}{STEP}))"),
    ]),
    ("Breakers", "timeseries", "short", 8, "0: used. 1: tried with one call. 2: left alone.", [
        ("{{askonce_store}}", f"max by (askonce_store) (askonce_store_breaker{{{MINE}}})"),
    ]),
    ("Stores: are they there?", "timeseries", "short", 8, "1: yes.", [
        ("{{askonce_store}}", f"min by (askonce_store) (askonce_store_up{{{MINE}}})"),
    ]),
    ("Stores: time to answer", "timeseries", "s", 8, "", [
        ("{{askonce_store}}", f"max by (askonce_store) (askonce_store_latency_seconds{{{MINE}}})"),
    ]),
    ("Stores: failures", "timeseries", "ops", 8, "The calls went on without the store.", [
        ("{{askonce_store}} {{askonce_operation}}",
         f"sum by (askonce_store, askonce_operation) (rate(askonce_store_errors_total{{{MINE}}}{STEP}))"),
    ]),
    ("Not stored, and why", "timeseries", "ops", 8, "", [
        ("{{askonce_reason}}", f"sum by (askonce_reason) (rate(askonce_answers_dropped_total{{{MINE}}}{STEP}))"),
        ("damaged: {{askonce_reason}}",
         f"sum by (askonce_reason) (rate(askonce_entries_corrupt_total{{{MINE}}}{STEP}))"),
    ]),
    ("Similar questions: right when compared", "timeseries", "percentunit", 8, "Semantic layer only.", [
        ("right",
         f'sum(increase(askonce_semantic_compared_total{{{MINE},askonce_right="true"}}[$__range])) / '
         f"clamp_min(sum(increase(askonce_semantic_compared_total{{{MINE}}}[$__range])), 1)"),
    ]),
]  # fmt: skip


def dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    x = y = 0
    source = {"type": "prometheus", "uid": "${source}"}
    for number, (title, kind, unit, width, text, targets) in enumerate(PANELS, 1):
        if x + width > 24:
            x, y = 0, y + 8
        panels.append({
            "id": number,
            "title": title,
            "description": text,
            "type": kind,
            "datasource": source,
            "gridPos": {"x": x, "y": y, "w": width, "h": 8},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [
                {"refId": chr(65 + place), "datasource": source, "expr": expression, "legendFormat": legend}
                for place, (legend, expression) in enumerate(targets)
            ],
        })  # fmt: skip
        x += width
    return {
        "title": "askonce",
        "uid": "askonce",
        "tags": ["llm", "cache"],
        "schemaVersion": 39,
        "editable": True,
        "time": {"from": "now-24h", "to": "now"},
        "refresh": "1m",
        "templating": {
            "list": [
                {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                {
                    "name": "cache",
                    "label": "Cache",
                    "type": "query",
                    "datasource": source,
                    "query": "label_values(askonce_requests_total, askonce_cache)",
                    "includeAll": True,
                    "multi": True,
                    "allValue": ".*",
                    "refresh": 2,
                },
            ]
        },
        "panels": panels,
    }


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "grafana.json"
    target.write_text(json.dumps(dashboard(), indent=1) + "\n", "utf-8")
