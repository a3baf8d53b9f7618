"""Any past step of a trained stage once more: its rows, what was masked, the loss of every predicted token, and the loss that was logged.

Everything random is a function of integers, so the step is computed again and not remembered. Its loss must be the logged one to the bit.
Letters: B rows, T tokens, M predicted positions a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lexloom.batch import Batch
from lexloom.console import Console, one_line, plain
from lexloom.errors import ConfigError, LexloomError
from lexloom.models.base import Network, Output
from lexloom.objectives.base import Objective
from lexloom.runs import origin
from lexloom.runs.failure import place_of
from lexloom.runs.machine import other_machine, threads
from lexloom.runs.origin import Visit
from lexloom.runs.rerun import Opened, Place, Rerun
from lexloom.train import checkpoint, log
from lexloom.train.loop import StepInfo, summed

COMPARED = ("loss", "parts", "learning_rate", "gradient_norm")
FOLLOWS = ("the second text follows the first", "the second text does not follow the first")
LABELS = ("labels", "next_sentence_label", "sentence_order_label")


def replay(
    run: Path | str,
    *,
    step: int,
    stage: str | None = None,
    seed: int | None = None,
    rows: int | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Computes step `step` (from 1, as it is logged) of a trained stage again; nothing is written.

    The weights before it come from the newest checkpoint that is still there, else from the beginning, trained again in memory.

    Args:
        stage: `pretrain`, `finetune/sst2`, or the folder of one training, `finetune/sst2/from-scratch/seed-2`; the first one where None.
        seed: of a task that was fine-tuned over several.
        rows: how many rows of the step to tell of; all where None.

    Returns:
        `agrees`: whether loss, parts, learning rate and gradient norm are the logged ones to the bit; `loss`, `logged`, `parts`;
        `first_difference`: the first step since the checkpoint whose loss is another, or None; and `rows`, each with where it comes
        from, its tokens as the model saw them, what was masked, and its share of the loss.

    Raises:
        ConfigError: there is no such stage or step, or this machine or its settings cannot compute as the run did.
        DataError: an input of the stage is gone or was changed.
    """
    console = console or Console()
    opened = Opened(run, console)
    place = opened.select(stage, seed)[0]
    logged = _logged(place, step)
    opened.check_inputs(place)
    rerun = opened.rebuild(place)
    begin, complaints = checkpoint.latest(place.folder / "checkpoints", at_most=step - 1, with_best=False)
    for line in complaints:
        console.warn(line)
    if machine := other_machine(opened.folder):
        console.warn(f"this machine may round differently ({machine})")
    with threads(rerun.compute):
        rerun.start_at(begin)
        start = rerun.begin
        if start < rerun.since:
            hint = f"steps after {rerun.since:,} can be replayed while their checkpoints are there"
            raise ConfigError("the way to this step was computed otherwise, before --rechoose", where=str(place.folder), hint=hint)
        different = _approach(rerun, place, step, console)
        told = _rows(rerun, step, opened.run.path("corpus"), rows)
        [info] = rerun.steps(step)
    computed = facts(info)
    agrees = not differing(computed, logged)
    return {
        "stage": place.name,
        "seed": place.seed,
        "step": step,
        "steps": rerun.source.steps,
        "checkpoint": start,
        "agrees": agrees,
        "first_difference": different or (None if agrees else step),
        **computed,
        "logged": {name: logged.get(name) for name in COMPARED},
        "compute": rerun.compute.plain(),
        "machine": machine,
        **told,
    }


def facts(info: StepInfo) -> dict[str, Any]:
    """What of a step is logged and a function of the run alone."""
    return {name: getattr(info, name) for name in COMPARED}


def differing(computed: Mapping[str, Any], logged: Mapping[str, Any]) -> list[str]:
    """The names under which the log says something else, by every bit; numbers that are not finite are equal to themselves."""
    return [name for name, value in computed.items() if plain(value) != plain(logged.get(name))]


def _logged(place: Place, step: int) -> dict[str, Any]:
    last, found = 0, None
    for line in log.lines(place.folder):
        last = line["step"]
        if last == step:
            found = line
    if found is None and 1 <= step <= last:
        raise LexloomError(f"the log has no sound line of step {step}", where=str(place.folder / log.METRICS))
    if found is None and step == last + 1 and place_of(place.folder, step).is_dir():
        return {}  # it failed; to see that is what it is computed again for
    if found is None:
        raise ConfigError(f"{place.name} has no step {step}", expected=f"1 to {last:,}", got=str(step), where=str(place.folder))
    return found


