"""The tests of the sample, with and without its extra."""

from __future__ import annotations

import importlib.util
import unittest

from slug import slug  # type: ignore[import-not-found]  # beside it, wherever that is


class SlugTest(unittest.TestCase):
    def test_words_are_joined_by_hyphens(self) -> None:
        assert slug("One Job, one File!") == "one-job-one-file"

    @unittest.skipUnless(importlib.util.find_spec("translit"), "needs the extra")
    def test_the_extra_spells_letters_out(self) -> None:
        assert slug("Über Größe") == "ueber-groesse"
