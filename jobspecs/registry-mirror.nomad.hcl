# A pull-through registry: it fetches an image of Docker Hub once, and serves it to all nodes and runners from then on.
#
#   nomad job run registry-mirror.nomad.hcl
#   nomad service info registry-mirror
#
# The last line prints ADDRESS:PORT. Runners of docker-linux-dind use it by their env, in the rules:
#
#   defaults:
#     task: { env: { SWITCHYARD_REGISTRY_MIRROR: 'http://ADDRESS:PORT' } }
#
# The other runners use the images of their nodes: give each node's Docker "registry-mirrors": ["http://ADDRESS:PORT"] in
# daemon.json, or Podman a mirror of docker.io in registries.conf. A registry mirrors one other: for a second one, run
# this file under another name with -var remote=https://ghcr.io. Docker uses mirrors for Docker Hub only, Podman for any.
#
# It has no login, and serves whoever reaches its port. With a login of its own at the remote, it would serve that login's
# private images as well, so it has none.

variable "remote" {
  description = "The registry that is mirrored."
  type        = string
  default     = "https://registry-1.docker.io"
}

variable "port" {
  description = "Port on the node. Nodes and runners must reach it."
  type        = number
  default     = 5000
}

variable "keep" {
  description = "How long an image is kept after it was fetched."
  type        = string
  default     = "168h"
}

job "registry-mirror" {
  datacenters = ["*"]

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }

  group "registry" {
    # MB for the images. They stay when the job is updated, as long as it stays on its node; nothing is lost with them.
    ephemeral_disk {
      sticky = true
      size   = 20000
    }

    shutdown_delay = "2s"

    network {
      port "registry" {
        static = var.port
        to     = 5000
      }
    }

    service {
      name     = "registry-mirror"
      port     = "registry"
      provider = "nomad"

      check {
        type     = "http"
        path     = "/"
        interval = "10s"
        timeout  = "3s"
      }
    }

    task "registry" {
      driver = "docker"
      user   = "nobody"

      config {
        image           = "docker.io/library/registry:3.1.2"
        ports           = ["registry"]
        readonly_rootfs = true
        cap_drop        = ["all"]
        security_opt    = ["no-new-privileges"]
      }

      env {
        REGISTRY_PROXY_REMOTEURL                  = var.remote
        REGISTRY_PROXY_TTL                        = var.keep
        REGISTRY_STORAGE_DELETE_ENABLED           = "true" # what is older is deleted
        REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY = "${NOMAD_ALLOC_DIR}/data"
        OTEL_TRACES_EXPORTER                      = "none" # it looks for a collector otherwise
      }

      kill_timeout = "10s"

      resources {
        cpu    = 200
        memory = 256
      }
    }
  }
}
