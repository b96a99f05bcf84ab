"""The page itself: gradio's fields around the workbench."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from clippy_cli.demo import markup
from clippy_cli.demo.workbench import MAX_CHARACTERS, Outcome, Workbench, refinements
from clippy_cli.errors import ClippyError
from clippy_cli.extras import install_command
from clippy_cli.inference.choices import DEFAULT_REFINEMENT

_CACHE_SECONDS = (600, 3600)  # how often uploads are looked through, and how old they may become
_WAITING = 32  # requests; later ones are told to come back
_SAMPLE = files("clippy_cli") / "assets" / "samples" / "raccoon.jpg"
_SAMPLE_LABELS = "raccoon, grass"
_REFINE = str(DEFAULT_REFINEMENT)


def import_gradio() -> Any:
    """gradio, with its usage statistics and version check off; ClippyError where it is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise ClippyError(
            f"The demo needs gradio, which cannot be imported ({error})", install_command("demo")
        ) from error
    return gradio


def build_page(bench: Workbench, model: str) -> Any:
    """gradio Blocks: a photo, a tab for each task that ``bench`` can do, one result. Uploads go to its folder."""
    gr = import_gradio()
    os.environ["GRADIO_TEMP_DIR"] = str(bench.folder)  # read by each component as it is made
    with gr.Blocks(title="clippy", analytics_enabled=False, fill_width=True, delete_cache=_CACHE_SECONDS) as page:
        gr.HTML(markup.header(model), apply_default_css=False)
        with gr.Row(elem_classes="clippy-columns"):
            with gr.Column(scale=5, min_width=300):
                photo = gr.Image(
                    label="Photo",
                    type="filepath",
                    image_mode=None,
                    sources=["upload"],
                    buttons=[],
                    height=280,
                    elem_id="photo",
                )
                photo.preprocess = _uploaded_file  # else gradio decodes, turns and rewrites photos by its own rules
                examples = gr.Column()
                controls = gr.Column()
            with gr.Column(scale=7, min_width=300):
                picture = gr.Image(
                    label="Result",
                    type="filepath",
                    interactive=False,
                    visible=False,
                    buttons=["download", "fullscreen"],
                    elem_id="picture",
                )
                table = gr.HTML(markup.WELCOME, elem_id="table", apply_default_css=False)
                mask = gr.DownloadButton("Download the mask (PNG)", visible=False, elem_id="mask")
        results = [picture, table, mask]

        def answer(work: Callable[..., Outcome]) -> Callable[..., list[Any]]:
            def respond(*values: Any) -> list[Any]:
                try:
                    return _shown(gr, work(*values))
                except ClippyError as error:
                    return [gr.update(value=None, visible=False), markup.problem(error), gr.update(visible=False)]

            return respond

        def run(button: Any, work: Callable[..., Outcome], fields: list[Any]) -> None:
            button.click(answer(work), [photo, *fields], results, **_EVENT, scroll_to_output=True)

        with controls, gr.Tabs():
            if bench.reads_texts:
                with gr.Tab("Segment"):
                    labels = _words(
                        gr,
                        "labels",
                        "Labels",
                        "dog|puppy, grass",
                        "Commas separate labels; | joins words for one label.",
                    )
                    background = _words(
                        gr,
                        "background",
                        "Background words",
                        "sky, wall",
                        "Optional: they compete, but stay unlabeled.",
                    )
                    threshold = gr.Slider(
                        0, 1, 0, step=0.01, label="Threshold", info="Pixels that score lower stay unlabeled."
                    )
                    refine = gr.Radio(
                        refinements(), value=_REFINE, label="Refine", info="Draws masks along the photo's edges."
                    )
                    button = gr.Button("Segment", variant="primary", elem_id="segment")
                    run(button, bench.segment, [labels, background, threshold, refine])
            with gr.Tab("Group"):
                groups = gr.Slider(1, 32, 8, step=1, label="Groups", info="Parts that look alike, found without words.")
                button = gr.Button("Group", variant="primary", elem_id="group")
                run(button, bench.group, [groups])
            if bench.reads_texts:
                with gr.Tab("Classify"):
                    classes = _words(
                        gr, "classes", "Labels", "beach, forest, street", "Which fits the whole photo best?"
                    )
                    top_k = gr.Slider(1, 20, 5, step=1, label="Labels to show")
                    button = gr.Button("Classify", variant="primary", elem_id="classify")
                    run(button, bench.classify, [classes, top_k])
        with examples:
            if bench.reads_texts:
                sample: list[Any] = [str(_SAMPLE), _SAMPLE_LABELS, "", 0, _REFINE]
                fields = [photo, labels, background, threshold, refine]
                work: Callable[..., Outcome] = bench.segment
            else:
                sample, fields = [str(_SAMPLE), 8], [photo, groups]
                work = bench.group
            gr.Examples(
                [sample],
                fields,
                results,
                answer(work),
                label="Example: click the photo to try it",
                run_on_click=True,
                visible_columns=[0],
                cache_examples=False,
                api_visibility="private",
                elem_id="example",
            )
    page.queue(max_size=_WAITING, default_concurrency_limit=1, api_open=False)
    return page


def theme() -> Any:
    """gradio's plain theme in the report's blue and the system's own fonts: none is fetched."""
    gr = import_gradio()
    plain = gr.themes.Default(
        primary_hue=gr.themes.colors.sky,
        neutral_hue=gr.themes.colors.zinc,
        font=("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif"),
        font_mono=("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"),
    )
    return plain.set(
        body_background_fill="#fcfcfa",
        body_background_fill_dark="#15181b",
        body_text_color_subdued="*neutral_500",
        block_info_text_color="*neutral_500",
        button_primary_background_fill="#0072b2",
        button_primary_background_fill_dark="#0072b2",
        button_primary_background_fill_hover="#005e93",
        button_primary_background_fill_hover_dark="#1583c2",
    )


_EVENT: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}


def _words(gr: Any, name: str, label: str, placeholder: str, info: str) -> Any:
    return gr.Textbox(
        label=label, placeholder=placeholder, info=info, max_lines=3, max_length=MAX_CHARACTERS, elem_id=name
    )


def _shown(gr: Any, outcome: Outcome) -> list[Any]:
    """What the three outputs become: picture, table, mask."""
    return [
        gr.update(value=outcome.overlay and str(outcome.overlay), visible=outcome.overlay is not None),
        markup.result(outcome),
        gr.update(value=outcome.mask and str(outcome.mask), visible=outcome.mask is not None),
    ]


def _uploaded_file(payload: Any) -> str | None:
    return None if payload is None else payload.path
