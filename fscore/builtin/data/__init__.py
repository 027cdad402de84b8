"""Built-in data sets; an author of a pooled data set derives from `PooledDataset`."""

from fscore.builtin.data.pooled import PooledDataset

__all__ = ["PooledDataset"]
