"""The tests of each module that its mutants are tried with: those that would say first what is wrong."""

from typing import Final

_NO_THREADS: Final = "one_thread or fifty_swaps"
"""Tests of OpenMP's threads, which a fork lacks, and of a load."""
_QUICK: Final = (
    "-k not (larger_than_memory or forged_files_neither or wider_rerank or PQ or any_company "
    f"or codes_alone or any_deletion or {_NO_THREADS})"
)
"""Without tests that start processes or take seconds, as training product quantizers does."""

_SEARCH_TESTS: Final[dict[str, tuple[str, ...]]] = {
    "batch": ("batch",),
    "beam_search": ("beam_search", "greedy", "search"),
    "beams": ("beams", "beam_search"),
    "candidates": ("candidates", "rules"),
    "greedy": ("greedy",),
    "likelihood": ("likelihood", "rag_sequence"),
    "lookahead": ("lookahead",),
    "outputs": ("outputs", "search", "greedy"),
    "prefix_trie": ("prefix_trie",),
    "prompt_lookup": ("prompt_lookup",),
    "rag_sequence": ("rag_sequence", "search"),
    "rules": ("rules",),
    "sampling": ("sampling", "search"),
    "search": ("search",),
    "step": ("step", "search"),
}
_GENERATION_TESTS: Final[dict[str, tuple[str, ...]]] = {
    "adaptive": ("generation/test_adaptive.py", "-k not (t5 or mbart or an_answer_says)"),
    "batching": ("generation/test_batching.py",),
    "contexts": ("generation/test_contexts.py",),
    "marginalization": (
        "generation/test_marginalization.py",
        *(f"generation/search/test_{name}.py" for name in ("outputs", "search", "beam_search")),
    ),
    "memory": ("generation/test_memory.py", "-k not few_at_a_time"),
    "validation": ("generation/test_validation.py",),
    **{
        f"search.{module}": tuple(f"generation/search/test_{name}.py" for name in names)
        for module, names in _SEARCH_TESTS.items()
    },
}
_RETRIEVAL_TESTS: Final[dict[str, tuple[str, ...]]] = {
    "candidates": (
        *("retrieval/sharding/test_same_as_whole.py", "retrieval/test_vector_index.py"),
        *("retrieval/test_filtered_search.py", "retrieval/test_passage_filter.py", _QUICK),
    ),
    "custom": (
        "retrieval/test_custom.py",
        "-k wrong_results or fewer or callers or protocol or what_is_no or small",
    ),
    "encoder": ("retrieval/test_encoder.py",),
    "faiss_api": ("retrieval/test_faiss_api.py", "retrieval/test_vector_index.py", _QUICK),
    "faiss_header": ("retrieval/test_faiss_reader.py", _QUICK),
    "faiss_reader": ("retrieval/test_faiss_reader.py", _QUICK),
    "history": ("retrieval/test_history.py",),
    "index": (
        *(
            "retrieval/test_index.py",
            "retrieval/test_damaged_index.py",
            "retrieval/gpu/test_search_worker.py",
        ),
        "-k test_index.py or test_damaged_index.py and not questions or folder_closes or copy_fails",
    ),
    "index_slot": (
        "retrieval/test_index_slot.py",
        "-k idle or last_user or user_that_fails or closed_slot or signal_handler",
    ),
    "listing": ("retrieval/test_listing.py",),
    "manifest": ("retrieval/test_manifest.py",),
    "passage_filter": (
        "retrieval/test_passage_filter.py",
        "-k bits or wanted_and or used_last or fields or no_filter or compared_as",
    ),
    "passage_store": (
        "retrieval/test_passage_store.py",
        "corpus/test_readers.py",
        "-k passage_store or store",
    ),
    "recall": ("retrieval/test_recall.py",),
    "retriever": ("retrieval/test_retriever.py",),
    "vector_index": (
        *("retrieval/test_vector_index.py", "retrieval/test_exact_search.py", "retrieval/test_index.py"),
        "retrieval/test_damaged_index.py",
        *("retrieval/test_filtered_search.py", "retrieval/test_passage_filter.py"),
        *("retrieval/gpu/test_search_worker.py", "retrieval/gpu/test_rescoring.py", _QUICK),
    ),
    "gpu.placement": ("retrieval/gpu/test_placement.py", "-k not facts_are"),
    "gpu.rescoring": ("retrieval/gpu/test_rescoring.py",),
    "gpu.search_worker": ("retrieval/gpu/test_search_worker.py",),
}
_STORAGE_TESTS: Final[dict[str, tuple[str, ...]]] = {
    "atomic": ("atomic", "folders"),
    "folders": ("folders", "folders_interrupted", "manifests"),
    "foreign_files": ("foreign_files",),
    "npy": ("npy",),
    "ownership": ("ownership", "folders"),
    "schema": ("schema", "manifests"),
    "strict_json": ("strict_json", "schema"),
    "unpacking": ("unpacking",),
}
TESTS: Final[dict[str, tuple[str, ...]]] = {
    **{f"ragengine.generation.{module}": tests for module, tests in _GENERATION_TESTS.items()},
    **{f"ragengine.retrieval.{module}": tests for module, tests in _RETRIEVAL_TESTS.items()},
    "ragengine.runtime.cancellation": ("runtime/test_cancellation.py",),
    **{
        f"ragengine.storage.{module}": tuple(f"storage/test_{name}.py" for name in names)
        for module, names in _STORAGE_TESTS.items()
    },
}
"""The tests of each module, of which the quickest run first, and options of pytest."""
