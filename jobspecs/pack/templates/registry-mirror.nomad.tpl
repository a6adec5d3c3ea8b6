[[- /* Made of registry-mirror.nomad.hcl by go test ./jobspecs -update. */ -]]
[[- if var "registry_mirror" . -]]
variable "remote" {
  description = "The registry that is mirrored."
  type        = string
  default     = [[ var "registry_remote" . | toJson ]]
}

variable "port" {
  description = "Port on the node. Nodes and runners must reach it."
  type        = number
  default     = [[ var "registry_port" . | toJson ]]
}

variable "keep" {
  description = "How long an image is kept after it was fetched."
  type        = string
  default     = [[ var "registry_keep" . | toJson ]]
}

job "registry-mirror" {[[ template "place" . ]]
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
[[ end -]]
