[[- /* Made of postgres-sample.nomad.hcl by go test ./jobspecs -update. */ -]]
[[- if var "postgres" . -]]
job "postgres-sample" {[[ template "place" . ]]
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
[[ end -]]
