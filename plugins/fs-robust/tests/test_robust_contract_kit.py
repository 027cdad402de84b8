"""The contract suite on the aggregator that needs root data."""

from fs_robust.fltrust import FLTrust

from fscore.builtin.reference import reference
from fscore.testing import AggregatorContract


class TestFLTrust(AggregatorContract):
    """Its result depends on the server's own update, to whose length all are scaled."""

    toml = 'data = { use = "digits", root = 30 }\nsampler = { clients = 4 }\n'
    width = 650

    def make(self):
        return FLTrust()

    def reduced(self, rows):
        return self.direction(self.course(), rows, [1.0] * len(rows), [0] * len(rows))

    def test_equal_updates_give_that_update(self):
        """In direction; the length is that of the server's own update."""
        course = self.course()
        course.executor.start(course.site)
        root = reference(course, "root")
        self._assert_reduces(3 * root.repeat(6, 1), root)

    def test_scaling_all_updates_scales_the_result(self):
        """It does not: the length of an update says nothing."""
        rows = self._rows()
        self._assert_reduces(4 * rows, self.reduced(rows))
