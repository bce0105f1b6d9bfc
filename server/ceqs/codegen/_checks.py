"""What a contract may not say."""

from __future__ import annotations

from collections.abc import Sequence

from ceqs.codegen._check_messages import check_events, check_fields, check_states
from ceqs.codegen._check_models import check_models
from ceqs.codegen._check_names import check_contexts, check_names
from ceqs.codegen._check_rpcs import check_commands, check_queries, check_services
from ceqs.codegen._check_sources import check_sources
from ceqs.codegen._check_versions import check_versions
from ceqs.codegen._package import Package


def check(packages: Sequence[Package]) -> list[str]:
    """Give every problem of the contracts as `file:line: what is wrong and how to mend it`, by file and line."""
    commands = {rpc.input_type.full_name for package in packages for rpc in package.commands}
    queries = {rpc.input_type.full_name for package in packages for rpc in package.queries}
    contexts = [package for package in packages if package.is_context]
    for package in packages:
        check_fields(package, commands | queries, commands)
    for package in contexts:
        check_events(package)
        check_versions(package)
        check_states(package)
        check_models(package)
        check_services(package)
        check_commands(package)
        check_queries(package)
        check_sources(package, contexts)
        check_names(package)
    check_contexts(contexts)
    problems = sorted(problem for package in packages for problem in package.problems)
    return [f"{file}:{line}: {what}" for file, line, what in problems]
