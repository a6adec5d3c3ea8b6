# A cache server for actions/cache, and for the setup-… actions that use it: what workflows cache stays in your network.
#
#   nomad job run -var url=http://cache.example.com:3000 actions-cache.nomad.hcl
#
# url is where the runners reach it: a name of its node, or of a proxy in front. They use it by their env, in the rules:
#
#   defaults:
#     task: { env: { ACTIONS_RESULTS_URL: 'http://cache.example.com:3000/' } } # with the slash
#
# docker-linux, docker-linux-dind and podman-linux see to the rest: GitHub's runner overwrites that variable in each step,
# so their start script changes one name in bin/Runner.Worker.dll of their container. For the others, see README.md.
#
# It checks GitHub's signature on the token of each job, and gives a job the caches of its own repository and branch only,
# as GitHub does; jobs of an Enterprise Server it does not know. It passes everything else, such as artifacts, on to GitHub: without it, actions/upload-artifact fails, too.

variable "url" {
  description = "URL at which runners reach it."
  type        = string
  default     = "http://actions-cache.example.com:3000"
}

variable "port" {
  description = "Port on the node. Runners, or your proxy, must reach it."
  type        = number
  default     = 3000
}

variable "keep_days" {
  description = "Days after which what nobody uses is deleted."
  type        = number
  default     = 14
}

job "actions-cache" {
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
