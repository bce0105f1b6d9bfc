"""Real servers and child processes, for development, tests and the demo."""

from ceqs.embedded._child import bound_to_parent
from ceqs.embedded._cluster import NatsCluster
from ceqs.embedded._nats import NatsServer
from ceqs.embedded._postgres import PostgresServer
from ceqs.embedded._supervisor import Supervisor

__all__ = ["NatsCluster", "NatsServer", "PostgresServer", "Supervisor", "bound_to_parent"]
