"""Clock, configuration, state folder, logging, health, sockets between processes, the supervisor."""
