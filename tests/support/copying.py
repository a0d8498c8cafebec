"""A BART that copies its document, word for word: its weights are set, not trained.

Half of the numbers of a state say which token it is, the other half where it stands.  The decoder's position
t looks up the encoder's position t + ``FIRST``, whose token becomes the next one.
"""

from pathlib import Path

import torch
from transformers import BartForConditionalGeneration

from tests.support.models import save_bart

FIRST = 1
"""The place in a document of the first token that is copied: after <s>."""
_HALF, _POSITIONS = 64, 200


def save_copying_bart(folder: Path) -> Path:
    """Save the checkpoint; it copies documents of up to 200 tokens."""
    heads = {"encoder_attention_heads": 1, "decoder_attention_heads": 1}
    layers = {"encoder_layers": 1, "decoder_layers": 1, "d_model": 2 * _HALF}
    save_bart(folder, max_position_embeddings=_POSITIONS, **layers, **heads)
    model = BartForConditionalGeneration.from_pretrained(str(folder))
    generator = torch.Generator().manual_seed(0)

    def signs(rows: int) -> torch.Tensor:
        return torch.randint(0, 2, (rows, _HALF), generator=generator).float() * 2 - 1

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        model.model.shared.weight[:, :_HALF] = signs(len(model.model.shared.weight))
        places = signs(_POSITIONS + 2 + FIRST)  # BART's tables begin with two rows that no token has
        model.model.encoder.embed_positions.weight[:, _HALF:] = places[: _POSITIONS + 2]
        model.model.decoder.embed_positions.weight[:, _HALF:] = places[FIRST:]
        attention = model.model.decoder.layers[0].encoder_attn
        which, where = torch.zeros(2, 2 * _HALF)
        which[:_HALF], where[_HALF:] = 1.0, 1.0
        attention.q_proj.weight.copy_(torch.diag(5 * where))
        attention.k_proj.weight.copy_(torch.diag(where))
        attention.v_proj.weight.copy_(torch.diag(which))
        attention.out_proj.weight.copy_(torch.diag(4 * which))
    model.save_pretrained(str(folder))
    return folder
