job "demo-runner" {
  type        = "batch"
  datacenters = ["*"]

  group "runner" {
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "runner" {
      driver       = "raw_exec"
      kill_timeout = "5s"

      config {
        command = PROGRAM
        args    = ["demo", "runner", GITHUB, "${NOMAD_SECRETS_DIR}/runner.jit"]
      }

      artifact {
        source      = "${NOMAD_META_SWITCHYARD_CLAIM_URL}"
        destination = "secrets/runner.jit"
        mode        = "file"
        headers {
          Authorization = "Bearer ${NOMAD_META_SWITCHYARD_CLAIM_TOKEN}"
        }
      }
    }
  }
}
