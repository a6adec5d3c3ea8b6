app {
  url = "https://github.com/acme/switchyard"
}

pack {
  name        = "switchyard"
  description = "Switchyard, the router between GitHub Actions and Nomad: alone or as replicas, with PostgreSQL and caches"
  version     = "1.0.0"
}
