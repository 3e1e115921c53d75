"""Options that every command shares, declared once, and the numbers and ranges that people type."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from inspector.cli import completion
from inspector.cli.examples import CRASH, EXAMPLES
from inspector.cli.output import Output
from inspector.cli.start import is_path, offer_command
from inspector.errors import TargetError, UsageError
from inspector.records import cached_property
from inspector.text import parse_number, parse_size

if TYPE_CHECKING:
    from inspector.snapshot import Snapshot
    from inspector.target.qmp import Pause
    from inspector.target.target import Target


CORE_VARIABLE = "FOLIOSCOPE_CORE"
"""Environment variable with the dump that is inspected where none is named."""

ALL_HELP = "Walk all page tables of all processes, however long that takes."
"""Of the option that every question about one thing has."""


@dataclass
class Settings:
    """What the shared options say, gathered from before and after the name of the command."""

    cores: list[str] = field(default_factory=list)
    kernel: bool = False
    qemu: str = ""
    pause: bool = False
    symbols: list[str] = field(default_factory=list)
    types: Literal["auto", "dwarf", "btf"] = "auto"
    quiet: bool = False
    log_level: str = "warning"
    color: Literal["auto", "always", "never"] = "auto"
    no_pager: bool = False
    no_cache: bool = False
    memory: int | None = None
    workers: int | None = None
    format: Literal["text", "json", "junit", "sarif", "prometheus"] = "text"
    at_hand: Callable[[], Target] | None = None
    """At drgn's prompt: gives the target, which no option can choose."""
    target_name: str = ""
    """What is being opened, for error objects."""
    _pause: Pause | None = None

    def take(self, name: str, value: Any) -> None:
        """Keep one option's value; those that may be given several times add up."""
        if isinstance(getattr(self, name), list):
            getattr(self, name).extend(value)
        else:
            setattr(self, name, value)

    @cached_property
    def output(self) -> Output:
        """Standard output."""
        return Output(self.color, pager=not self.no_pager)

    def require_one_kind(self) -> None:
        """Refuse targets of several kinds at once; where none is named, take the dump that the environment names.

        Raises:
            UsageError: More than one of -c, -k and --qemu was given.
        """
        if self.at_hand is not None:
            if self.cores or self.kernel or self.qemu or self.symbols or self.types != "auto":
                raise UsageError("the target is what drgn has open", "", "Give no options of the target here")
            return
        if not (self.cores or self.kernel or self.qemu):
            self.cores.extend(filter(None, [os.environ.get(CORE_VARIABLE)]))
        given = [name for name, on in (("-c", self.cores), ("-k", self.kernel), ("--qemu", self.qemu)) if on]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} name different targets", "", "Give one of them")
        if self.pause and not self.qemu:
            raise UsageError("--pause stops a QEMU guest", "", "Name it with --qemu")

    def refuse_pause(self, todo: str) -> None:
        """For commands that would keep a guest stopped for as long as they run.

        Raises:
            UsageError: --pause was given.
        """
        if self.pause:
            raise UsageError("--pause would keep the guest stopped for as long as this runs", "", todo)

    def stop(self, target: Target) -> Target:
        """Stop a QEMU guest until `resume`, and give it as one that is stopped."""
        from inspector.target.qmp import pause_of  # noqa: PLC0415  (sockets, for guests only)

        self._pause = pause_of(target.monitor)
        return target.paused(self._pause.__enter__())

    def open_running(self) -> Target:
        """Open a target for a command that goes on while the kernel does.

        Raises:
            TargetError: It cannot be opened, or is a guest that is stopped and may run on any time.
        """
        target = self.open()
        if target.is_paused:
            raise TargetError("the guest is stopped", target.path, "Let it run, or see folioscope check")
        return target

    def resume(self) -> float | None:
        """Let a guest run on that was stopped, and give for how long it was; None where none was stopped."""
        if self._pause is None:
            return None
        self._pause.close()
        return self._pause.seconds

    def open(self) -> Target:
        """Open the one target that the options name; the running kernel when they name none.

        Raises:
            UsageError: They name more than one.
            TargetError: It cannot be opened.
        """
        from inspector.cli.opening import open_target  # noqa: PLC0415  (drgn)

        self.require_one_kind()
        dumps = self.dumps()
        if len(dumps) > 1:
            raise UsageError("this command takes one target", ", ".join(self.cores), "Give one -c")
        return open_target(self, dumps[0] if dumps else None)

    def dumps(self) -> list[tuple[str, ...]]:
        """The cores that are named, those together that are parts of one."""
        if len(self.cores) < 2:
            return [(core,) for core in self.cores]
        from inspector.target.corefile import together  # noqa: PLC0415  (NumPy)

        return together(self.cores)

    def snapshot(self) -> Snapshot:
        """A snapshot of the one target."""
        from inspector.snapshot import Snapshot  # noqa: PLC0415  (drgn and NumPy)

        return Snapshot(self.open())


