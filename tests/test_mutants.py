"""The list of planted bugs still fits the files: `python tests/mutants.py` would plant each."""

import mutants


def test_each_planted_bug_fits_its_file():
    assert mutants.check(list(mutants.BUGS)) == []


def test_an_entry_that_does_not_fit_is_told(monkeypatch):
    bugs = [("gone", "no such text", ""), ("name", "R = 0.0 if", "R = nil if")]
    bugs += [
        ("once", "gamma * R", "R"),
        ("twice", "R = rewards[i] + gamma * R", "R = rewards[i] + R"),
    ]
    monkeypatch.setattr(mutants, "BUGS", {"a3c.py": bugs})
    told = mutants.check(["a3c.py"])
    assert [entry.rsplit(": ", 1)[1] for entry in told] == ["gone", "name", "twice"]
    assert "0 times" in told[0] and "nil" in told[1]
