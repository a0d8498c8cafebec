"""Coverage-guided fuzzing with atheris, beside the property tests: ``make fuzz``, or one of these alone,

    python -m tests.fuzz.manifests -max_total_time=60
    python -m tests.fuzz.graphs -max_total_time=60
    python -m tests.fuzz.passages -max_total_time=60

Arguments are libFuzzer's.  What a reader raises that is no :class:`ragengine.errors.RagEngineError` ends the
run and is written to a file; make a test of it.
"""
