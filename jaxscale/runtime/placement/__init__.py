"""Where things live: the table of sharding rules, the mesh, the shards of parameters, the layers of pipeline stages."""
