"""The network as plain functions of (weights, inputs, state). No threads, no graphs."""

import os

# On a CPU, the same stream gives the same bits: by default the sums of Intel's MKL depend on how
# its threads and the memory it is given happen to lie. It reads this at its first product; a frame
# takes as long as before.
os.environ.setdefault('MKL_CBWR', 'AUTO,STRICT')
