"""YAML is read within bounds, wherever the program reads it."""

import random

import pytest

from cancernet.cli import main
from cancernet.errors import InputError
from cancernet.yaml_files import read_yaml
from tests.output import only_line

NOISE = random.Random(0).randbytes(5000)
ANCHORS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 13))
BROKEN = {
    "noise": (NOISE, "not UTF-8 text"),
    "zeros": (b"\0" * 100, "cannot be read as YAML"),
    "flow": (b"[" * 20_000, "more than 64 levels"),
    "pairs": (b"{a: " * 20_000 + b"}" * 20_000, "more than 64 levels"),
    "lists": (b"- " * 20_000, "more than 64 levels"),
    "keys": (b"? " * 20_000, "more than 64 levels"),
    "block": (b"".join(b" " * n + b"a:\n" for n in range(400)), "more than 64 levels"),
    "anchors": (ANCHORS.encode(), "more than 20,000 values"),
    "merged": (ANCHORS.replace("[x]", "{x: 1}").replace("[*", "[<<, *").encode(), "more than 20,000 values"),
    "itself": (b"a: &a [*a]", "alias a stands before its anchor, or in it"),
    "many": (b"- 1\n" * 30_000, "more than 20,000 values"),
    "large": (b"#" * 2_000_000, "more than 1,048,576 bytes"),
    "number": (b"a: " + b"9" * 5000, "5,000 letters without quotes"),
    "date": (b"a: 2026-99-99", "cannot be read as YAML (month must be in 1..12)"),
    "unclosed": (b"data: {root: [", "cannot be read as YAML"),
    "code": (b"!!python/object/apply:os.system ['touch ran']", "could not determine a constructor"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_or_unbounded_yaml_is_refused_in_one_line(name, tmp_path):
    content, words = BROKEN[name]
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(InputError) as raised:
        read_yaml(tmp_path / "bad.yaml")
    assert "bad.yaml" in str(raised.value)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", ["[" * 20_000, ANCHORS], ids=["levels", "anchors"])
def test_a_value_on_the_command_line_is_bounded_as_well(value, capsys):
    assert main(["fit", f"--model.network_arguments={value}"]) == 2
    assert len(only_line(capsys)) < 1000


def test_anchors_within_the_bounds_are_read(tmp_path):
    (tmp_path / "good.yaml").write_text("base: &base {lr: 1e-3, seeds: [1, 2]}\nother: {<<: *base, lr: 2}\n")
    assert read_yaml(tmp_path / "good.yaml")["other"] == {"lr": 2, "seeds": [1, 2]}


@pytest.mark.parametrize("name", sorted(BROKEN.keys() - {"date"}))
def test_fit_refuses_such_a_configuration_in_one_line(name, tmp_path, capsys):
    (tmp_path / "bad.yaml").write_bytes(BROKEN[name][0])
    assert main(["fit", f"--config={tmp_path}/bad.yaml", f"--trainer.default_root_dir={tmp_path}"]) == 2
    assert "bad.yaml" in only_line(capsys)
