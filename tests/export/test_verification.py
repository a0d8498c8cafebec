"""The export's comparison with torch: small for what was exported, over the limit where a weight is wrong."""

from pathlib import Path

import numpy as np
import pytest

from ragengine.bundle.bundle import Bundle
from ragengine.errors import ExportError
from ragengine_export import export_checkpoint
from ragengine_export.checkpoint import join_checkpoints
from ragengine_export.verification import TOLERANCE, check_encoder, check_generator, require_within
from tests.support.models import save_bart, save_dpr


def test_a_wrong_weight_is_found_and_a_right_one_is_not(tmp_path: Path) -> None:
    dpr, bart = save_dpr(tmp_path / "dpr"), save_bart(tmp_path / "bart", decoder_layers=2)
    report = export_checkpoint(None, tmp_path / "b", question_encoder=dpr, generator=bart)
    names = {check.graph for check in report.checks}
    assert names == {"question_encoder/encoder.onnx"} | {
        f"generator/{name}.onnx" for name in ("encoder", "cross", "decoder", "step")
    }
    checkpoint = join_checkpoints(str(dpr), str(bart), None)
    bundle = Bundle.open(tmp_path / "b")
    spec, encoder = bundle.manifest.generator, bundle.manifest.question_encoder
    checks = check_generator(bundle.path, checkpoint.generator, spec)
    checks.append(check_encoder(bundle.file(encoder.path, encoder.graph), checkpoint.question_encoder))
    require_within(checks, "fp32")
    assert {check.graph for check in checks} == names
    (loss,) = (check.loss for check in checks if check.loss is not None)
    assert loss.token_agreement == 1
    assert abs(loss.log_prob_drop) < TOLERANCE["fp32"]

    for folder in (spec.path, encoder.path):
        weights = np.memmap(bundle.file(folder, "weights.bin"), np.float32, "r+")
        weights *= 1.1
        weights.flush()
    wrong = check_generator(bundle.path, checkpoint.generator, spec)
    wrong.append(check_encoder(bundle.file(encoder.path, encoder.graph), checkpoint.question_encoder))
    for check in wrong:
        with pytest.raises(ExportError, match=rf"more than 2e-04: {check.graph} by .*; nothing was written"):
            require_within([check], "fp32")
