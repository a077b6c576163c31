"""Every program that is no verb starts, also without docstrings, and its help reads well."""

import json

HELP = """
import contextlib, io, json, runpy, sys
said = {}
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            runpy.run_module(name, run_name="__main__")
        except SystemExit as end:
            said[name] = [end.code, out.getvalue()]
print(json.dumps(said))
"""


def test_every_program_has_help_with_and_without_docstrings(program):
    names = ["vit_jax.main", "vit_jax.sweeps.job", "vit_jax.bench.duplicates"]
    for optimize in ([], ["-OO"]):
        finished = program.execute([*optimize, "-c", HELP, *names]).finish()
        assert finished.code == 0, finished.err
        said = json.loads(finished.out.splitlines()[-1])
        assert {name for name, (code, _) in said.items() if code == 0} == set(names)
        for name, (_, text) in said.items():
            assert "usage: " in text
            assert "%%" not in text, name