class Size(click.ParamType[int]):
    """Bytes, with K, M, G or T for powers of 1024."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes.

        Raises:
            UsageError: It is not a size.
        """
        size = value if isinstance(value, int) else parse_size(str(value))
        if size is None:
            raise UsageError("this is no size", str(value), "Give bytes, or a number with K, M, G or T")
        return size


def keep(context: click.Context, param: click.Parameter, value: Any) -> Any:
    """Callback of an option that is a member of `Settings`: keep its value where it was given."""
    name = param.name or ""
    if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
        context.ensure_object(Settings).take(name, value)
    return value


def shared_options() -> list[click.Parameter]:
    """The options of target and output, made anew for each command."""
    level = click.Choice(["debug", "info", "warning", "error", "critical", "none"])
    made: list[click.Parameter] = [
        click.Option(
            ["-c", "--core", "cores"],
            multiple=True,
            metavar="CORE",
            help="A vmcore: ELF or kdump; once for each part of one in parts.",
            shell_complete=completion.files,
        ),
        click.Option(["-k", "--kernel"], is_flag=True, help="The running kernel (the default)."),
        click.Option(
            ["--qemu"],
            metavar="ADDRESS",
            help="A QEMU guest: its QMP socket, or host:port.",
            shell_complete=completion.files,
        ),
        click.Option(["--pause"], is_flag=True, help="Stop the QEMU guest while it is read."),
        click.Option(
            ["-s", "--symbols"],
            multiple=True,
            metavar="FILE",
            help="vmlinux or module with DWARF; may be repeated.",
            shell_complete=completion.files,
        ),
        click.Option(
            ["--types"],
            type=click.Choice(["auto", "dwarf", "btf"]),
            help="Where types come from: DWARF if there is any, else BTF in the dump (auto).",
        ),
        click.Option(["--format"], type=click.Choice(["text", "json"]), help="For people (default) or for programs."),
        click.Option(
            ["--color"],
            type=click.Choice(["auto", "always", "never"]),
            help="Colours: on a terminal (auto), always, never; NO_COLOR is never.",
        ),
        click.Option(["--no-color", "color"], is_flag=True, flag_value="never", hidden=True),
        click.Option(["--no-pager"], is_flag=True, help="On a terminal, do not show long text in PAGER (less)."),
        click.Option(
            ["--no-cache"],
            is_flag=True,
            help="Neither use the cache directory nor keep anything there.",
        ),
        click.Option(
            ["--memory"],
            type=Size(),
            metavar="SIZE",
            help="Use so much memory (4G), and scratch files in TMPDIR beyond; as much as is available by default.",
        ),
        click.Option(
            ["--workers"],
            type=click.IntRange(min=1),
            metavar="N",
            help="Processes that read and check (as many as processors by default); 1 for no others.",
        ),
        click.Option(["-q", "--quiet"], is_flag=True, help="No progress bar and no notes on stderr."),
        click.Option(["--log-level"], type=level, help="How much drgn says on stderr; debug shows tracebacks."),
    ]
    for option in made:
        option.callback = keep
        option.expose_value = False
    return made


