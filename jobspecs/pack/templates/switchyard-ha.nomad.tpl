[[- /* Made of switchyard-ha.nomad.hcl by go test ./jobspecs -update. */ -]]
[[- if ge (var "replicas" . | int) 2 -]]
variable "binary" {
  description = "URL of a release's archive for Linux, or of your own build, named switchyard. Append ?checksum=sha256:… to have Nomad verify it."
  type        = string
  default     = [[ var "binary" . | toJson ]]
}

variable "image" {
  description = "Switchyard's image, such as ghcr.io/OWNER/switchyard:1.2.0, to run that by the docker driver. Empty: the binary, by exec."
  type        = string
  default     = [[ var "image" . | toJson ]]
}

variable "replicas" {
  description = "How many there are. Two survive the loss of a node; three survive it during an update, too."
  type        = number
  default     = [[ var "replicas" . | toJson ]]
}

variable "distinct_hosts" {
  description = "Each replica on a node of its own. An update then needs one node more than there are replicas."
  type        = bool
  default     = [[ var "distinct_hosts" . | toJson ]]
}

variable "public_url" {
  description = "URL of the load balancer, for webhooks and claims. GitHub and all Nomad clients must reach it."
  type        = string
  default     = [[ var "public_url" . | toJson ]]
}

variable "port" {
  description = "Port of the webhook and the claim on each node. 0: one that Nomad chooses, and that the load balancer reads from the service."
  type        = number
  default     = [[ var "port" . | toJson ]]
}

variable "tags" {
  description = "Tags of the service, for a load balancer that takes its settings from them."
  type        = list(string)
  default     = [[ var "tags" . | toJson ]]
}

variable "db" {
  description = "URL of the database, without a password."
  type        = string
  default     = [[ var "db" . | toJson ]]
}

variable "sslmode" {
  description = "verify-full: encrypted, and the server's certificate is checked. require: encrypted only. disable: neither, as for postgres-sample."
  type        = string
  default     = [[ var "sslmode" . | toJson ]]
}

