"""Where points are drawn."""

from results.report import figures


def test_points_of_one_beta_lie_next_to_each_other() -> None:
    """Beta 0.02 has two points here and one of the log's: two columns, and 4 to the next beta."""
    here, log = [0.02, 0.02, 0.1], [0.02, 0.05]
    columns = figures.columns_of(here, log)
    assert columns == {0.02: (0.0, 2), 0.05: (6.0, 1), 0.1: (11.0, 1)}
    assert figures.side_by_side(here, columns) == [0.5, 1.5, 11.5]
    assert figures.side_by_side(log, columns) == [1.0, 6.5]
