"""The model card: `README.md` with the YAML head that model hubs and search tools read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NO_LANGUAGE = ("auto", "other")  # what a recipe may say of its texts and no reader of cards knows
HEAD = """---
{head}---
"""


def card(name: str, about: Mapping[str, Any], *, parameters: int, class_name: str | None, max_length: int) -> str:
    """A card out of what is known; nothing is claimed that was not measured.

    Args:
        class_name: the class in `transformers` that opens it; None where there is none.
        about: may hold `name`, `language`, `pipeline`, `task`, `scores` (list of {model, metric, value, low, high, n}), `data`, `verdict`,
            and of a network that was only pre-trained `objective`, `steps`, `tokens` and `validation`.
    """
    told = {"language": about.get("language"), "pipeline_tag": about.get("pipeline")}
    head = "".join(f"{key}: {value}\n" for key, value in told.items() if value and value not in _NO_LANGUAGE)
    library = "lexloom" if class_name is None else "transformers"
    title = about.get("name") or about.get("task") or name
    lines = [HEAD.format(head=f"library_name: {library}\n{head}tags:\n- lexloom\n"), f"# {title}\n"]
    if about.get("verdict"):
        lines.append(f"{about['verdict']}\n")
    opens = "Opens in lexloom" if class_name is None else f"Opens as `{class_name}` in `transformers`"
    lines.append(f"{opens}. {parameters:,} parameters, inputs of up to {max_length} tokens.\n")
    lines += _learned(about)
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
        f"{_measured(about)} It repeats what its training text says, biases included.",
        "",
    ]
    return "\n".join(lines)


def _learned(about: Mapping[str, Any]) -> list[str]:
    """What a network that was only pre-trained has seen, and how far it came."""
    if not {"objective", "steps", "tokens"} <= about.keys():
        return []
    learned = f"Pre-trained by {' and '.join(about['objective'])} on {about['tokens']:,} tokens in {about['steps']:,} steps"
    loss = (about.get("validation") or {}).get("loss")
    return [f"{learned}{'' if loss is None else f', to a validation loss of {loss:.4f}'}.\n"]


def _measured(about: Mapping[str, Any]) -> str:
    if about.get("scores"):
        return "It was measured on the rows named above and on nothing else."
    return "No task has measured it."


def _scores(scores: list[Mapping[str, Any]]) -> list[str]:
    if not scores:
        return []
    rows = [
        f"| {s['model']} | {s['metric']} | {s['value']:.4f} | {s['low']:.4f} to {s['high']:.4f} | {s['n']:,} |"
        for s in scores
        if s.get("low") is not None
    ]
    return ["## Scores\n", "| model | metric | value | 95 % interval | n |", "|---|---|---|---|---|", *rows, ""]
