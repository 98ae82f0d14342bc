"""Heat maps: where the names of their parts stand."""

import numpy as np

from gladient.pictures.maps import _middles


def test_names_stand_in_the_middle_of_each_large_part():
    region = np.zeros((20, 20), dtype=bool)
    region[1:8, 2:9] = region[12:19, 10:19] = region[15, 0] = True
    assert _middles(region)[0] == (4, 5)
    assert len(_middles(region)) == 2  # a single cell is no place for a name
    assert not _middles(np.zeros((3, 3), dtype=bool))
