"""Development sessions. ``nox`` runs them all but the benchmarks."""

import json
import re
import shutil
import tomllib
from pathlib import Path

import nox

PROJECT = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]
#: The classifiers are the one list of Python versions.
PYTHONS = [
    found[1]
    for classifier in PROJECT["classifiers"]
    if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", classifier))
]

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False  # a machine without one skips it and says so
nox.options.sessions = ["lint", "typing", "tests", "oldest", "wheel"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on every installed Python of the classifiers."""
    session.install("-e", ".[test]")
    session.run("pytest", "-q", *session.posargs)


@nox.session(python=PYTHONS[0])
def coverage(session: nox.Session) -> None:
    """Run the tests and hold the coverage of branches."""
    session.install("-e", ".[test]")
    session.run("pytest", "-q", "--cov", "--cov-fail-under=95", *session.posargs)


@nox.session(python=PYTHONS[0])
def deep(session: nox.Session) -> None:
    """Run the slow tests, and those that draw their input with many examples each."""
    session.install("-e", ".[test]")
    many = {"HYPOTHESIS_PROFILE": "deep"}
    session.run("pytest", "-q", "-m", "slow or hypothesis", "--timeout=0", env=many)


@nox.session(python=PYTHONS[0])
def lint(session: nox.Session) -> None:
    """Check style and formatting, and whether a dependency has known vulnerabilities."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    _audit(session)


def _audit(session: nox.Session) -> None:
    """Look up what is installed in the database of vulnerabilities. Only findings are a failure.

    The database is a service of the network: without it nothing is known, which is said.
    """
    told = Path(session.create_tmp()).resolve() / "audit.json"
    told.unlink(missing_ok=True)
    options = ("--skip-editable", "--progress-spinner=off", "--format=json", f"--output={told}")
    # It ends with 1 for findings, and where the service is out of reach; then it tells nothing.
    session.run("pip-audit", *options, success_codes=[0, 1], silent=True)
    listed = json.loads(told.read_text("utf-8"))["dependencies"] if told.exists() else []
    # Not this package itself, and not what the environment came with.
    apart = {PROJECT["name"], "pip", "setuptools"}
    packages = [package for package in listed if package["name"] not in apart]
    found = [
        f"{package['name']} {package['version']}: {known['id']}"
        for package in packages
        for known in package.get("vulns", ())
    ]
    if found:
        session.error(f"known vulnerabilities: {'; '.join(found)}")
    known_of = sum("vulns" in package for package in packages)
    if known_of < len(packages) or not packages:
        session.warn(f"looked up {known_of} of {len(packages)} packages: the rest is not known")


@nox.session(python=PYTHONS[0])
def typing(session: nox.Session) -> None:
    """Check the types, strictly."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """Run the tests with the oldest versions that the dependencies of the library allow."""
    extras = PROJECT["optional-dependencies"]
    names = [name for name in extras if name not in {"test", "dev"}]
    bounds = PROJECT["dependencies"] + [bound for name in names for bound in extras[name]]
    # The bound of typing-extensions is that of cattrs; anyio asks for a newer one.
    apart = ("typing-extensions", "braze-export")
    pinned = [b.replace(">=", "==") for b in bounds if not b.startswith(apart)]
    session.install("-e", ".[test]")
    (api,) = (p for p in pinned if p.startswith("opentelemetry-api"))
    session.install(*pinned, api.replace("-api", "-sdk"))  # one needs the other of its age
    session.run("pytest", "-q", *session.posargs)


@nox.session(python=PYTHONS[0])
def wheel(session: nox.Session) -> None:
    """Install the built wheel without extras, as a user would, and use it outside the checkout."""
    dist = Path(session.create_tmp()).resolve() / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.install("build")
    session.run("python", "-m", "build", "--wheel", "--outdir", str(dist))
    (built,) = dist.glob("*.whl")
    session.install("--force-reinstall", str(built))
    session.chdir(dist)
    session.run("python", "-W", "error", "-c", _USE)
    # Without the extra the command line says what to install, and leaves with 2.
    session.run("braze-export", "--help", success_codes=[2])
    session.install(f"{built}[cli]")
    session.run("braze-export", "--help")
    session.run("braze-export", "demo", "--ids", "500")


@nox.session(python=PYTHONS[0])
def bench(session: nox.Session) -> None:
    """Measure against hand-written code, and print the table."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "benchmarks")


@nox.session(python=PYTHONS[0])
def peers(session: nox.Session) -> None:
    """Give the peers the same work, each in its own environment, and write the tables."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "benchmarks.peers", str(Path(session.create_tmp()) / "peers"))


@nox.session(python=PYTHONS[0])
def soak(session: nox.Session) -> None:
    """See in runs of an hour and a half whether anything grows with time."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "benchmarks.soak", *session.posargs)


@nox.session(python=PYTHONS[0])
def fuzz(session: nox.Session) -> None:
    """Fuzz what reads from outside, each part for so many seconds: ``nox -s fuzz -- 600``."""
    session.install("-e", ".[test]", "atheris>=3")
    seconds, *groups = session.posargs or ["600"]
    place = Path(session.create_tmp()).resolve() / "fuzz"
    session.run("python", "-m", "tests.fuzz", seconds, str(place), *groups)


_USE = """
import asyncio
from braze_export import BrazeClient
from braze_export.sandbox import Sandbox

async def main():
    async with Sandbox(users=100) as sandbox, BrazeClient(sandbox.api_key, sandbox.url) as braze:
        assert len((await braze.users.export_ids(sandbox.external_ids()).collect()).users) == 100

asyncio.run(main())
"""
