"""Sets of classes to forget, as users write them."""

import numpy as np
import pytest

from ispf_jax.errors import ArgumentError, UserError
from ispf_jax.forget import forget_set, forget_sets, named

NAMES = tuple(f"class{i}" for i in range(5))


@pytest.mark.parametrize(
    "spec, sets",
    [
        ("3", ((3,),)),
        ("4,1", ((1, 4),)),
        ("0; 1 ;2,3", ((0,), (1,), (2, 3))),
        ("each", ((0,), (1,), (2,), (3,), (4,))),
        ("class4,0", ((0, 4),)),
        ("0,1,2,3", ((0, 1, 2, 3),)),
    ],
)
def test_forget_sets(spec, sets):
    assert forget_sets(spec, NAMES) == sets


SIGNS = ("01", "02", "04", "05", "09", "10", "12", "13")  # folder names that are numbers, but not those of the classes


@pytest.mark.parametrize(
    "spec, sets",
    [
        ("13", ((7,),)),  # no class has this number
        ("3", ((3,),)),  # no class has this name
        ("name:05;id:5", ((3,), (5,))),
        ("name:13,id:1,3", ((1, 3, 7),)),
    ],
)
def test_classes_whose_names_are_numbers(spec, sets):
    assert forget_sets(spec, SIGNS) == sets


@pytest.mark.parametrize(
    "spec, parts",
    [
        ("5", ["'5' is class 5 by its number", "'10'", "class 3 by its name", "id:5 or name:05"]),
        ("05", ["'05' is class 5 by its number", "id:5 or name:05"]),
        ("3,1", ["'1' is class 1 by its number", "'02'", "class 0 by its name", "id:1 or name:01"]),
        ("name:5", ["no class 'name:5'", "0 to 7", "05"]),
        ("id:8", ["no class '8'", "0 to 7"]),
    ],
)
def test_a_word_that_is_the_number_of_one_class_and_the_name_of_another_is_refused(spec, parts):
    with pytest.raises(UserError) as caught:
        forget_sets(spec, SIGNS)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_of_two_names_with_the_same_number_the_written_one_is_meant():
    names = ("05", "5", "cat", "dog", "eel", "fox")
    assert forget_sets("name:5", names) == ((1,),) and forget_sets("name:05", names) == ((0,),)
    with pytest.raises(UserError, match="class 1 by its name; write id:5 or name:5"):
        forget_sets("5", names)


def test_numbers_as_names_in_order_need_no_more_than_a_number():
    assert forget_sets("1;02", ("00", "01", "02")) == ((1,), (2,))
    assert forget_sets("id:1,id:3", ("id:3", "cat", "dog")) == ((0, 1),)  # a name that looks like a number


@pytest.mark.parametrize(
    "spec, parts",
    [
        ("5", ["'5'", "0 to 4"]),
        ("-1", ["'-1'", "0 to 4"]),
        ("horse", ["'horse'", "0 to 4", "class0"]),
        ("", ["''", "0 (class0)"]),
        ("1;;2", ["''", "0 to 4"]),
        ("1,", ["''", "0 to 4"]),
        ("1,2,1", ["'1,2,1'", "twice"]),
        ("class1,1", ["'class1,1'", "twice"]),
        ("1,2;2,1", ["same set twice"]),
        ("0,1,2,3,4", ["all 5 classes at once", "at least one"]),
    ],
)
def test_bad_forget_sets(spec, parts):
    with pytest.raises(UserError) as caught:
        forget_sets(spec, NAMES)
    message = str(caught.value)
    assert message.startswith("forget=") and all(part in message for part in parts), message


def test_sets_are_shown_with_names_where_classes_have_some():
    assert named((0, 2), ("0", "cat", "dog")) == "0, 2 (dog)" and named((7,), ()) == "7"


@pytest.mark.parametrize(
    "given, ids", [(3, (3,)), ([4, "class1"], (1, 4)), ("class4,0", (0, 4)), ((2,), (2,)), (np.int64(1), (1,))]
)
def test_a_set_as_a_program_gives_it(given, ids):
    assert forget_set(given, NAMES) == ids


def test_ids_of_a_program_are_never_taken_for_names():
    assert forget_set([5], SIGNS) == (5,)


@pytest.mark.parametrize("given", [[], True, [1.5], [None], [9], "horse", [[1]]])
def test_sets_that_are_refused(given):
    with pytest.raises(ArgumentError) as caught:
        forget_set(given, NAMES)
    assert caught.value.argument == "forget"
