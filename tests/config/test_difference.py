"""Where two trees of plain data differ, by path."""

from sublayer.config.difference import differences


def test_what_is_equal_is_not_named() -> None:
    tree = {"a": 1, "b": {"c": [1, {"d": 2}]}}
    assert differences(tree, tree) == {}


def test_each_leaf_that_differs_is_named_by_its_path() -> None:
    one = {"a": 1, "b": {"c": [1, {"d": 2}], "gone": True}}
    other = {"a": 2, "b": {"c": [1, {"d": 3}]}, "new": "x"}
    assert differences(one, other) == {
        "a": (1, 2),
        "b.c[1].d": (2, 3),
        "b.gone": (True, None),
        "new": (None, "x"),
    }


def test_lists_of_other_lengths_differ_as_a_whole() -> None:
    assert differences([1, 2], [1], "items") == {"items": ([1, 2], [1])}
