"""The small drawings of the page that are markup: places between retraining and the original, and the marks of legends."""

from markupsafe import Markup

from ispf_jax.report.cells import Place

WIDTH, HEIGHT, EDGE = 104, 18, 14
"""Pixels of a place; `EDGE` is what is left and right of the two ends, for places beyond them."""

_NEAR, _FAR = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)  # blue and vermillion, told apart by colour-blind readers

_SHAPES = {
    "o": '<circle cx="7" cy="7" r="4.5"/>',
    "s": '<rect x="3" y="3" width="8" height="8"/>',
    "D": '<path d="M7 1.5 12.5 7 7 12.5 1.5 7Z"/>',
    "v": '<path d="M1.5 3h11L7 12.5Z"/>',
    "^": '<path d="M1.5 11h11L7 1.5Z"/>',
    "P": '<path d="M5 1h4v4h4v4H9v4H5V9H1V5h4Z"/>',
    "X": '<path d="M3 1l4 4 4-4 2 2-4 4 4 4-2 2-4-4-4 4-2-2 4-4-4-4Z"/>',
    "p": '<path d="M7 1.5 12.5 5.7 10.4 12H3.6L1.5 5.7Z"/>',
    ".": '<circle cx="7" cy="7" r="2.5"/>',
    "x": '<path d="M3 3l8 8M11 3l-8 8" stroke-width="1.6"/>',
}


def place_bar(place: Place) -> Markup:
    """A line from retrained (left end) to original (right end), a point at the place, a thin line for its interval.

    Position says everything; the colour repeats it. Beyond the drawn part the point becomes an arrow. It is hollow where the
    metric hardly tells the ends apart.
    """
    zero, one, middle = EDGE, WIDTH - EDGE, HEIGHT / 2
    x, color = _x(place.at), _color(place.at) if place.sure else "#767676"
    parts = [
        f'<path d="M{zero} {middle}H{one}M{zero} 4V{HEIGHT - 4}M{one} 4V{HEIGHT - 4}" stroke="#8a8a8a" fill="none"/>'
    ]
    if place.low is not None and place.high is not None:
        parts.append(
            f'<path d="M{_x(place.low):.1f} {middle}H{_x(place.high):.1f}" stroke="{color}" stroke-width="3" opacity=".45" fill="none"/>'
        )
    if place.sure:
        parts.append(f'<path d="M{zero} {middle}H{x:.1f}" stroke="{color}" stroke-width="3" fill="none"/>')
    fill = color if place.sure else "#fff"
    if _x(place.at, clamp=False) != x:
        step = 5 if place.at > 1 else -5
        parts.append(
            f'<path d="M{x - step:.1f} {middle - 5}L{x + step * 0.6:.1f} {middle}L{x - step:.1f} {middle + 5}Z" fill="{fill}" stroke="{color}"/>'
        )
    else:
        parts.append(f'<circle cx="{x:.1f}" cy="{middle}" r="4.2" fill="{fill}" stroke="{color}" stroke-width="1.4"/>')
    said = f"place {place} between retrained (0) and original (1)" + ("" if place.sure else ", hardly told apart")
    return Markup(
        f'<svg class="place" role="img" aria-label="{said}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
        f"{''.join(parts)}</svg>"
    )


def legend_mark(color: str, marker: str) -> Markup:
    """The marker of a legend's entry."""
    shape = _SHAPES.get(marker, _SHAPES["o"])
    return Markup(
        f'<svg aria-hidden="true" viewBox="0 0 14 14" width="12" height="12" fill="{color}" stroke="{color}">{shape}</svg>'
    )


def _x(at: float, clamp: bool = True) -> float:
    beyond = (EDGE - 5) / (WIDTH - 2 * EDGE)
    at = min(max(at, -beyond), 1 + beyond) if clamp else at
    return EDGE + at * (WIDTH - 2 * EDGE)


def _color(at: float) -> str:
    share = min(max(at, 0.0), 1.0)
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in zip(_NEAR, _FAR))
