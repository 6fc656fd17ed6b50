"""Real servers for tests: from package wheels, on loopback, on random ports, gone when the run is gone.

    with redis_server("valkey", maxmemory="8mb") as server, ChaosProxy(server.host, server.port) as proxy:
        client = redis.Redis(port=proxy.port)
        proxy.black_hole()

Nothing starts on import.
"""