def _approach(rerun: Rerun, place: Place, step: int, console: Console) -> int | None:
    """Trains up to the step before; the first step on the way whose loss is not the logged one."""
    start, different = rerun.begin, None
    if start >= step - 1:
        return None
    logged = {line["step"]: line for line in log.lines(place.folder) if start < line["step"] < step}
    from_where = f"the checkpoint of step {start:,}" if start else "the start, for no checkpoint before it is left"
    console.say(f"{place.name}: {step - 1 - start:,} steps again from {from_where}")
    with console.progress(place.name, step - 1, "steps", start=start) as progress:
        for info in rerun.steps(step - 1):
            progress.update(info.step, loss=info.loss)
            if different is None and differing(facts(info), logged.get(info.step, {})):
                different = info.step
    return different


def _rows(rerun: Rerun, step: int, corpus: Path, most: int | None) -> dict[str, Any]:
    """The rows of a step under the weights before it, and what their losses come to."""
    batches, seen = rerun.batches(step), origin.visits(rerun.source, step - 1)
    weights = rerun.objective.parts
    counts = summed(batches, weights)
    found, sums = list[dict[str, Any]](), dict.fromkeys(weights, 0.0)
    for batch in batches:
        mine, seen = seen[: batch.size], seen[batch.size :]
        explained, totals = explain(rerun.network, rerun.objective, batch.to(rerun.compute.device), len(mine))
        for part in weights:
            sums[part] += totals[part]
        found += [{"visit": visit, **row} for visit, row in zip(mine, explained, strict=True)]
    for row in found:
        row["loss"] = sum(weights[part] * value / (counts[part] or 1.0) for part, value in row["parts"].items() if value is not None)
    kept = found if most is None else found[:most]
    froms = _froms(rerun, [row["visit"] for row in kept], corpus)
    return {
        "rows_in_step": len(found),
        "predicted": {part: counts[part] for part in weights},
        "sum_of_rows": sum(weights[part] * sums[part] / (counts[part] or 1.0) for part in weights),
        "rows": [_told(rerun, row, source) for row, source in zip(kept, froms, strict=True)],
    }


