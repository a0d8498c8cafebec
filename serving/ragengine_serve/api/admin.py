"""What an administrator may do to a running server."""

from fastapi import APIRouter, Depends
from starlette.responses import Response

from ragengine_serve.api.schemas import ERRORS, SwapRequest
from ragengine_serve.http.replies import JsonReply
from ragengine_serve.state import ServerState, state_of

router = APIRouter(prefix="/admin", tags=["admin"], responses=ERRORS)
State = Depends(state_of)


@router.post("/index")
async def swap_index(body: SwapRequest, state: ServerState = State) -> Response:
    """Answer from another index from now on, in every worker, without a lost request.

    Questions that run finish on the old one.  Needs an admin key.
    """
    model = state.models.get(body.model)
    await state.swap(model.name, state.models.index_path(body.path))
    return JsonReply({"model": model.name, "index": model.info()["index"]})
