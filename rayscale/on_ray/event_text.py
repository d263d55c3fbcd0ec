"""A sentence for each event that a person should hear of during a run."""

from __future__ import annotations

from rayscale.runs.events import Event


def event_text(event: Event) -> str | None:
    """The sentence; None for an event that events.jsonl alone keeps."""
    trial = f"Trial {event.get('trial_id')}"
    match event["event"]:
        case "trial_resumed" if event["step"]:
            redone = event.get("steps_redone")
            more = f" (repeating {redone:.0f} steps)" if redone else ""
            return f"{trial} resumed from its checkpoint at step {event['step']} of {event['steps']}{more}."
        case "trial_resumed":
            return f"{trial} started again: an earlier attempt left no checkpoint."
        case "checkpoint_damaged":
            place = event["fell_back_to"]
            return f"Damaged checkpoint {event['file']}: {event['reason']}. " + (
                f"The one before it is used: {place}." if place else f"There is no other: {trial.lower()} starts again."
            )
        case "checkpoint_failed":
            return f"No checkpoint of {trial.lower()} at step {event['step']}: {event['reason']}; training continues."
        case "steps_not_recorded":
            return f"{trial} ran without CUDA graphs, which is slower: {event['reason']}."
        case "cells_cut":
            cells = event["cells"]
            return f"{cells} {'cell is' if cells == 1 else 'cells are'} not run: {event['reason']}."
        case "checkpoints_off" | "checkpoints_left" | "waiting_for_slots":
            return str(event["reason"])
        case "slots_free":
            return f"{event['room']} of {event['slots']} slots are free. The run continues."
        case "slots_changed":
            return f"The cluster now has {event['slots']} worker slots."
        case "trial_retried" if event.get("code") == "out_of_memory" and event.get("micro_batch"):
            return f"{trial}: {event['message']}. It runs again with micro-batches of {event['micro_batch']}."
    return None
