"""Claims about curves: well-formed, inside of their picture, and never going back."""

import itertools
import re
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from zolite.monitor.series import Point
from zolite.report.curves import HEIGHT, LEGEND, WIDTH, Line, Picture, alone, drawn

VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40)
NUMBER = re.compile(r"-?\d+\.?\d*")


def points(values: list[float]) -> list[Point]:
    return [Point(i, v, v, v) for i, v in enumerate(values)]


@given(st.lists(VALUES, min_size=1, max_size=7), st.booleans(), st.text(max_size=20))
def test_all_is_inside(several: list[list[float]], marks: bool, name: str) -> None:
    """Every line, dot and text of a picture that is a file of its own lies within its box, whatever the numbers."""
    lines = [Line(f"{name}{i}", points(values), points(values), marks) for i, values in enumerate(several)]
    picture = Picture(name, "nats", lines, (0, 40), best=3, level=(several[0][0], name))
    root = ElementTree.fromstring(alone(drawn(picture)))
    tall = float(root.attrib["viewBox"].split()[3])
    assert HEIGHT <= tall <= HEIGHT + 7 * LEGEND
    for element in root.iter():
        across = [float(element.attrib[key]) for key in ("x", "x1", "x2", "cx") if key in element.attrib]
        down = [float(element.attrib[key]) for key in ("y", "y1", "y2", "cy") if key in element.attrib]
        assert all(0 <= x <= WIDTH for x in across) and all(0 <= y <= tall for y in down)


@given(VALUES)
def test_a_line_goes_on(values: list[float]) -> None:
    """From step to step to the right, higher values higher."""
    root = ElementTree.fromstring(drawn(Picture("loss", "", [Line("a", points(values))], (0, 40))))
    for path in (e for e in root.iter() if e.attrib.get("class") == "line" and "d" in e.attrib):
        numbers = list(map(float, NUMBER.findall(path.attrib["d"])))
        across, down = numbers[::2], numbers[1::2]
        assert all(a < b for a, b in itertools.pairwise(across)) and len(across) == len(values)
        assert down.index(min(down)) == values.index(max(values)) or min(down) == down[values.index(max(values))]


def test_nothing_to_draw() -> None:
    """Is no picture."""
    assert drawn(Picture("loss", "", [Line("a", [])], (0, 40))) == ""
