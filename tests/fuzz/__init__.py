"""Coverage-guided fuzzing with atheris, in addition to the property tests: ``make fuzz``, or one alone:

    python -m tests.fuzz.manifests -max_total_time=60
    python -m tests.fuzz.graphs -max_total_time=60
    python -m tests.fuzz.passages -max_total_time=60

The arguments are libFuzzer's.  An exception other than :class:`ragengine.errors.RagEngineError` ends the run,
and its input is written to a file; make a test of it.
"""
