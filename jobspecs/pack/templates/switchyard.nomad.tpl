[[- /* Made of switchyard.nomad.hcl by go test ./jobspecs -update. */ -]]
[[- if lt (var "replicas" . | int) 2 -]]
variable "binary" {
  description = "URL of a release's archive for Linux, or of your own build, named switchyard. Append ?checksum=sha256:… to have Nomad verify it. Or the path of the program on the node, such as /usr/bin/switchyard."
  type        = string
  default     = [[ var "binary" . | toJson ]]
}

variable "image" {
  description = "Switchyard's image, such as ghcr.io/OWNER/switchyard:1.2.0, to run that by the docker driver. Empty: the binary, by exec."
  type        = string
  default     = [[ var "image" . | toJson ]]
}

variable "driver" {
  description = "Driver for the binary. raw_exec is for an agent that is not root, or not Linux: Switchyard is then the agent's user."
  type        = string
  default     = [[ var "driver" . | toJson ]]
}

variable "volume" {
  description = "Host volume for the database. Empty: the allocation's own directory."
  type        = string
  default     = [[ var "volume" . | toJson ]]
}

variable "port" {
  description = "Port of the webhook and the claim, on the node. GitHub, or your proxy, and all Nomad clients must reach it."
  type        = number
  default     = [[ var "port" . | toJson ]]
}

job "switchyard" {[[ template "place" . ]]
  datacenters = ["*"]

  dynamic "constraint" {
    for_each = var.driver == "raw_exec" ? [] : ["linux"]
    content {
      attribute = "${attr.kernel.name}"
      value     = constraint.value
    }
  }

  group "switchyard" {
    # Only one process at a time can have the database open. On an update, Nomad starts the new allocation after the old
    # one has ended: no canary, and the volume keeps both on one node. Deliveries that fail meanwhile are redelivered.
    count = 1
    update {
      max_parallel     = 1
      canary           = 0
      min_healthy_time = "10s"
      healthy_deadline = "2m"
      auto_revert      = true
    }

    # It exits by itself only on a configuration fault; Nomad restarts it every 15 s until that is fixed.
    restart {
      attempts = 4
      interval = "1m"
      delay    = "15s"
      mode     = "delay"
    }

    shutdown_delay = "2s" # a proxy that finds the service in Nomad learns of the stop first

    network {
      port "public" {
        static = var.port
      }
      port "admin" {}
    }

    dynamic "volume" {
      for_each = var.volume == "" ? [] : [var.volume]
      labels   = ["data"]
      content {
        type   = "host"
        source = volume.value
      }
    }
    ephemeral_disk {
      sticky  = true
      migrate = true
    }

    service {
      name     = "switchyard"
      port     = "public"
      provider = "nomad"
    }

    # Health checks use the admin listener, which only its node can reach; the Nomad client that checks it runs there too.
    service {
      name     = "switchyard-admin"
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
      driver = var.image == "" ? var.driver : "docker"
      user   = var.driver == "raw_exec" ? "" : "nobody" # to whom the secrets below belong; exec's default

      dynamic "config" {
        for_each = var.image == "" ? ["exec"] : []
        content {
          command = substr(var.binary, 0, 1) == "/" ? var.binary : "${NOMAD_TASK_DIR}/switchyard"
          args    = ["serve"]
        }
      }
      dynamic "artifact" {
        for_each = var.image == "" && substr(var.binary, 0, 1) != "/" ? ["exec"] : []
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

      dynamic "volume_mount" {
        for_each = var.volume == "" ? [] : ["data"]
        content {
          volume      = volume_mount.value
          destination = "/data"
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
        SWITCHYARD_PUBLIC_URL          = "http://${NOMAD_ADDR_public}" # or https, through your proxy: runners get their configuration there
        SWITCHYARD_DB                  = var.volume == "" ? "${NOMAD_ALLOC_DIR}/data/switchyard.db" : "/data/switchyard.db"
        SWITCHYARD_RULES               = "${NOMAD_TASK_DIR}/rules.yaml"
        SWITCHYARD_WEBHOOK_SECRET_FILE = "${NOMAD_SECRETS_DIR}/webhook.secret"
      }

      # Changed rules need no restart: Switchyard reloads them itself, and keeps the old ones if the new ones are bad.
      template {
        destination = "local/rules.yaml"
        change_mode = "noop"
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/switchyard" }}{{ .rules }}{{ end -}}
        EOT
      }

      template {
        destination = "secrets/access.yaml"
        change_mode = "noop" # likewise
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/switchyard" }}{{ .access }}{{ end -}}
        EOT
      }

      # A secret that everybody on the node may read is refused. To use Vault instead: vault { role = "switchyard" } in this task, and
      # {{- with secret "kv/data/switchyard" }}{{ .Data.data.webhook_secret }}{{ end -}}
      template {
        destination = "secrets/webhook.secret"
        perms       = "400"
        uid         = var.driver == "raw_exec" ? -1 : 65534 # nobody, also in the image
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/switchyard" }}{{ .webhook_secret }}{{ end -}}
        EOT
      }

      # The login at GitHub: the App or the token, whichever the variable has.
      template {
        destination = "secrets/github.env"
        env         = true
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/switchyard" }}
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
        uid         = var.driver == "raw_exec" ? -1 : 65534
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/switchyard" }}{{ .github_app_key }}{{ end -}}
        EOT
      }
      template {
        destination = "secrets/github.token"
        change_mode = "noop" # likewise
        perms       = "400"
        uid         = var.driver == "raw_exec" ? -1 : 65534
        data        = <<-EOT
          {{- with nomadVar "nomad/jobs/switchyard" }}{{ .github_token }}{{ end -}}
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
