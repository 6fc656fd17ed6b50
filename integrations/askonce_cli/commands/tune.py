"""`askonce semantic tune`: what thresholds would have done with your own questions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from askonce_cli._common import JsonOption
from askonce_cli._console import need, one_line_for_errors, progress_bar, write_json
from askonce_cli._errors import misuse

if TYPE_CHECKING:
    from askonce.semantic import Tuned

HELP: Final = (
    "Find the similarity threshold for your own traffic: replay logged questions and answers, and show "
    "hit rate against wrong answers for thresholds from 0.70 to 1.\n\n"
    'LOG has a JSON object a line: {"question": "...", "answer": "..."}, also with a "partition" (what must '
    'be the same) or a "vector"; or {"request": {...}, "answer": "..."} with the body of a chat request. '
    "Nothing is sent but the questions, to the endpoint that embeds them."
)
EXAMPLES: Final = (
    (
        "askonce semantic tune log.jsonl --embedding-model text-embedding-3-small",
        "a table, by OPENAI_BASE_URL",
    ),
    ("askonce semantic tune log.jsonl --sentence-transformer NAME", "a model here"),
    ("askonce semantic tune log.jsonl --png tune.png --max-error 0.005", "vectors from the log, a plot"),
)
_SHOWN: Final = 5


def run(
    *,
    log: Annotated[str, typer.Argument(metavar="LOG", help="JSONL file of questions and answers.")],
    embedding_model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Embed by an OpenAI-compatible endpoint.")
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="That endpoint; default: $OPENAI_BASE_URL, else OpenAI's."),
    ] = None,
    sentence_transformer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Embed by a model of sentence-transformers.")
    ] = None,
    judge: Annotated[str, typer.Option(help="exact, normalised, or embedding.")] = "normalised",
    guards: Annotated[bool, typer.Option(help="With the guards, as the layer has them.")] = True,
    max_error: Annotated[
        float,
        typer.Option(metavar="SHARE", min=0.0, max=1.0, help="Wrong answers among all requests, at most."),
    ] = 0.01,
    png: Annotated[str | None, typer.Option(metavar="FILE", help="Draw the plot here.")] = None,
    json_: JsonOption = False,
) -> None:
    """See HELP."""
    with one_line_for_errors(as_json=json_):
        need("numpy", extra="semantic", what="askonce semantic tune")
        if png is not None:
            need("matplotlib", extra="plots", what="askonce semantic tune --png")
        from askonce.semantic import EndpointEmbedder, read_log, tune  # noqa: PLC0415 - needs the extra

        try:
            asked = read_log(log)
        except FileNotFoundError as error:
            raise misuse(f"there is no file {log}") from error
        if not asked:
            raise misuse(f"{log} has no questions")
        embedder = _embedder(embedding_model, base_url, sentence_transformer)
        if embedder is None and any(one.vector is None for one in asked):
            raise misuse(
                "the log has questions without a vector; give --embedding-model or --sentence-transformer"
            )
        with progress_bar("Comparing", quiet=json_) as progress:
            try:
                found = tune(asked, embedder, judge=judge, guards=guards, progress=progress)
            finally:
                if isinstance(embedder, EndpointEmbedder):
                    embedder.close()
        best = next((one for one in found if one.error.high <= max_error), None)
        if png is not None:
            _draw(found, best, max_error, Path(png))
    if json_:
        write_json(_figures(found, best, max_error))
        return
    _show(found, best, max_error, Console())
    if png is not None:
        typer.echo(f"The plot is in {png}")


def _embedder(model: str | None, base_url: str | None, local: str | None) -> Any:
    from askonce.semantic import EndpointEmbedder, SentenceTransformerEmbedder  # noqa: PLC0415

    if model is not None and local is not None:
        raise misuse("--embedding-model and --sentence-transformer are given together; allowed: one of them")
    if local is not None:
        return SentenceTransformerEmbedder(local)
    return None if model is None else EndpointEmbedder(model, base_url=base_url)


def _figures(found: Sequence[Tuned], best: Tuned | None, max_error: float) -> dict[str, Any]:
    return {
        "ok": True,
        "requests": found[0].requests,
        "max_error": max_error,
        "threshold": None if best is None else best.threshold,
        "thresholds": [
            {
                "threshold": one.threshold,
                "hits": one.hits,
                "wrong": one.wrong,
                "hit_rate": one.hit_rate,
                "error": one.error.rate,
                "error_high": one.error.high,
                "precision": one.precision.rate,
            }
            for one in found
        ],
    }


def _show(found: Sequence[Tuned], best: Tuned | None, max_error: float, console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", highlight=False)
    for head in ("Threshold", "Hits", "Hit rate", "Wrong", "Of requests", "At most", "Precision"):
        table.add_column(head, justify="right", no_wrap=True)
    for number, one in enumerate(found):
        if number % _SHOWN and one is not best:
            continue
        cells = [
            f"{one.threshold:.2f}", f"{one.hits:,}", f"{one.hit_rate:.1%}", f"{one.wrong:,}",
            f"{one.error.rate:.2%}", f"{one.error.high:.2%}", f"{one.precision.rate:.1%}" if one.hits else "",
        ]  # fmt: skip
        table.add_row(*cells, style="green" if one is best else "")
    console.print(table)
    if best is None:
        told = (
            f"No threshold is shown to stay under {max_error:.2%} of wrong answers by these "
            f"{found[0].requests:,} questions: more of them are needed, or another model"
        )
    else:
        told = (
            f"{best.threshold:.2f} is the lowest threshold under {max_error:.2%} of wrong answers: "
            f"at most {best.error.high:.2%} of {best.requests:,} requests (95 %), hits {best.hit_rate:.1%}"
        )
    console.print(Text(told))


def _draw(found: Sequence[Tuned], best: Tuned | None, max_error: float, file: Path) -> None:
    """Hit rate against wrong answers: one point for each threshold, with its interval."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - needs the extra

    figure: Any = Figure(figsize=(7.5, 4.8), layout="constrained")
    axes: Any = figure.subplots()
    rates = [100 * one.hit_rate for one in found]
    axes.fill_between(
        rates, [100 * one.error.low for one in found], [100 * one.error.high for one in found],
        color="#2563eb", alpha=0.15, linewidth=0, label="95 % interval",
    )  # fmt: skip
    axes.plot(rates, [100 * one.error.rate for one in found], color="#2563eb", marker="o", markersize=3)
    axes.axhline(
        100 * max_error, color="#b91c1c", linewidth=1, linestyle="--", label=f"{max_error:.2%} wrong"
    )
    last: float | None = None
    for one in found:
        if last is not None and abs(100 * one.hit_rate - last) < 0.05 * max(rates[0], 1e-9):
            continue  # labels would lie on each other
        last = 100 * one.hit_rate
        axes.annotate(
            f"{one.threshold:.2f}", (last, 100 * one.error.rate), xytext=(-3, 5), ha="right",
            textcoords="offset points", fontsize=8, fontweight="bold" if one is best else "normal",
        )  # fmt: skip
    axes.set_xlabel("answered by meaning, % of requests")
    axes.set_ylabel("answered wrongly, % of requests")
    axes.set_title(f"Similarity thresholds on {found[0].requests:,} questions", loc="left", fontsize=11)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(file, dpi=150)