class InspectorCommand(click.Command):
    """A command that also takes the shared options.

    Args:
        args: As for click.
        schemas: Classes of the JSON objects that it prints, as ``module:Class``; ``--schema`` shows their schema.
        kwargs: As for click.
    """

    def __init__(self, *args: Any, schemas: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.schemas = schemas
        # An option of its own goes before a shared one of the same name.
        own = {name for param in self.params for name in param.opts}
        self._shared = [option for option in shared_options() if own.isdisjoint(option.opts)]
        if schemas:
            self.params.append(_schema_option(schemas))
        self.params += self._shared

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the command's own options apart from the shared ones."""
        _format_options(self, ctx, formatter, self._shared)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """An example, then what else there is to say."""
        settings = ctx.find_object(Settings)
        examples = EXAMPLES.get(self.name or "", ())
        if settings is not None and settings.at_hand is not None:
            # Of drgn's prompt: without the program's name and target.
            examples = ()
        if examples:
            with formatter.section("Examples" if len(examples) > 1 else "Example"):
                for words in examples:
                    formatter.write_text(f"folioscope {words}")
        super().format_epilog(ctx, formatter)


class InspectorGroup(click.Group):
    """A group that imports a command when it is called, and takes the shared options itself.

    Args:
        args: As for click.
        lines: One line of help by the name of each command, in the order listed; the command ``some-name`` is
            ``some_name`` in the module `inspector.cli.commands.some_name`.
        kwargs: As for click.
    """

    def __init__(self, *args: Any, lines: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lines = lines
        self._shared = shared_options()
        self.params += self._shared

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order declared."""
        return list(self._lines)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self._lines:
            return None
        name = cmd_name.replace("-", "_")
        found: click.Command = getattr(import_module(f"inspector.cli.commands.{name}"), name)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; a misspelt one is answered with the nearest, a file with what can be done with it."""
        if args and args[0] not in self._lines and not args[0].startswith("-") and not ctx.resilient_parsing:
            if is_path(args[0]):
                return "file", offer_command(args), []
            if args[0] in CRASH:
                raise UsageError("this is a command of crash", args[0], f"Here it is folioscope {CRASH[args[0]]}")
            near = difflib.get_close_matches(args[0], self._lines, 1)
            raise UsageError(
                "there is no such command", args[0], f"Did you mean {near[0]}?" if near else "See folioscope --help"
            )
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands, or files where no command begins so."""
        found = super().shell_complete(ctx, incomplete)
        return found or [CompletionItem(incomplete, type="file")]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._lines.items()))

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the shared options apart, then the commands."""
        _format_options(self, ctx, formatter, self._shared)
        self.format_commands(ctx, formatter)


_OF_TARGET = {"cores", "kernel", "qemu", "pause", "symbols", "types", "no_cache", "log_level"}
"""Shared options that mean nothing at drgn's prompt."""


def _format_options(
    command: click.Command, ctx: click.Context, formatter: click.HelpFormatter, shared: list[click.Parameter]
) -> None:
    settings = ctx.find_object(Settings)
    at_prompt = settings is not None and settings.at_hand is not None
    output = [p for p in shared if not (at_prompt and p.name in _OF_TARGET)]
    own = [
        p.get_help_record(ctx) for p in command.get_params(ctx) if p not in shared and not isinstance(p, click.Argument)
    ]
    for title, records in (("Options", own), ("Target and output", [p.get_help_record(ctx) for p in output])):
        with formatter.section(title):
            formatter.write_dl([r for r in records if r is not None])


def _schema_option(schemas: tuple[str, ...]) -> click.Option:
    def show(context: click.Context, _param: click.Parameter, value: bool) -> None:
        if value and not context.resilient_parsing:
            from inspector.report.schema import json_schema  # noqa: PLC0415  (msgspec, only here)

            output = context.ensure_object(Settings).output
            output.lines([json_schema(schemas)])
            output.flush()
            context.exit()

    return click.Option(
        ["--schema"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Print the JSON schema of what --format json prints, and exit.",
    )


class Number(click.ParamType[int]):
    """An address or page frame number: decimal, 0x hex, or bare hex with a letter in it."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number.

        Raises:
            UsageError: It is not a number.
        """
        number = value if isinstance(value, int) else parse_number(str(value))
        if number is None:
            raise UsageError("this is no number", str(value), "Give decimal, or hex that begins with 0x")
        return number


as_option = click.option(
    "--as",
    "form",
    type=click.Choice(["pfn", "phys", "page", "virt", "kernel"]),
    help="What the number is: a pfn, or an address: physical, of a struct page, of the direct map, of the kernel.",
)
"""For commands that take the number of a page; `inspector.places.words.FORMS`, which is not imported for --help."""


confirm_option = click.option(
    "--confirm",
    "looks",
    type=click.IntRange(2, 100),
    default=3,
    show_default=True,
    metavar="K",
    help="Of a kernel that runs on, report what is there in K looks with growing gaps.",
)
"""For commands that check kernels that run on; the default is `inspector.check.confirm.LOOKS`."""

until_option = click.option("--until-finding", is_flag=True, help="End at the first new finding, with exit code 1.")
"""For commands that check again and again."""

rounds_option = click.option(
    "--rounds", "nr_rounds", type=click.IntRange(min=1), metavar="N", help="End after N checks."
)
"""For the same commands."""


def every_option(seconds: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """How long such a command rests between two checks by default."""
    rest = click.FloatRange(min=0)
    return click.option(
        "--every", type=rest, default=seconds, show_default=True, metavar="S", help="Seconds between checks."
    )


@dataclass(frozen=True)
class Listing:
    """How a list of a report is wanted.

    Attributes:
        member: Its name in the report.
        by: The column to sort by; None leaves the order.
        limit: Rows to keep; None or 0 for all.
    """

    member: str
    by: str | None = None
    limit: int | None = None


def list_options(member: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--sort`` and ``--limit`` for a command that lists rows; it is given a `Listing`.

    Args:
        member: Name of the list in the report.
    """

    def with_options(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def called(*args: Any, by: str | None, rows: int | None, **more: Any) -> Any:
            return function(*args, listing=Listing(member, by, rows), **more)

        limited = click.option("--limit", "rows", type=click.IntRange(0), metavar="N", help="Rows to list; 0 for all.")
        return limited(sort_option(called))

    return with_options


sort_option = click.option(
    "--sort",
    "by",
    metavar="COLUMN",
    help="Sort by a column, as JSON calls it: numbers with the most first; - before it turns the order round.",
)
