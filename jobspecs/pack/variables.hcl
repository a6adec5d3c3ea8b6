variable "replicas" {
  description = "1: Switchyard alone, with its database on its node. More: so many replicas, with their database in PostgreSQL."
  type        = number
  default     = 1
}

variable "binary" {
  description = "URL of a release's archive for Linux, or of your own build, named switchyard. Append ?checksum=sha256:… to have Nomad verify it. Of one alone, also the path of the program on the node, such as /usr/bin/switchyard."
  type        = string
  default     = "https://downloads.example.com/switchyard_1.2.0_linux_amd64.tar.gz"
}

variable "driver" {
  description = "Of one alone: driver for the binary. raw_exec is for an agent that is not root, or not Linux: Switchyard is then the agent's user."
  type        = string
  default     = "exec"
}

variable "volume" {
  description = "Of one alone: host volume for the database. Empty: the allocation's own directory."
  type        = string
  default     = "switchyard"
}

variable "image" {
  description = "Switchyard's image, such as ghcr.io/OWNER/switchyard:1.2.0, to run that by the docker driver. Empty: the binary, by exec."
  type        = string
  default     = ""
}

variable "port" {
  description = "Port of the webhook and the claim on the node. GitHub, or your proxy, and all Nomad clients must reach it. 0, for replicas only: one that Nomad chooses, and that the load balancer reads from the service."
  type        = number
  default     = 8080
}

variable "public_url" {
  description = "Of replicas: URL of the load balancer, for webhooks and claims. GitHub and all Nomad clients must reach it."
  type        = string
  default     = "https://switchyard.example.com"
}

variable "tags" {
  description = "Of replicas: tags of their service, for a load balancer that takes its settings from them."
  type        = list(string)
  default     = []
}

variable "distinct_hosts" {
  description = "Of replicas: each on a node of its own. An update then needs one node more than there are replicas."
  type        = bool
  default     = true
}

variable "db" {
  description = "Of replicas: URL of the database, without a password. With postgres, the address that nomad service info postgres-sample prints."
  type        = string
  default     = "postgres://switchyard@postgres.example.com/switchyard"
}

variable "sslmode" {
  description = "Of replicas: verify-full: encrypted, and the server's certificate is checked. require: encrypted only. disable: neither, as with postgres."
  type        = string
  default     = "verify-full"
}

variable "postgres" {
  description = "true: PostgreSQL as well. For trying only: one machine, no backups, no encryption."
  type        = bool
  default     = false
}

variable "registry_mirror" {
  description = "true: a pull-through registry as well."
  type        = bool
  default     = false
}

variable "registry_remote" {
  description = "The registry that it mirrors."
  type        = string
  default     = "https://registry-1.docker.io"
}

variable "registry_port" {
  description = "Its port on the node. Nodes and runners must reach it."
  type        = number
  default     = 5000
}

variable "registry_keep" {
  description = "How long it keeps an image after it was fetched."
  type        = string
  default     = "168h"
}

variable "actions_cache" {
  description = "true: a server for actions/cache as well."
  type        = bool
  default     = false
}

variable "actions_cache_url" {
  description = "URL at which runners reach it."
  type        = string
  default     = "http://actions-cache.example.com:3000"
}

variable "actions_cache_port" {
  description = "Its port on the node. Runners, or your proxy, must reach it."
  type        = number
  default     = 3000
}

variable "actions_cache_keep_days" {
  description = "Days after which it deletes what nobody uses."
  type        = number
  default     = 14
}

variable "namespace" {
  description = "Nomad's namespace of all jobs. Empty: that of the command."
  type        = string
  default     = ""
}

variable "node_pool" {
  description = "Node pool of all jobs. Empty: default."
  type        = string
  default     = ""
}
