"""The example docs/examples/lejepa_digits.py, as it stands."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "lejepa_digits.py"


@pytest.mark.slow
def test_sigreg_keeps_the_embedding_and_the_features_improve(capsys):
    """With SIGReg the probe passes 97 % and beats pixels; without it the embedding is a point."""
    pytest.importorskip("sklearn", reason="the example's images ship with scikit-learn")
    accuracy = runpy.run_path(str(SCRIPT))["main"]()
    assert accuracy["features, SIGReg"] > 0.97
    assert accuracy["features, SIGReg"] > accuracy["raw pixels"]
    assert accuracy["features, SIGReg"] > accuracy["features, untrained"]
    assert accuracy["embedding, SIGReg"] > 0.95
    assert accuracy["embedding, no SIGReg"] < 0.8
    without, with_sigreg = capsys.readouterr().out.split("embedding, SIGReg, of views")
    assert "collapsed to a point" in without
    assert "collapsed" not in with_sigreg
