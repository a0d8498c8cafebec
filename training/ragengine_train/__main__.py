"""`torchrun --nproc_per_node N -m ragengine_train CONFIG`: `ragengine train` in each of N processes."""

import sys

from ragengine.cli.main import main

sys.argv[1:] = ["train", *sys.argv[1:]]
main()
