"""A flame graph in SVG: width is time, and what stands on something was called by it."""

from xml.sax.saxutils import escape

WIDTH, ROW, TOP = 1400, 17, 40
# Narrower boxes are left out.
SMALLEST = 0.7
LETTER = 6.6
USER, KERNEL = "#e8a33d", "#c75b39"


class _Node:
    def __init__(self):
        self.count, self.children = 0, {}


def svg(stacks, title):
    root, depth = _Node(), 0
    for stack, count in stacks.items():
        node = root
        node.count += count
        depth = max(depth, len(stack))
        for frame in stack:
            node = node.children.setdefault(frame, _Node())
            node.count += count
    height = TOP + ROW * (depth + 1) + 10
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="monospace" '
           f'font-size="11"><rect width="{WIDTH}" height="{height}" fill="#fff"/>',
           f'<text x="10" y="22" font-size="14" font-family="sans-serif">{escape(title)}</text>']
    # An explicit stack of work: call stacks may be deeper than Python's own.
    todo = [(root, 0.0, 0)]
    while todo:
        node, x, level = todo.pop()
        for (name, kernel), child in sorted(node.children.items()):
            width = WIDTH * child.count / root.count
            if width >= SMALLEST:
                out.append(_box(name, kernel, child.count / root.count, x, height - ROW * (level + 1) - 10, width))
                todo.append((child, x, level + 1))
            x += width
    out.append("</svg>")
    return "\n".join(out) + "\n"


def _box(name, kernel, share, x, y, width):
    letters = int((width - 4) / LETTER)
    shown = name if len(name) <= letters else name[:letters - 1] + "…" if letters > 2 else ""
    return (f'<g><title>{escape(name)}: {share:.1%}</title><rect x="{x:.1f}" y="{y}" width="{width:.1f}" '
            f'height="{ROW - 1}" fill="{KERNEL if kernel else USER}" stroke="#fff" stroke-width="0.4"/>'
            f'<text x="{x + 2:.1f}" y="{y + 12}">{escape(shown)}</text></g>')
