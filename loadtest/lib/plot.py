"""The ratios to the floor as bars, in SVG."""

from xml.sax.saxutils import escape

COLOURS = {"sluice": "#0b7a75", "nginx": "#d1a054", "haproxy": "#8d99ae"}
LABEL_WIDTH, PLOT_WIDTH, RIGHT = 270, 480, 90
BAR, GAP, TOP = 13, 14, 64


def svg(results):
    """A group of bars for each row that has a figure of the floor; None if there is none."""
    names = [name for name in results.names if name in COLOURS]
    groups = []
    for row in results.rows:
        ratios = {name: row.ratio((name, row.work.variant), ("floor", row.work.variant)) for name in names}
        if any(ratios.values()):
            groups.append((row.work.title, ratios))
    if not groups:
        return None
    greatest = max(ratio for _, ratios in groups for ratio in ratios.values() if ratio)
    scale = PLOT_WIDTH / max(greatest, 1.5)
    group_height = BAR * len(names) + GAP
    width, height = LABEL_WIDTH + PLOT_WIDTH + RIGHT, TOP + group_height * len(groups) + 30
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
           f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
           f'<text x="12" y="22" font-size="15" fill="#222">CPU a request, as a multiple of the floor '
           f'(a relay that only copies): less is better</text>']
    out += _legend(names)
    floor_x = LABEL_WIDTH + scale
    bottom = TOP + group_height * len(groups)
    for number, (title, ratios) in enumerate(groups):
        out += _group(title, ratios, TOP + number * group_height, scale, names)
    out.append(f'<line x1="{floor_x:.1f}" y1="{TOP - 6}" x2="{floor_x:.1f}" y2="{bottom}" stroke="#b00020" '
               f'stroke-dasharray="4 3"/>')
    out.append(f'<text x="{floor_x:.1f}" y="{bottom + 14}" text-anchor="middle" fill="#b00020">floor</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def _legend(names):
    out = []
    for number, name in enumerate(names):
        x = 12 + number * 90
        out.append(f'<rect x="{x}" y="34" width="12" height="12" fill="{COLOURS[name]}"/>')
        out.append(f'<text x="{x + 17}" y="44" fill="#222">{name}</text>')
    return out


def _group(title, ratios, top, scale, names):
    middle = top + BAR * len(names) / 2 + 4
    out = [f'<text x="{LABEL_WIDTH - 10}" y="{middle:.1f}" text-anchor="end" fill="#222">{escape(title)}</text>']
    for number, name in enumerate(names):
        y = top + number * BAR
        if ratios[name]:
            width = ratios[name] * scale
            out.append(f'<rect x="{LABEL_WIDTH}" y="{y}" width="{width:.1f}" height="{BAR - 1}" '
                       f'fill="{COLOURS[name]}"/>')
            out.append(f'<text x="{LABEL_WIDTH + width + 5:.1f}" y="{y + 10}" font-size="11" fill="#444">'
                       f'{ratios[name]:.2f}</text>')
    return out