def explain(network: Network, objective: Objective, batch: Batch, n: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The first `n` rows of a batch, each with its loss by part and by predicted token; and each part's sum over the batch.

    A part is a sum of losses times weights where the batch has weights, so its gradient by the weights are the losses themselves, to
    the bit. Other parts are computed row by row, where rows do not depend on each other, else they are None.
    """
    tensors, heads = dict(batch.tensors), dict(network.heads.items())
    with torch.no_grad():
        output = network.backbone(tensors)
    named = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items() if name.endswith("_weights")}
    with torch.enable_grad():
        sums = objective.loss(output, {**tensors, **named}, heads)
    rows: list[dict[str, Any]] = [{"ids": tensors["input_ids"][i], "parts": {}, "masked": []} for i in range(n)]
    alone: list[dict[str, float]] | None = None
    for part, total in sums.items():
        losses = _by_weight(total, named)
        if losses is None and alone is None and objective.couples == "row":
            alone = [_alone(i, output, tensors, objective, heads) for i in range(n)]
        for i, row in enumerate(rows):
            row["parts"][part] = alone[i][part] if alone is not None else None
            if losses is not None:
                name, values = losses
                row["parts"][part] = float((values[i] * tensors[name][i]).sum())
                if name == "masked_weights":
                    row["masked"] = list(_masked(tensors, values, i))
    for i, row in enumerate(rows):
        row["length"] = int(tensors["attention_mask"][i].sum())
        labels = [tensors[name] for name in LABELS if name in tensors and tensors[name].ndim == 1]
        row["label"] = int(labels[0][i]) if labels else None
    return rows, {part: float(total.detach()) for part, total in sums.items()}


def _by_weight(total: Tensor, named: Mapping[str, Tensor]) -> tuple[str, Tensor] | None:
    """The losses that a total weighs, and the name of their weights; None where it weighs none."""
    for name, weights in named.items():
        [losses] = torch.autograd.grad(total, [weights], retain_graph=True, allow_unused=True) if total.requires_grad else [None]
        if losses is not None:
            return name, losses
    return None


def _alone(
    i: int, output: Output, tensors: Mapping[str, Tensor], objective: Objective, heads: Mapping[str, torch.nn.Module]
) -> dict[str, float]:
    """The sums of one row by itself."""
    states: dict[str, Any] = {f.name: value[i : i + 1] for f in fields(output) if isinstance(value := getattr(output, f.name), Tensor)}
    with torch.no_grad():
        found = objective.loss(replace(output, **states), {name: tensor[i : i + 1] for name, tensor in tensors.items()}, heads)
    return {part: float(total) for part, total in found.items()}


def _masked(tensors: Mapping[str, Tensor], losses: Tensor, i: int) -> Iterable[tuple[int, int, int, float]]:
    """(position, id that was there, id that stood there instead, loss) of each predicted token of a row."""
    for j in range(losses.shape[1]):
        if tensors["masked_weights"][i, j] > 0:
            position = int(tensors["masked_positions"][i, j])
            yield position, int(tensors["masked_labels"][i, j]), int(tensors["input_ids"][i, position]), float(losses[i, j])


def _told(rerun: Rerun, row: Mapping[str, Any], source: list[dict[str, Any]]) -> dict[str, Any]:
    """A row as it is shown: tokens for ids."""
    word, visit = rerun.tokenizer.token, row["visit"]
    masked = [{"position": p, "token": word(was), "shown": word(stood), "loss": loss} for p, was, stood, loss in row["masked"]]
    label, names = row["label"], dict(enumerate(getattr(rerun.objective, "labels", FOLLOWS)))
    return {
        "row": visit.row,
        "epoch": visit.epoch,
        "from": source,
        "tokens": [word(int(number)) for number in row["ids"][: row["length"]]],
        "masked": masked,
        "label": names.get(label, label),
        "parts": row["parts"],
        "loss": row["loss"],
    }


def _froms(rerun: Rerun, seen: Sequence[Visit], corpus: Path) -> list[list[dict[str, Any]]]:
    """Where each row comes from."""
    made = [[] if visit.packing is None else origin.pieces(visit.packing, visit.row) for visit in seen]
    named, places = list[list[dict[str, Any]]](), dict[str, str]()
    for visit, parts in zip(seen, made, strict=True):
        if visit.packing is None:
            named.append([{"where": rerun.place_of(visit.row)}])
        else:
            split = visit.packing.split
            named.append([{"document": split.document_id(piece.document), "tokens": [piece.start, piece.end]} for piece in parts])
    splits = {visit.packing.split.name for visit in seen if visit.packing is not None}
    for split_name in splits:
        ids = {piece["document"] for parts in named for piece in parts if "document" in piece}
        places |= origin.wheres(corpus, split_name, ids)
    return [[{"where": places.get(piece["document"], ""), **piece} if "document" in piece else piece for piece in parts] for parts in named]


def text(found: Mapping[str, Any]) -> str:
    """A replayed step for reading."""
    parts = " + ".join(f"{part} {value:.4f}" for part, value in found["parts"].items())
    weights = f"the checkpoint of step {found['checkpoint']:,}" if found["checkpoint"] else "the start"
    lines = [
        f"{found['stage']}, step {found['step']:,} of {found['steps']:,}: loss {found['loss']!r}" + (f" ({parts})" if parts else ""),
        f"the log says {found['logged']['loss']!r}: " + ("equal to the bit" if found["agrees"] else "THIS IS NOT THE SAME"),
        f"weights: from {weights}; {found['rows_in_step']:,} rows, {_counted(found['predicted'])}",
    ]
    if not found["agrees"]:
        lines += _complaint(found)
    if any(row["masked"] for row in found["rows"]):
        lines.append("a predicted token is shown as {what it was > what stood there, loss}")
    for number, row in enumerate(found["rows"], 1):
        lines += ["", *_row_text(number, row, found["rows_in_step"])]
    if (left := found["rows_in_step"] - len(found["rows"])) > 0:
        lines += ["", f"… and {left:,} rows more; --rows {found['rows_in_step']} shows all"]
    return "\n".join(lines)


def _counted(predicted: Mapping[str, float]) -> str:
    return ", ".join(f"{part}: {value:g} targets" for part, value in predicted.items())


def _complaint(found: Mapping[str, Any]) -> list[str]:
    lines = [
        f"  {name}: {found['logged'][name]!r} logged, {found[name]!r} computed" for name in differing(_compared(found), found["logged"])
    ]
    if found["first_difference"] < found["step"]:
        lines.append(f"  already step {found['first_difference']:,} differs; lexloom verify finds out what was changed")
    return [*lines, f"  this machine may round differently: {found['machine']}"] if found["machine"] else lines


def _compared(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in COMPARED}


def _row_text(number: int, row: Mapping[str, Any], total: int) -> list[str]:
    losses = ", ".join(f"{part} {value:.4f}" for part, value in row["parts"].items() if value is not None)
    head = f"row {number} of {total} (id {row['row']}, epoch {row['epoch']}): {losses}; {row['loss']:.4f} of the loss"
    masked = {one["position"]: one for one in row["masked"]}
    words = [_word(token, masked.get(position)) for position, token in enumerate(row["tokens"])]
    label = [f"  label: {one_line(str(row['label']))}"] if row["label"] is not None else []
    return [head, *(f"  {_from_text(piece)}" for piece in row["from"]), *label, "  " + " ".join(words)]


def _word(token: str, masked: Mapping[str, Any] | None) -> str:
    if masked is None:
        return one_line(token)
    stood = "the same" if masked["token"] == masked["shown"] else one_line(masked["shown"])
    return f"{{{one_line(masked['token'])} > {stood}, {masked['loss']:.3f}}}"


def _from_text(piece: Mapping[str, Any]) -> str:
    if "document" not in piece:
        return str(piece["where"])
    start, end = piece["tokens"]
    where = f"{piece['where']}, " if piece["where"] and piece["where"] != piece["document"] else ""
    return f"{where}document {one_line(piece['document'])}, tokens {start} to {end}"