job "switchyard-ha" {[[ template "place" . ]]
  datacenters = ["*"]

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }

  constraint {
    operator = "distinct_hosts"
    value    = var.distinct_hosts
  }

  spread {
    attribute = "${node.datacenter}"
  }

  group "switchyard" {
    count = var.replicas

    # One more replica has to be ready before the others are replaced, one by one. If one is not ready in time, Nomad goes
    # back to the old version.
    update {
      canary            = 1
      auto_promote      = true
      max_parallel      = 1
      min_healthy_time  = "10s"
      healthy_deadline  = "2m"
      progress_deadline = "5m"
      auto_revert       = true
    }

    # It exits by itself only on a configuration fault, or when it cannot reach its database at the start; Nomad restarts it
    # every 15 s until that is fixed.
    restart {
      attempts = 4
      interval = "1m"
      delay    = "15s"
      mode     = "delay"
    }

    shutdown_delay = "5s" # a load balancer that finds the service in Nomad learns of the stop first

    network {
      port "public" {
        static = var.port
      }
      port "admin" {}
    }

    service {
      name     = "switchyard-ha"
      port     = "public"
      provider = "nomad"
      tags     = var.tags
    }

    # Health checks use the admin listener, which only its node can reach; the Nomad client that checks it runs there too.
    service {
      name     = "switchyard-ha-admin"
      port     = "admin"
      address  = "127.0.0.1"
      provider = "nomad"

      check {
        name     = "alive"
        type     = "http"
        path     = "/healthz"
        interval = "10s"
        timeout  = "3s"
        check_restart {
          limit = 6
          grace = "60s"
        }
      }
      check {
        name     = "ready"
        type     = "http"
        path     = "/readyz"
        interval = "10s"
        timeout  = "5s"
      }
    }

    task "switchyard" {
      # exec gives each task a chroot with the node's /usr and more, which takes Nomad some seconds. If no other exec task
      # of the node needs more, chroot_env { "/etc" = "/etc" } in the client's settings is enough.
      driver = var.image == "" ? "exec" : "docker"
      user   = "nobody" # to whom the secrets below belong; exec's default

      dynamic "config" {
        for_each = var.image == "" ? ["exec"] : []
        content {
          command = "${NOMAD_TASK_DIR}/switchyard"
          args    = ["serve"]
        }
      }
      dynamic "artifact" {
        for_each = var.image == "" ? ["exec"] : []
        content {
          source      = var.binary
          destination = "local"
        }
      }
      dynamic "config" {
        for_each = var.image == "" ? [] : ["docker"]
        content {
          image           = var.image
          args            = ["serve"]
          network_mode    = "host"
          readonly_rootfs = true
          cap_drop        = ["all"]
          security_opt    = ["no-new-privileges"]
        }
      }

      # This job's own token, and this node's Nomad API through a socket that only the task has. For another Nomad, set
      # NOMAD_ADDR to it, drop this block, and add NOMAD_TOKEN by a template with env = true.
      identity {
        env = true
      }

      env {
        NOMAD_ADDR                     = "unix://${NOMAD_SECRETS_DIR}/api.sock"
        SWITCHYARD_LISTEN              = ":${NOMAD_PORT_public}"
        SWITCHYARD_ADMIN_LISTEN        = "127.0.0.1:${NOMAD_PORT_admin}"
        SWITCHYARD_ACCESS              = "${NOMAD_SECRETS_DIR}/access.yaml"
        SWITCHYARD_PUBLIC_URL          = var.public_url
        SWITCHYARD_DB                  = var.db
        SWITCHYARD_RULES               = "${NOMAD_TASK_DIR}/rules.yaml"
        SWITCHYARD_WEBHOOK_SECRET_FILE = "${NOMAD_SECRETS_DIR}/webhook.secret"
        PGSSLMODE                      = var.sslmode
        PGPASSFILE                     = "${NOMAD_SECRETS_DIR}/pgpass"
      }

      # Changed rules need no restart: each replica reloads them itself, and keeps the old ones if the new ones are bad.
      template {
        destination = "local/rules.yaml"
        change_mode = "noop"
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/switchyard-ha" }}{{ .rules }}{{ end -}}
        EOT
      }

      template {
        destination = "secrets/access.yaml"
        change_mode = "noop" # likewise
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/switchyard-ha" }}{{ .access }}{{ end -}}
        EOT
      }

      # A secret that everybody on the node may read is refused. To use Vault instead, see README.md, "Several replicas".
      template {
        destination = "secrets/webhook.secret"
        change_mode = "noop" # likewise
        perms       = "400"
        uid         = 65534 # nobody, also in the image
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/switchyard-ha" }}{{ .webhook_secret }}{{ end -}}
        EOT
      }

      # The database's password, for every host, port, database and role, and its CA. Switchyard reads them for each
      # connection that it makes.
      template {
        destination = "secrets/pgpass"
        change_mode = "noop"
        perms       = "400"
        uid         = 65534
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/switchyard-ha" -}}
          *:*:*:*:{{ .db_password.Value | trimSpace | replaceAll "\\" "\\\\" | replaceAll ":" "\\:" }}
          {{- end }}
        EOT
      }
      template {
        destination = "secrets/db-ca.pem"
        change_mode = "noop"
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/switchyard-ha" }}{{ .db_ca }}{{ end -}}
        EOT
      }

      # That there is a CA, if the variable has one, and the login at GitHub: the App or the token, whichever it has.
      template {
        destination = "secrets/env"
        env         = true
        splay       = "2m"
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/switchyard-ha" }}
          {{- if .db_ca.Value }}
          PGSSLROOTCERT={{ env "NOMAD_SECRETS_DIR" }}/db-ca.pem
          {{- end }}
          {{- if .github_app_id.Value }}
          SWITCHYARD_GITHUB_APP_ID={{ .github_app_id }}
          SWITCHYARD_GITHUB_APP_KEY_FILE={{ env "NOMAD_SECRETS_DIR" }}/app.pem
          {{- else }}
          SWITCHYARD_GITHUB_TOKEN_FILE={{ env "NOMAD_SECRETS_DIR" }}/github.token
          {{- end }}{{ end }}
        EOT
      }
      template {
        destination = "secrets/app.pem"
        change_mode = "noop" # Switchyard reads it again when it changes
        perms       = "400"
        uid         = 65534
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/switchyard-ha" }}{{ .github_app_key }}{{ end -}}
        EOT
      }
      template {
        destination = "secrets/github.token"
        change_mode = "noop" # likewise
        perms       = "400"
        uid         = 65534
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/switchyard-ha" }}{{ .github_token }}{{ end -}}
        EOT
      }

      # Longer than --grace, the time in which it finishes its work.
      kill_timeout = "30s"

      # Switchyard stays within nine tenths of the memory. 512 is enough for 64 MiB of bodies from strangers, the largest
      # possible draft of rules, and ten thousand rules in force, all at once.
      resources {
        cpu    = 500
        memory = 512
      }
    }
  }
}
[[ end -]]
