"""The example docs/examples/lejepa_digits.py, in a fifth of its steps.

Building the docs runs all of them, and the script itself then fails below its accuracies.
"""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "lejepa_digits.py"


@pytest.mark.slow
def test_sigreg_keeps_the_embedding(capsys):
    """With SIGReg a linear probe passes 95 %; without it the embedding is a point."""
    pytest.importorskip("sklearn", reason="the example's images ship with scikit-learn")
    spec = importlib.util.spec_from_file_location("lejepa_digits", SCRIPT)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.STEPS = 60
    accuracy = example.main()
    assert accuracy["features, SIGReg"] >= 0.95
    assert accuracy["embedding, SIGReg"] > 0.9
    assert accuracy["embedding, no SIGReg"] < 0.8
    without, with_sigreg = capsys.readouterr().out.split("embedding, SIGReg, of views")
    assert "collapsed to a point" in without
    assert "collapsed" not in with_sigreg
