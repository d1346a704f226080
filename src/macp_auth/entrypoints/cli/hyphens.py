"""Arguments that begin with a hyphen: one thumbprint in 64 does, and a kid is often a thumbprint."""

from __future__ import annotations

from itertools import islice

import rich_click as click


class HyphenatedArguments(click.RichCommand):
    """Takes an argument that begins with one hyphen for a value, unless it is an option of this command.

    Options of two hyphens stay options, so that a misspelt one is an error. After ``--`` all are values,
    as everywhere (POSIX.1-2017, Utility Syntax Guideline 10).
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse ``args`` with their values moved behind ``--``, in their order."""
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
