# HCL that only Nomad can read: it stands for an operator's own jobspec.
job "shell" {
  type = "batch"
  group "runner" {
    task "runner" {
      driver = "raw_exec"
      config {
        command = "/usr/bin/env"
      }
      env {
        LABELS_AGAIN = "${NOMAD_META_RUNNER_LABELS}"
      }
      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
