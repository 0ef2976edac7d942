"""Live widgets as they stood when the notebook was executed: a page has no kernel to answer them."""

import html
from collections.abc import Iterator
from typing import Any

import nbformat
from nbformat import NotebookNode

VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
_TWINS = {"text/html", "image/svg+xml", "image/png"}


def freeze(notebook: NotebookNode) -> None:
    """Replaces every widget by its controls, as HTML, and by what it had drawn, as ordinary outputs."""
    models = _without_twins(notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {}), notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [still for output in cell.outputs for still in _still(output, models)]
    notebook.metadata.pop("widgets", None)


def _without_twins(models: dict[str, Any], notebook: NotebookNode) -> dict[str, Any]:
    """The widgets but those that a still picture, an output of its own, stands in for."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    shown = "".join(str(output.get("data", {}).get("text/html", "")) for output in outputs)
    return {
        name: model
        for name, model in models.items()
        if f'data-grafeat-twin="{model["state"].get("_twin")}"' not in shown
    }


def _still(output: NotebookNode, models: dict[str, Any]) -> list[NotebookNode]:
    view = output.get("data", {}).get(VIEW)
    if view is None:
        return [output]
    if _TWINS & output.data.keys():  # it brought a static twin of its own
        return [nbformat.from_dict({**output, "data": {k: v for k, v in output.data.items() if k != VIEW}})]
    return _joined(_parts(view["model_id"], models))


def _joined(parts: Iterator[str | NotebookNode]) -> list[NotebookNode]:
    """Neighbouring controls share one output."""
    outputs: list[NotebookNode] = []
    controls: list[str] = []
    for part in [*parts, None]:
        if isinstance(part, str):
            controls.append(part)
            continue
        if controls:
            hint = "<small>live in JupyterLab</small>" if "disabled" in "".join(controls) else ""
            markup = f'<div class="controls">{"".join(controls)}{hint}</div>'
            outputs.append(nbformat.v4.new_output("display_data", data={"text/html": markup}))
            controls = []
        if part is not None:
            outputs.append(part)
    return outputs


def _parts(model_id: str, models: dict[str, Any]) -> Iterator[str | NotebookNode]:
    """Depth first: HTML of each control, and the outputs which Output widgets hold."""
    model = models.get(model_id.removeprefix("IPY_MODEL_"))
    if model is None or _hidden(model["state"], models):  # closed by its own code, as some progress bars are
        return
    state, kind = model["state"], model["model_name"].removesuffix("Model")
    if kind == "Output":
        for output in state["outputs"]:
            yield from _still(nbformat.from_dict(output), models)
    elif "children" in state:
        for child in state["children"]:
            yield from _parts(child, models)
    else:
        yield _control(kind, state, model.get("buffers", []))


def _hidden(state: dict[str, Any], models: dict[str, Any]) -> bool:
    layout = models.get(str(state.get("layout", "")).removeprefix("IPY_MODEL_"), {}).get("state", {})
    return layout.get("visibility") == "hidden" or layout.get("display") == "none"


def _control(kind: str, state: dict[str, Any], buffers: list[dict[str, Any]]) -> str:
    label = html.escape(str(state.get("description") or ""))
    if kind in {"HTML", "HTMLMath"}:
        return f"<span>{label} {state['value']}</span>"
    if kind == "Label":
        return f"<span>{html.escape(state['value'])}</span>"
    if kind == "Image" and buffers:
        return f'<img alt="{label}" src="data:image/{state["format"]};base64,{buffers[0]["data"]}">'
    if kind in {"FloatProgress", "IntProgress"}:
        return f'<label>{label} <progress value="{state["value"]}" max="{state["max"]}"></progress></label>'
    if kind in {"Button", "Play"}:
        return f"<button disabled>{label or '▶'}</button>"
    if kind == "Checkbox":
        return f'<label><input type="checkbox" disabled{" checked" * bool(state["value"])}> {label}</label>'
    if "value" not in state and "_options_labels" not in state:
        return f"<span>{kind}: live in JupyterLab only</span>"
    value = html.escape(_value(state))
    if "_options_labels" in state and "Slider" not in kind:
        return f"<label>{label} <select disabled><option>{value}</option></select></label>"
    return f"<label>{label} {_slider(state)}<output>{value}</output></label>"


def _slider(state: dict[str, Any]) -> str:
    """A native slider for whatever has a place between two ends, a choice among options included."""
    options = state.get("_options_labels", ())
    low, high = (0, len(options) - 1) if options else (state.get("min"), state.get("max"))
    value = state.get("index") if options else state.get("value")
    if not all(isinstance(number, int | float) for number in (low, high, value)) or low == high:
        return ""
    return f'<input type="range" disabled min="{low}" max="{high}" step="any" value="{value}"> '


def _value(state: dict[str, Any]) -> str:
    options, index = state.get("_options_labels", ()), state.get("index")
    if options:
        chosen = index if isinstance(index, list) else [] if index is None else [index]
        return ", ".join(str(options[i]) for i in chosen)
    value = state.get("value", "")
    if isinstance(value, float):
        return f"{value:.6g}"
    return " – ".join(f"{v:.6g}" for v in value) if isinstance(value, list) else str(value)
