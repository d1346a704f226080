"""Arguments that begin with a hyphen: a kid is often a thumbprint, and one thumbprint in 64 does."""

from __future__ import annotations

from itertools import islice

import click


class HyphenatedArguments(click.Command):
    """Treats an argument with one leading hyphen as a value, unless it is an option of this command.

    With two hyphens it is an option, so a misspelt one is an error. After ``--`` all are values
    (POSIX.1-2017, Utility Syntax Guideline 10).
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse ``args`` with the values moved after ``--``, in order."""
        values_of = {
            name: 0 if parameter.is_flag else parameter.nargs
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option)
            for name in parameter.opts
        }
        options: list[str] = []
        values: list[str] = []
        rest = iter(args)
        for arg in rest:
            if arg == "--":
                values += rest
            elif arg in values_of:
                options += [arg, *islice(rest, values_of[arg])]
            elif arg.startswith("--"):
                options.append(arg)
            else:
                values.append(arg)
        return super().parse_args(ctx, [*options, "--", *values])
