"""The SVG of a run's curves."""

from xml.etree import ElementTree

from train.curves import curves

SVG = "{http://www.w3.org/2000/svg}"


def lines(history: list[dict[str, float]]) -> dict[str, list[tuple[float, float]]]:
    """Each curve's points by its name."""
    found = {}
    for line in ElementTree.fromstring(curves(history)).iter(f"{SVG}polyline"):
        points = [point.split(",") for point in line.attrib["points"].split()]
        name = line.find(f"{SVG}title")
        assert name is not None
        found[str(name.text)] = [(float(x), float(y)) for x, y in points]
    return found


def test_a_falling_loss_falls_and_steps_are_evenly_spaced() -> None:
    """Pixels count from the top: the largest value is at 28, the smallest at 220 - 32."""
    history = [{"step": step, "loss": loss} for step, loss in ((1, 3.0), (2, 2.0), (3, 1.0))]
    assert lines(history) == {"loss": [(56.0, 28.0), (172.0, 108.0), (288.0, 188.0)]}


def test_each_answer_type_has_its_line() -> None:
    entry = {"step": 1, "loss": 0.7, "beta": 0.1, "beta/span": 0.2, "rewards/margins": 0.0}
    history = [entry, {**entry, "step": 2}]
    assert set(lines(history)) == {"loss", "beta", "beta/span", "rewards/margins"}
    assert curves(history).count("<rect") == 3


def test_a_run_of_one_step_is_drawn() -> None:
    assert lines([{"step": 1, "loss": 0.7}]) == {"loss": [(172.0, 108.0)]}
