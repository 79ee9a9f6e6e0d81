"""Slots: never more taken than there are, served in order of arrival, nobody starved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from jobrunner.plan.semaphores import Semaphores


def anybody(who: str) -> bool | None:
    return True


def was_refused(semaphores: Semaphores[str]) -> bool:
    """As the attribute, which a type checker believes to stay as it was when it was last looked at."""
    return semaphores.was_refused


def served(semaphores: Semaphores[str]) -> list[str]:
    """All who get their slots now."""
    found: list[str] = []
    while (who := semaphores.serve(anybody)) is not None:
        found.append(who)
    return found


def test_who_comes_first_is_served_first() -> None:
    semaphores = Semaphores[str]({"a": 2})
    for who in ("one", "two", "three"):
        semaphores.enter(who, {"a": 1}, lane=who)
    assert served(semaphores) == ["one", "two"]
    assert semaphores
    semaphores.give({"a": 1})
    assert served(semaphores) == ["three"]
    assert not semaphores


def test_who_waits_for_many_keeps_later_ones_from_taking_them() -> None:
    semaphores = Semaphores[str]({"a": 2})
    semaphores.enter("first", {"a": 1}, lane=1)
    semaphores.enter("large", {"a": 2}, lane=2)
    semaphores.enter("small", {"a": 1}, lane=3)
    assert served(semaphores) == ["first"]
    semaphores.give({"a": 1})
    assert served(semaphores) == ["large"]
    semaphores.give({"a": 2})
    assert served(semaphores) == ["small"]


def test_who_could_not_start_anyway_keeps_nobody_waiting() -> None:
    semaphores = Semaphores[str]({"a": 1})
    semaphores.enter("busy", {"a": 1}, lane=1)
    semaphores.enter("free", {"a": 1}, lane=2)
    assert semaphores.serve(lambda who: who != "busy") == "free"


def test_who_no_longer_wants_any_leaves_the_queue() -> None:
    semaphores = Semaphores[str]({"a": 1})
    semaphores.enter("gone", {"a": 1}, lane=1)
    assert semaphores.serve(lambda who: None) is None
    assert not semaphores


def test_others_who_hold_the_slots_are_asked_last_and_nothing_is_kept_where_they_refuse() -> None:
    class Others:
        def __init__(self) -> None:
            self.asked: list[Mapping[str, int]] = []
            self.answer = False

        def take(self, wanted: Mapping[str, int]) -> bool:
            self.asked.append(wanted)
            return self.answer

        def give(self, taken: Mapping[str, int]) -> None:
            self.asked.append({name: -count for name, count in taken.items()})

    others = Others()
    semaphores = Semaphores[str]({"own": 1, "theirs": 3}, shared=frozenset({"theirs"}), outside=others)
    semaphores.enter("who", {"own": 1, "theirs": 2}, lane=1)
    assert served(semaphores) == []
    assert was_refused(semaphores)
    semaphores.enter("other", {"own": 1}, lane=2)
    assert served(semaphores) == [], "the first one waits for it too"
    others.answer = True
    assert served(semaphores) == ["who"]
    assert not was_refused(semaphores)
    semaphores.give({"own": 1, "theirs": 2})
    assert served(semaphores) == ["other"]
    assert others.asked[-1] == {"theirs": -2}


WANTED = st.dictionaries(st.sampled_from("abc"), st.integers(1, 3), min_size=1)


@given(wants=st.lists(st.tuples(WANTED, st.integers(0, 2)), min_size=1, max_size=30), rng=st.randoms(use_true_random=False))
def test_everybody_is_served_in_the_end_and_no_slot_is_given_twice(wants: list[tuple[dict[str, int], int]], rng: object) -> None:
    slots = {"a": 3, "b": 3, "c": 3}
    semaphores = Semaphores[int](slots)
    for number, (wanted, lane) in enumerate(wants):
        semaphores.enter(number, wanted, lane=lane)
    holding: list[int] = []
    done: list[int] = []
    while len(done) < len(wants):
        while (who := semaphores.serve(lambda who: True)) is not None:
            holding.append(who)
            taken = Counter[str]()
            for each in holding:
                taken.update(wants[each][0])
            assert all(count <= slots[name] for name, count in taken.items())
        assert holding, "nobody holds any and nobody is served"
        ended = holding.pop(rng.randrange(len(holding)))  # type: ignore[attr-defined]  # it is a random.Random
        semaphores.give(wants[ended][0])
        done.append(ended)
    assert not semaphores
