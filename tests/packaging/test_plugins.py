"""What is found, what is refused, and that a listing imports nothing of a plug-in."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from privbench import plugins
from privbench.errors import NameClash, PluginError, UsageError

HOME = Path(plugins.__file__).resolve().parent.parent


def test_every_yaml_of_ours_is_a_choice() -> None:
    files = {path.relative_to(HOME / "conf") for path in (HOME / "conf").rglob("*.yaml")}
    found = {
        Path(group) / f"{name}.yaml"
        for group, choices in plugins.listing().items()
        for name, choice in choices.items()
        if choice.provider == "privbench"
    }
    assert found == files


def test_a_stranger_is_listed_without_being_imported(install) -> None:
    install("stranger-one", {"attack/strange.yaml": "# does a strange thing\n_target_: x.Y\n"})
    choice = plugins.listing()["attack"]["strange"]
    assert (choice.provider, choice.summary()) == ("stranger-one", "does a strange thing")


def test_two_distributions_with_one_choice_are_refused(install) -> None:
    install("stranger-one", {"attack/same.yaml": ""})
    install("stranger-two", {"attack/same.yaml": ""})
    with pytest.raises(NameClash, match=r"attack/same.*stranger-(one|two).*stranger-(one|two)"):
        plugins.listing()


def test_nobody_replaces_a_choice_of_ours(install) -> None:
    install("stranger-one", {"run.yaml": ""})
    with pytest.raises(NameClash, match=r"run.*'privbench'.*'stranger-one'"):
        plugins.listing()


@pytest.mark.parametrize("as_package", [True, False])
def test_a_folder_that_hides_attacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_package: bool
) -> None:
    (tmp_path / "attacks").mkdir()
    if as_package:
        (tmp_path / "attacks" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(NameClash, match=str(tmp_path / "attacks")):
        plugins.listing()


def test_a_clone_that_was_never_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", lambda group: ())
    with pytest.raises(UsageError, match=r"pip install -e \."):
        plugins.listing()


def test_an_announced_package_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = EntryPoint("gone", "gone_package.conf", plugins.GROUP)
    ours = plugins.sources()
    monkeypatch.setattr(plugins, "entry_points", lambda group: (*ours, gone))
    with pytest.raises(PluginError, match="gone_package"):
        plugins.listing()


@pytest.mark.parametrize("where", ["moved away", "still here", "an index"])
def test_a_plug_in_whose_files_are_gone_can_be_got_rid_of(
    install, tmp_path: Path, where: str
) -> None:
    root = install("gone-attack", {"attack/gone.yaml": ""})
    shutil.rmtree(root / "gone_attack")
    folder = tmp_path / "my plug-in"
    if where == "still here":
        folder.mkdir()
    if where != "an index":
        facts = {"url": folder.as_uri(), "dir_info": {"editable": True}}
        (root / "gone_attack-0.1.dist-info" / "direct_url.json").write_text(json.dumps(facts))
    with pytest.raises(PluginError, match=r"'pip uninstall gone-attack'") as caught:
        plugins.listing()
    advice = str(caught.value)
    assert "pip install gone" not in advice and "reinstall" not in advice
    if where == "moved away":
        assert advice.endswith(f"(it was in {folder}): pip install -e FOLDER")
    if where == "still here":
        assert advice.endswith(f"pip install -e {folder}")


def test_a_wrong_name_is_answered_with_the_right_one() -> None:
    error = plugins.search("threat", "relaesed", plugins.listing()["threat"])
    assert "did you mean 'released'?" in str(error) and "host" in str(error)


def test_a_listing_needs_neither_torch_nor_hydra() -> None:
    code = (
        "import sys; from privbench.plugins import listing; listing(); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'hydra', 'numpy', 'attacks')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
