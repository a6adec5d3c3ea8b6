[[- /* Made of actions-cache.nomad.hcl by go test ./jobspecs -update. */ -]]
[[- if var "actions_cache" . -]]
variable "url" {
  description = "URL at which runners reach it."
  type        = string
  default     = [[ var "actions_cache_url" . | toJson ]]
}

variable "port" {
  description = "Port on the node. Runners, or your proxy, must reach it."
  type        = number
  default     = [[ var "actions_cache_port" . | toJson ]]
}

variable "keep_days" {
  description = "Days after which what nobody uses is deleted."
  type        = number
  default     = [[ var "actions_cache_keep_days" . | toJson ]]
}

job "actions-cache" {[[ template "place" . ]]
  datacenters = ["*"]

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }

  group "cache" {
    # MB for the caches. They stay when the job is updated, as long as it stays on its node; nothing is lost with them.
    ephemeral_disk {
      sticky = true
      size   = 50000
    }

    shutdown_delay = "2s"

    network {
      port "cache" {
        static = var.port
        to     = 3000
      }
    }

    service {
      name     = "actions-cache"
      port     = "cache"
      provider = "nomad"

      check {
        type     = "http"
        path     = "/health"
        interval = "10s"
        timeout  = "3s"
      }
    }

    task "cache" {
      driver = "docker"
      user   = "nobody"

      config {
        image        = "ghcr.io/falcondev-oss/github-actions-cache-server:9.4.7"
        ports        = ["cache"]
        cap_drop     = ["all"]
        security_opt = ["no-new-privileges"]
      }

      env {
        API_BASE_URL                  = var.url
        STORAGE_DRIVER                = "filesystem"
        STORAGE_FILESYSTEM_PATH       = "${NOMAD_ALLOC_DIR}/data/caches"
        DB_DRIVER                     = "sqlite"
        DB_SQLITE_PATH                = "${NOMAD_ALLOC_DIR}/data/caches.db"
        CACHE_CLEANUP_OLDER_THAN_DAYS = var.keep_days
      }

      kill_timeout = "10s"

      resources {
        cpu    = 500
        memory = 1024
      }
    }
  }
}
[[ end -]]
