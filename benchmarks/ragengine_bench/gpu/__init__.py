"""`python -m ragengine_bench.gpu STEP`: the measurements on a GPU."""
