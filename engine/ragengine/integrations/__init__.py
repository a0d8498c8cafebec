"""Adapters for other frameworks: one module each, which needs that framework and is imported by nothing else.

:mod:`ragengine.integrations.langchain`, :mod:`ragengine.integrations.llama_index` and
:mod:`ragengine.integrations.haystack` each have a retriever and an answerer.  An answerer takes the question
and its documents together: the model's answer is a sum over the documents, not a text about them.
"""
