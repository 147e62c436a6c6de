"""Crowds: kinds, spreads, tables, and who hosts or owns."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from privbench.compose.building import build
from privbench.errors import UnknownName, UsageError
from privbench.slicenet.crowd import Device, Mixed, Uniform
from privbench.slicenet.crowds.lognormal import LogNormal
from privbench.slicenet.crowds.presets import KINDS, Presets
from privbench.slicenet.crowds.table import Table

CONF = Path(__file__).parents[2] / "conf" / "crowd"
DOCS = Path(__file__).parents[2] / "docs" / "crowds.md"


@pytest.fixture
def table(tmp_path):
    def write(text):
        file = tmp_path / "devices.csv"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(file)

    return write


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"speed": 0.0}, r"speed=0\.0; expected more than 0"),
        ({"up": 0.0}, "up=0"),
        ({"memory": -1.0}, "memory=-1"),
        ({"latency": float("nan")}, "latency=nan"),
        ({"owns": 1}, "owns=1; expected true or false"),
    ],
)
def test_devices_that_cannot_be_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        Device(**settings)


@pytest.mark.parametrize("kind", [Uniform, Mixed, LogNormal, Presets])
def test_owners_that_host_nothing_and_hosts_that_own_nothing(kind):
    members = kind(devices=7, owners=5, hosts=3).members()
    assert [device.owns for device in members] == [True] * 5 + [False] * 2
    assert [device.hosts for device in members] == [False] * 4 + [True] * 3
    assert all(device.owns and device.hosts for device in kind(devices=7).members())
    for settings in ({"owners": 8}, {"hosts": 0}, {"devices": 0}):
        with pytest.raises(UsageError, match=f"crowd.{next(iter(settings))}="):
            kind(**{"devices": 7, **settings})


def test_somebody_must_host_and_somebody_must_own():
    with pytest.raises(UsageError, match=r"none of 3 devices may host a slice .*hosts=true"):
        Uniform(devices=3, device=Device(hosts=False))
    silent = (Device(owns=False), Device(hosts=False))
    assert len(Mixed(devices=2, kinds=silent).members()) == 2
    with pytest.raises(UsageError, match="holds records"):
        Mixed(devices=2, owners=1, kinds=silent)


def test_shares_are_a_setting_of_every_crowd():
    assert Uniform().concentration is None
    assert LogNormal(shares="dirichlet", alpha=0.2).concentration == 0.2
    with pytest.raises(UsageError, match=r"crowd\.shares='skewed'; expected iid or dirichlet"):
        Uniform(shares="skewed")
    with pytest.raises(UsageError, match=r"crowd\.alpha=0"):
        Mixed(shares="dirichlet", alpha=0.0)


def test_kinds_are_told_apart_and_documented_to_the_digit():
    assert len(KINDS) >= 8
    page = DOCS.read_text(encoding="utf-8")
    for name, device in KINDS.items():
        assert device.name == name
        numbers = (device.speed, device.compute, device.memory, device.up, device.down)
        rest = (device.latency, device.energy_per_flop, device.energy_per_byte)
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        cells = [cell.split()[0] for cell in row.split("|")[2:-1]]
        assert [float(cell) for cell in cells] == pytest.approx([*numbers, *rest])
    speeds = [KINDS[name].speed for name in ("watch", "phone_low", "phone_mid", "phone_high")]
    assert speeds == sorted(speeds)


def test_kinds_are_dealt_in_turn():
    crowd = Presets(devices=5, mix=("watch", "laptop", "laptop"))
    names = [device.name for device in crowd.members()]
    assert names == ["watch", "laptop", "laptop", "watch", "laptop"]
    with pytest.raises(UnknownName, match=r"no kind 'labtop'; did you mean 'laptop'.*microserver"):
        Presets(mix=("labtop",))
    with pytest.raises(UsageError, match=r"crowd\.mix is empty"):
        Presets(mix=())


def test_a_spread_keeps_the_median_and_is_seeded():
    crowd = LogNormal(devices=4001, spread=0.5, seed=3)
    members = crowd.members()
    for name in ("compute", "speed", "memory", "up", "down"):
        logs = np.log([getattr(device, name) / getattr(Device(), name) for device in members])
        assert np.median(logs) == pytest.approx(0, abs=0.03)
        assert np.std(logs) == pytest.approx(0.5, abs=0.02)
    powers = np.array([[d.compute, d.memory, d.up] for d in members])
    between = np.corrcoef(np.log(powers).T)
    assert np.abs(between - np.eye(3)).max() < 0.05
    assert crowd.members() == members != replace(crowd, seed=4).members()
    assert replace(crowd, devices=10).members() == members[:10]
    assert all(
        d.speed / d.compute == pytest.approx(Device().speed / Device().compute) for d in members
    )
    assert set(LogNormal(devices=3, spread=0.0).members()) == {Device()}
    with pytest.raises(UsageError, match=r"crowd\.spread=-1"):
        LogNormal(spread=-1.0)


def test_a_table_gives_a_device_a_line(table):
    found = Table(
        path=table(
            "name, count ,compute,memory,hosts,owns\n"
            "phone,3,2e9,256e6,yes,true\n\n"
            "camera,1,0,64e6,no,1\n"
            "server,1,1e12,6.4e10,TRUE,false\n"
        )
    ).members()
    phone = Device(name="phone", compute=2e9, memory=256e6)
    camera = Device(name="camera", compute=0, memory=64e6, hosts=False)
    server = Device(name="server", compute=1e12, memory=6.4e10, owns=False)
    assert found == (phone, phone, phone, camera, server)
    assert Table(path=table("memory\n1e6\n")).members() == (Device(memory=1e6),)
    assert Table(path=table("\ufeffmemory\r\n1e6\r\n")).members() == (Device(memory=1e6),)
    every = [each.name for each in fields(Device)]
    one = Device(name="all", compute=1, memory=2, speed=3, up=4, down=5, latency=6)
    cells = [str(getattr(one, name)) for name in every]
    assert Table(path=table(",".join(every) + "\n" + ",".join(cells))).members() == (one,)


def test_the_same_file_with_other_content_is_another_crowd(table):
    before = Table(path=table("memory\n1e6\n"))
    after = Table(path=table("memory\n2e6\n"))
    assert before.path == after.path and before != after


BAD = {
    "no file": (None, r"crowd\.path='.*none\.csv': there is no such file; type crowd\.path="),
    "empty": ("", "is empty; expected a line of column names"),
    "blank lines": ("\n\n", "is empty"),
    "no devices": ("memory,up\n", "add a line for each device"),
    "a word": ("memory\n1e6\nlots\n", r"line 3, column 'memory': found 'lots'; expected a number"),
    "nothing": ("memory,up\n1e6,\n", r"line 2, column 'up': found nothing; expected .*above 0"),
    "negative": (
        "memory\n-5\n",
        r"column 'memory': found '-5'; expected .* 0, for example 2\.56e\+08",
    ),
    "nan": ("latency\nnan\n", "column 'latency': found 'nan'"),
    "inf": ("latency\ninf\n", "column 'latency': found 'inf'"),
    "no rate": ("down\n0\n", "column 'down': found '0'; expected a number above 0"),
    "a flag": ("hosts\nmaybe\n", "column 'hosts': found 'maybe'; expected true or false"),
    "a count": ("count,up\n1.5,1\n", "column 'count': found '1.5'; expected a whole number"),
    "too many": ("count\n999999999\n", "more than 1000000 devices"),
    "a column": ("memroy\n1e6\n", r"line 1: there is no column 'memroy', did you mean 'memory'\?"),
    "semicolons": ("memory;up\n1;2\n", "columns are separated by commas"),
    "twice": ("up,up\n1,2\n", "column 'up' stands there 2 times"),
    "short": ("memory,up\n1e6\n", "line 2: found 1 cells; expected 2"),
    "nobody hosts": ("hosts\nno\nno\n", "none of 2 devices may host"),
    "a pickle": (b"\x80\x04\x95\x00\xff", "cannot be read: .* not a spreadsheet or a pickle"),
    "no path": ("", r"crowd=table needs crowd\.path=FILE\.csv"),
    "a folder": (None, "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables_are_refused_with_line_and_column(name, table, tmp_path):
    text, words = BAD[name]
    path = str(tmp_path / "none.csv") if text is None else table(text)
    path = {"no path": "", "a folder": str(tmp_path)}.get(name, path)
    with pytest.raises(UsageError, match=words):
        Table(path=path)


def test_the_example_of_the_page_is_a_table(table):
    page = DOCS.read_text(encoding="utf-8")
    example = page.split("```csv\n")[1].split("```")[0]
    members = Table(path=table(example)).members()
    assert len(members) == 15
    assert any(not device.hosts for device in members) and any(not d.owns for d in members)


@pytest.mark.parametrize("name", sorted(file.stem for file in CONF.glob("*.yaml")))
def test_choices_are_built_from_their_yaml_and_show_the_defaults(name, table):
    settings = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    if name == "table":
        settings["path"] = table("memory\n1e6\n")
    built = build(settings, "crowd")
    expected = {
        "uniform": Uniform(),
        "mixed": Mixed(),
        "lognormal": LogNormal(),
        "phones": Presets(),
    }
    assert built == expected.get(name, built)
    assert len(built.members()) == (1 if name == "table" else 12)
