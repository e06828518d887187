"""Transactions as generators: steps yield statements and receive rows, and never touch a driver.

The same steps run on the SQLite writer thread and on a PostgreSQL connection, and whoever runs them may run them
again when the database asks for a retry, so steps hold no effect but their statements. A statement is compiled once
per dialect; parameters and results are plain text, numbers and bytes, so that no type conversion stands between
driver and caller.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import asyncpg as postgresql

from replicator.core.errors import InvalidInput

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.sql.compiler import SQLCompiler

T = TypeVar("T")

Value = str | bytes | int | float | None
Row = Sequence[Any]
Rows = Sequence[Row]


@dataclass(frozen=True, slots=True)
class Execution:
    """One statement with its parameters, to be executed by whoever runs the steps."""

    statement: Statement
    parameters: Mapping[str, Value]

    def check_text(self) -> None:
        """Raise InvalidInput for text that not every database can hold: with a NUL, or with half a surrogate pair."""
        for value in self.parameters.values():
            if isinstance(value, str) and ("\0" in value or not (value.isascii() or _is_utf8(value))):
                raise InvalidInput(f"expected text without NUL and lone surrogates, got {value[:80]!a}")


Steps = Generator[Execution, Rows, T]
"""The body of a transaction: yields executions, receives their rows, returns its result."""

Body = Callable[[], Steps[T]]
"""Makes the steps anew for every try."""


@dataclass(frozen=True, slots=True)
class StatementText:
    """A statement in one dialect: `constants` are parameters that the statement itself fixes."""

    text: str
    order: tuple[str, ...]
    constants: Mapping[str, Value]

    def named(self, parameters: Mapping[str, Value]) -> Mapping[str, Value]:
        """Return all parameters by name."""
        return {**self.constants, **parameters} if self.constants else parameters

    def positional(self, parameters: Mapping[str, Value]) -> list[Value]:
        """Return all parameters in the order of the text."""
        named = self.named(parameters)
        return [named[name] for name in self.order]


class Statement:
    """One SQL statement. Calling it with its parameters gives steps that return its rows."""

    def __init__(self, clause: sa.ClauseElement) -> None:
        self._clause = clause

    def __call__(self, **parameters: Value) -> Steps[Rows]:
        """Return steps that execute this statement once."""
        return (yield Execution(self, parameters))

    @cached_property
    def sqlite(self) -> StatementText:
        """The statement with `:name` parameters."""
        return self._text(sqlite.dialect(paramstyle="named"))

    @cached_property
    def postgresql(self) -> StatementText:
        """The statement with `$1` parameters."""
        return self._text(postgresql.dialect())  # type: ignore[no-untyped-call] # SQLAlchemy has none here

    def _text(self, dialect: sa.Dialect) -> StatementText:
        compiled = cast("SQLCompiler", self._clause.compile(dialect=dialect))
        constants = {name: parameter.value for name, parameter in compiled.binds.items() if not parameter.required}
        return StatementText(str(compiled), tuple(compiled.positiontup or ()), constants)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
