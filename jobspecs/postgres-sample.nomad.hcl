# PostgreSQL for trying switchyard-ha.nomad.hcl. FOR TRYING ONLY: one machine, no backups, no encryption, and a role
# that may do everything. What it holds is gone with its node, or when the job is purged.
#
#   nomad var put nomad/jobs/postgres-sample password=…
#   nomad job run postgres-sample.nomad.hcl
#   nomad service info postgres-sample
#
# The last line prints ADDRESS:PORT. switchyard-ha then gets the same password as db_password in its own Nomad variable, and:
#
#   nomad job run -var db=postgres://switchyard@ADDRESS:PORT/switchyard -var sslmode=disable … switchyard-ha.nomad.hcl

job "postgres-sample" {
  datacenters = ["*"]

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }

  group "postgres" {
    # Kept when the job is updated, as long as it stays on its node.
    ephemeral_disk {
      sticky = true
      size   = 1000 # MB
    }

    shutdown_delay = "2s"

    network {
      port "postgres" {
        static = 5432 # so that the URL stays the same
      }
    }

    service {
      name     = "postgres-sample"
      port     = "postgres"
      provider = "nomad"

      check {
        type     = "tcp"
        interval = "10s"
        timeout  = "3s"
      }
    }

    task "postgres" {
      driver = "docker"

      config {
        image = "docker.io/library/postgres:17.6"
        ports = ["postgres"]
      }

      env {
        PGDATA                 = "${NOMAD_ALLOC_DIR}/data/postgres"
        POSTGRES_USER          = "switchyard"
        POSTGRES_PASSWORD_FILE = "${NOMAD_SECRETS_DIR}/password"
      }

      # It counts only when the database is created.
      template {
        destination = "secrets/password"
        change_mode = "noop"
        perms       = "400"
        uid         = 999 # postgres, in the image
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/postgres-sample" }}{{ .password }}{{ end -}}
        EOT
      }

      kill_timeout = "30s" # to write a checkpoint

      resources {
        cpu    = 500
        memory = 512
      }
    }
  }
}
