"""One intra-op thread: two are slower than one on small models, and sums depend on it."""

import torch

torch.set_num_threads(1)
