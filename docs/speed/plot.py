#!/usr/bin/env python3
"""Draws measured.tsv as two pictures, for light and dark pages: plot.py [DIRECTORY] writes light.svg and dark.svg there."""

import csv
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
PANELS = (
    ("messages_per_s", "Messages per second", "more is better"),
    ("cpu_ms_per_message", "Processor ms per message", "less is better"),
    ("memory_mib", "Memory, MiB", "less is better"),
)
THEMES = {
    "light": {"text": "#1f2328", "faint": "#59636e", "ours": "#0969da", "others": "#afb8c1"},
    "dark": {"text": "#f0f6fc", "faint": "#9198a1", "ours": "#4493f8", "others": "#656c76"},
}
WIDTH, MARGIN, NAMES = 840, 12, 122
BAR, ROW, TOP = 18, 30, 62
# Room behind the longest bar for its figure.
FIGURE = 52


def rows():
    """Returns the rows of the table."""
    with open(HERE / "measured.tsv", encoding="utf-8", newline="") as table:
        return list(csv.DictReader(table, delimiter="\t"))


def shown(figure):
    """Returns a figure as it is measured, with a comma between thousands."""
    whole, point, fraction = figure.partition(".")
    return f"{int(whole):,}{point}{fraction}"


def text(x, y, words, fill, more=""):
    """Returns a text that begins at a place."""
    return f'<text x="{x:g}" y="{y:g}" fill="{fill}"{more}>{words}</text>'


def picture(systems, theme):
    """Returns the picture: a panel for each figure, a bar for each system."""
    height = TOP + ROW * len(systems) + MARGIN
    panel = (WIDTH - NAMES - 2 * MARGIN) / len(PANELS)
    label = "; ".join(
        f"{title}: " + ", ".join(f"{row['system']} {shown(row[key])}" for row in systems)
        for key, title, _ in PANELS
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="13" role="img"'
        f' aria-label="{label}">'
    ]
    for place, row in enumerate(systems):
        y = TOP + ROW * place + BAR - 4.5
        weight = ' font-weight="600"' if place == 0 else ""
        lines.append(text(MARGIN, y, row["system"], theme["text"], weight))
    for number, (key, title, hint) in enumerate(PANELS):
        x = MARGIN + NAMES + panel * number
        lines.append(text(x, 22, title, theme["text"], ' font-weight="600"'))
        lines.append(text(x, 40, hint, theme["faint"], ' font-size="11"'))
        most = max(float(row[key]) for row in systems)
        for place, row in enumerate(systems):
            y = TOP + ROW * place
            width = max(1.0, (panel - FIGURE - MARGIN) * float(row[key]) / most)
            fill = theme["ours"] if place == 0 else theme["others"]
            lines.append(f'<rect x="{x:g}" y="{y}" width="{width:.1f}" height="{BAR}" rx="3" fill="{fill}"/>')
            lines.append(text(round(x + width + 6, 1), y + BAR - 4.5, shown(row[key]), theme["text"]))
    return "\n".join([*lines, "</svg>", ""])


def main():
    """Writes both pictures."""
    directory = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    systems = rows()
    for name, theme in THEMES.items():
        (directory / f"{name}.svg").write_text(picture(systems, theme), encoding="utf-8")


if __name__ == "__main__":
    main()
