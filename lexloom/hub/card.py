"""The model card: `README.md` with the YAML head that model hubs and search tools read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEAD = """---
{head}---
"""


def card(name: str, about: Mapping[str, Any], *, parameters: int, class_name: str | None, max_length: int) -> str:
    """A card out of what is known; nothing is claimed that was not measured.

    Args:
        class_name: the class in `transformers` that opens it; None where there is none.
        about: may hold `language`, `pipeline`, `task`, `scores` (list of {model, metric, value, low, high, n}), `data`, `verdict`.
    """
    head = "".join(f"{key}: {about[name]}\n" for key, name in (("language", "language"), ("pipeline_tag", "pipeline")) if about.get(name))
    library = "lexloom" if class_name is None else "transformers"
    lines = [HEAD.format(head=f"library_name: {library}\n{head}tags:\n- lexloom\n"), f"# {name}\n"]
    if about.get("verdict"):
        lines.append(f"{about['verdict']}\n")
    opens = "Opens in lexloom" if class_name is None else f"Opens as `{class_name}` in `transformers`"
    lines.append(f"{opens}. {parameters:,} parameters, inputs of up to {max_length} tokens.\n")
    lines += _scores(about.get("scores") or [])
    if about.get("data"):
        lines += ["## Data\n", *(f"- {line}" for line in about["data"]), ""]
    lines += [
        "## Use\n",
        "```python",
        "import lexloom",
        'bundle = lexloom.load("path/to/this/folder")',
        "```\n",
        "## Limits\n",
        "It was measured on the rows named above and on nothing else. It repeats what its training text says, biases included.",
        "",
    ]
    return "\n".join(lines)


def _scores(scores: list[Mapping[str, Any]]) -> list[str]:
    if not scores:
        return []
    rows = [
        f"| {s['model']} | {s['metric']} | {s['value']:.4f} | {s['low']:.4f} to {s['high']:.4f} | {s['n']:,} |"
        for s in scores
        if s.get("low") is not None
    ]
    return ["## Scores\n", "| model | metric | value | 95 % interval | n |", "|---|---|---|---|---|", *rows, ""]
