"""Where a run came from: its config, and the machine, versions and data."""

from __future__ import annotations

from markupsafe import Markup

from groundstate.report.material import Material, render
from groundstate.report.words import count


def config(material: Material) -> Markup:
    text = (material.run.folder / "config.toml").read_text(encoding="utf-8")
    return render("config", text=text)


def environment(material: Material) -> Markup:
    record = material.run.record
    host, git, data = record["host"], record["git"], record["data"]
    state = "not in a git checkout"
    if git is not None:
        state = git["commit"] + (", with changes" if git["dirty"] else "")
    shape = "×".join(str(side) for side in data["input_shape"])
    samples = ", ".join(f"{amount:,} {split}" for split, amount in data["samples"].items())
    facts = [
        ("command", record["command"]),
        ("seed", record["seed"]),
        ("config hash", record["config_hash"]),
        ("git commit", state),
        ("data", f"{samples}; inputs {shape}"),
        ("data fingerprint", data["fingerprint"]),
        ("processor", f"{host['cpu']}, {count(host['cores'] or 1, 'core')}, {count(host['threads'], 'thread')}"),
        ("accelerator", host["accelerator"] or "none"),
        ("platform", host["platform"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in record["versions"].items())),
        ("started", record["created"]),
        ("ended", record["ended"] or "not yet"),
    ]
    return render("environment", facts=facts)
