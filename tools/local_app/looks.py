"""The page's looks: the system's fonts, quiet colours, and nothing from another host."""

from html import escape

import gradio as gr

RED = "#e62828"
THEME = gr.themes.Base(
    primary_hue="indigo",
    neutral_hue="slate",
    radius_size="lg",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    block_shadow="none",
    block_border_color="*neutral_200",
    block_border_color_dark="*neutral_800",
    block_label_background_fill="transparent",
    block_label_background_fill_dark="transparent",
    block_label_border_width="0px",
    block_label_text_color="*neutral_500",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_text_color="white",
)
CSS = """
.gradio-container, .gradio-container > main { width: 100%; max-width: 1240px !important;
  margin-inline: auto; }
footer { display: none !important; }
#head h1 { font-size: 1.5rem; font-weight: 650; margin: .6rem 0 0; letter-spacing: -.01em; }
#head p { color: var(--body-text-color-subdued); margin: .1rem 0 .4rem; }
#buttons button { font-weight: 550; }
#picture img { width: 100%; height: 100%; object-fit: contain; }
#note { color: var(--body-text-color-subdued); min-height: 1.5em; }
#words .wrap { gap: .4rem; }
#words label { border-radius: 999px; padding: .2rem .8rem; }
#words label input { position: absolute; opacity: 0; width: 0; margin: 0; }
#words label:has(input:focus-visible) { outline: 2px solid var(--primary-500); }
#words label:has(input:checked) { background: #e6282844; border-color: #e62828; }
@media (max-width: 700px) {  /* what was made comes before the settings */
  #asked, #made { display: contents; }
  #asked > *, #made > * { width: 100%; flex: none !important; }
  #settings { order: 1; }
  #buttons button { white-space: nowrap; padding-inline: .5rem; }
}
"""
# Gradio's slider is released by a pointer alone; by keys, it is so when one goes up
KEYS = """() => document.addEventListener("keyup", (event) => {
  if (event.target.matches("#eta input[type=range]") && event.key !== "Tab")
    event.target.dispatchEvent(new Event("pointerup", { bubbles: true }));
})"""
HEADER = """<h1>ptinv</h1><p>A picture and a sentence: what is there becomes what you say.
{model}</p>"""


def header(name: str, embedded: bool) -> str:
    """The head of the page, for a model of that name."""
    if embedded:
        return HEADER.format(
            model="This is the small embedded model: it knows its own drawn world."
        )
    return HEADER.format(model=f"The model is {escape(name)}.")
