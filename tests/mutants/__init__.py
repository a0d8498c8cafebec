"""Mutation tests: small changes to the source, one at a time, that some test has to notice; ``make mutants``.

mutmut names a mutant after its path below ``src`` or the root, so none in ``engine/`` would be switched on.
"""
