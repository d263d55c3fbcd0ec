"""What a person should hear of a trial's events while it runs, in a sentence each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def event_text(event: Mapping[str, Any]) -> str | None:
    """The sentence; None for an event that events.jsonl alone keeps."""
    trial = f"Trial {event.get('trial_id')}"
    match event["event"]:
        case "trial_resumed" if event["step"]:
            redone = event.get("steps_redone")
            more = f" ({redone:.0f} steps are done again)" if redone else ""
            return f"{trial} goes on from its checkpoint at step {event['step']} of {event['steps']}{more}."
        case "trial_resumed":
            return f"{trial} begins again: an earlier attempt left no checkpoint."
        case "checkpoint_damaged":
            place = event["fell_back_to"]
            return f"Damaged checkpoint {event['file']}: {event['reason']}. " + (
                f"The one before it serves, {place}." if place else f"There is no other: {trial.lower()} begins again."
            )
        case "checkpoint_failed":
            return f"{trial} could not be saved at step {event['step']}: {event['reason']}. It goes on."
        case "steps_not_recorded":
            return f"{trial} was slow: its steps could not be recorded as CUDA graphs: {event['reason']}."
        case "cells_cut":
            cells = event["cells"]
            return f"{cells} {'cell is' if cells == 1 else 'cells are'} not run: {event['reason']}."
        case "checkpoints_off" | "checkpoints_left" | "waiting_for_slots":
            return str(event["reason"])
        case "slots_free":
            return f"Slots came free: {event['room']} of {event['slots']}. The run goes on."
        case "slots_changed":
            return f"The cluster has {event['slots']} worker slots now."
        case "trial_retried" if event.get("code") == "out_of_memory" and event.get("micro_batch"):
            return f"{trial}: {event['message']}. It is tried again with micro-batches of {event['micro_batch']}."
    return None
