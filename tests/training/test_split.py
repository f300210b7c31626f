"""The division into sets: no leaks, stable, and the shares asked for."""

import pytest

from keras_seqattn.training import split_pairs, without_near_duplicates

pytestmark = pytest.mark.backend_free


def name(i):
    """Words in letters, since digits do not tell texts apart."""
    return " ".join(chr(97 + int(digit)) * 3 for digit in str(i))


def pairs(count=4000):
    return [(f"the library {name(i)}", f"la libreria {name(i)}") for i in range(count)]


def test_shares_and_completeness():
    parts = split_pairs(pairs(), validation=0.1, test=0.2)
    assert sorted(sum(parts, [])) == sorted(pairs())
    # Binomial: deviations of 19 and 25.
    assert abs(len(parts.validation) - 400) < 100 and abs(len(parts.test) - 800) < 130


def test_variants_of_a_text_stay_together():
    variants = []
    for source, target in pairs(500):
        variants += [
            (source, target),
            (source.upper(), target),
            (f"{source} 2.7", target),
            (f"{source}, 3", target),
            (f"  {source}!", target),
        ]
    for part in split_pairs(variants, 0.2, 0.2):
        assert part and len(part) % 5 == 0


def test_more_data_move_nothing():
    small, large = split_pairs(pairs(1000)), split_pairs(pairs()[::-1])
    assert all(set(a) <= set(b) for a, b in zip(small, large, strict=True))


def test_near_duplicates_are_left_out():
    train = [("a b c d e f", "1"), ("x y", "2"), ("4 5", "3")]
    held = [("A, b, c d f!", "k"), ("x y z w", "l"), ("a b c u v w", "m"), ("q", "n")]
    assert without_near_duplicates(held, train) == held[1:]
    assert without_near_duplicates(held, train, overlap=0.5) == held[2:]
    assert without_near_duplicates(held, [("r", "s")]) == held
    assert without_near_duplicates([("9", "9")], [("r", "s")]) == [("9", "9")]
