"""`RemoteShard`: a shard of an index that ``ragengine serve --shard`` has, here or on another machine."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import numpy as np

from ragengine.arrays import FloatArray
from ragengine.corpus.passage import Passage
from ragengine.errors import ShardError
from ragengine.messages import one_line, short_repr
from ragengine.retrieval.candidates import Candidates, Plan
from ragengine.retrieval.passage_filter import PassageFilter
from ragengine.runtime.cancellation import NEVER, Stop
from ragengine.sharding.remote.addresses import Address
from ragengine.sharding.remote.connection import Response
from ragengine.sharding.remote.network import Network
from ragengine.sharding.remote.options import RemoteOptions
from ragengine.sharding.remote.replicas import Failed, Refused, Replicas
from ragengine.sharding.remote.wire import MAX_MESSAGE_BYTES, MEDIA_TYPE, Message, decode, encode
from ragengine.storage.strict_json import parse_json

T = TypeVar("T")
