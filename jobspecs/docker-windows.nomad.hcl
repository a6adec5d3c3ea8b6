# One ephemeral GitHub Actions runner in a Windows container.
#
# Switchyard registers a copy of this job for each GitHub job. It adds constraints, sizes and meta, and always makes it
# a batch job with one task group, count 1, and no restart or reschedule.
#
# Nodes need: Docker with Windows containers and Hyper-V, the docker driver, and the unpacked runner
# (actions-runner-win-x64-*.zip, never configured) in a directory that the node meta names. The container gets it
# read-only. GitHub has no image for Windows, and one of yours need not contain the runner:
#
#   client {
#     meta { switchyard_runner_dir = "C:\\actions-runner" }
#     max_kill_timeout = "120s" # caps kill_timeout below; Nomad's default is 30s
#   }
#   plugin "docker" {
#     config {
#       volumes { enabled = true } # for that directory
#       gc { image_delay = "72h" } # the default removes the image 3 minutes after a runner
#     }
#   }
#
# The image below has PowerShell and no tools. Name your own, with Git and what your jobs use, in the rules:
#
#   defaults:
#     task: { config: { image: 'registry.example.com/windows-ci:ltsc2022' } }
#
# The images are of several gigabytes. Nomad fetches the claim before it pulls one, and GitHub drops a runner that does
# not connect within some minutes. So put the image on the nodes before the first job.
#
# Windows runners run no "container:" jobs or "services:"; that is GitHub's limit.
job "docker-windows" {
  type        = "batch"
  datacenters = ["*"]

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "windows"
  }
  constraint {
    attribute = "${meta.switchyard_runner_dir}"
    operator  = "is_set"
  }

  group "runner" {
    # A used configuration must never start a second runner.
    restart {
      attempts = 0
      mode     = "fail"
    }
    reschedule {
      attempts  = 0
      unlimited = false
    }

    # A node that loses contact with the Nomad servers keeps running its job, which only needs GitHub. Without this block,
    # Nomad stops the job once the node is back. Needs Nomad 1.8 or later.
    disconnect {
      lost_after = "1h"
      replace    = false
    }

    # MB for logs and scripts. The job's own files are in the container, which Nomad does not count.
    ephemeral_disk {
      size = 150
    }

    task "runner" {
      meta {
        switchyard = "runner" # the task that gets the sizes, devices, env and config
      }

      driver = "docker"

      config {
        image = "mcr.microsoft.com/windows/servercore:ltsc2022"
        entrypoint = [
          "powershell.exe", "-NoLogo", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass",
          "-File", "C:\\local\\start.ps1",
        ]
        image_pull_timeout = "30m"
        volumes            = ["${meta.switchyard_runner_dir}:C:\\actions-runner:ro"]

        # A virtual machine for each container. "process" needs no Hyper-V, but then the image must be of the node's own
        # Windows version, and jobs share its kernel: only for repositories you trust.
        isolation = "hyperv"
      }

      env {
        SWITCHYARD_RUNNER_DIR                              = "C:\\actions-runner"
        ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT                 = "1" # the runner's own log is in nomad alloc logs
        ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE = "1" # an outdated runner exits with 7, not 0
      }

      # The claim: the runner's registration, handed out once, when the allocation starts. An empty answer means that
      # the runner is not needed any more, or that it is a warm one, which asks again below; an error fails the task.
      artifact {
        source      = "${NOMAD_META_SWITCHYARD_CLAIM_URL}"
        destination = "secrets/runner.jit"
        mode        = "file"
        headers {
          Authorization = "Bearer ${NOMAD_META_SWITCHYARD_CLAIM_TOKEN}"
        }
      }

      # For PowerShell 5.1, which Windows has; without a byte order mark it only reads ASCII. Nomad replaces "$" with a
      # brace and double braces, so the script uses neither.
      template {
        destination = "local/start.ps1"
        change_mode = "noop"
        data        = <<-EOT
          $ErrorActionPreference = 'Stop'
          $claimFile = Join-Path $env:NOMAD_SECRETS_DIR 'runner.jit'
          $copy = 'C:\runner' # short, as many tools fail at paths over 260 characters
          $warm = $env:NOMAD_META_SWITCHYARD_WARM -eq 'true'
          $token = $env:NOMAD_META_SWITCHYARD_CLAIM_TOKEN
          # None of the workflow's business.
          Remove-Item Env:NOMAD_META_SWITCHYARD_CLAIM_TOKEN -ErrorAction SilentlyContinue

          # Nomad starts a task anew after its node restarts: the file is gone then, and the claim used up. That ends
          # the script here with exit code 1.
          $claim = [IO.File]::ReadAllText($claimFile).Trim()
          Remove-Item -LiteralPath $claimFile -Force
          if ($claim -eq '' -and -not $warm) {
            Write-Output 'no runner is needed any more'
            exit 0
          }

          # A warm runner waits here for a job. 202 is no job yet; what ends the wait is 200, a stop, or a refusal.
          function Wait-Job-Claim {
            $config = "$claimFile.curl"
            $lines = @("header = `"Authorization: Bearer $token`"", "url = `"$($env:NOMAD_META_SWITCHYARD_CLAIM_URL)?wait`"")
            [IO.File]::WriteAllLines($config, [string[]]$lines)
            for ($failures = 0; $failures -lt 120; ) {
              $status = & curl.exe -sS -K $config --max-time 120 -o $claimFile -w ('%' + '{http_code}')
              if ($status -eq '200') { break }
              if ($status -eq '202') { $failures = 0; continue }
              if ($status -in '401', '403', '404', '410') { throw "Switchyard refuses this runner: $status" }
              if ($status -eq '429') { $failures = 0 } else { $failures++ }
              Start-Sleep -Seconds 5
            }
            Remove-Item -LiteralPath $config -Force
            if ($status -ne '200') { throw "Switchyard cannot be reached at $env:NOMAD_META_SWITCHYARD_CLAIM_URL" }
            $answer = [IO.File]::ReadAllText($claimFile).Trim()
            Remove-Item -LiteralPath $claimFile -Force
            return $answer
          }

          # Its exit codes below 8 are kinds of success.
          robocopy.exe $env:SWITCHYARD_RUNNER_DIR $copy /E /MT:16 /R:2 /W:1 /NFL /NDL /NJH /NJS /NP
          if ($LASTEXITCODE -ge 8) {
            throw "robocopy of $env:SWITCHYARD_RUNNER_DIR ended with $LASTEXITCODE"
          }
          Set-Location -LiteralPath $copy

          if ($claim -eq '') {
            $claim = Wait-Job-Claim
            if ($claim -eq '') {
              Write-Output 'no runner is needed any more'
              exit 0
            }
          }
          Remove-Variable token

          # Not as arguments: those show in the task manager. The runner takes these out of its own environment.
          if ($env:NOMAD_META_SWITCHYARD_REGISTRATION -eq 'token') {
            $lines = $claim -split '\r?\n'
            $env:ACTIONS_RUNNER_INPUT_TOKEN = $lines[0]
            $env:ACTIONS_RUNNER_INPUT_RUNNERGROUP = $lines[1]
            $env:ACTIONS_RUNNER_INPUT_URL = $env:NOMAD_META_RUNNER_URL
            $env:ACTIONS_RUNNER_INPUT_NAME = $env:NOMAD_META_RUNNER_NAME
            $env:ACTIONS_RUNNER_INPUT_LABELS = $env:NOMAD_META_RUNNER_LABELS
            & (Join-Path $copy 'config.cmd') --unattended --ephemeral --disableupdate --no-default-labels --replace
            if ($LASTEXITCODE -ne 0) {
              throw "config.cmd ended with $LASTEXITCODE"
            }
            Remove-Item Env:ACTIONS_RUNNER_INPUT_*
          } else {
            $env:ACTIONS_RUNNER_INPUT_JITCONFIG = $claim
          }
          if ($env:NOMAD_META_SWITCHYARD_VERIFY_TOKEN) {
            $env:SWITCHYARD_JOB_STARTED = $env:ACTIONS_RUNNER_HOOK_JOB_STARTED # a hook of yours comes after it
            $env:ACTIONS_RUNNER_HOOK_JOB_STARTED = [IO.Path]::GetFullPath((Join-Path $env:NOMAD_TASK_DIR 'verify.ps1'))
          }
          & (Join-Path $copy 'run.cmd')
          $code = $LASTEXITCODE
          # With "debug: { keep }" it stays for so long. Switchyard stops it at once unless its job failed.
          if ($code -eq 0 -and $env:NOMAD_META_SWITCHYARD_KEEP) {
            Write-Output "the runner has ended, and is kept for $env:NOMAD_META_SWITCHYARD_KEEP seconds"
            Start-Sleep -Seconds ([int]$env:NOMAD_META_SWITCHYARD_KEEP)
          }
          exit $code
        EOT
      }

      # With "verify" the runner runs this before the first step of its job. That it fails would not do: steps with
      # "if: always()" run then. So it ends the runner, and GitHub fails the job some minutes later.
      template {
        destination = "local/verify.ps1"
        change_mode = "noop"
        data        = <<-EOT
          $end = (Get-Date).AddMinutes(2)
          while ($true) {
            try {
              Invoke-WebRequest -UseBasicParsing -Method Post -TimeoutSec 20 -Uri $env:NOMAD_META_SWITCHYARD_VERIFY_URL `
                -Headers @{ Authorization = "Bearer $env:NOMAD_META_SWITCHYARD_VERIFY_TOKEN" } `
                -Body @{ repository = $env:GITHUB_REPOSITORY; run_id = $env:GITHUB_RUN_ID; run_attempt = $env:GITHUB_RUN_ATTEMPT } | Out-Null
              if ($env:SWITCHYARD_JOB_STARTED) { . $env:SWITCHYARD_JOB_STARTED }
              exit 0
            } catch {
              $code = 0
              if ($_.Exception.Response) { $code = [int]$_.Exception.Response.StatusCode }
              $said = $_.Exception.Message
              if ($_.ErrorDetails) { $said = $_.ErrorDetails.Message }
              if (@(401, 403, 410) -contains $code -or (Get-Date) -ge $end) { break }
              Start-Sleep -Seconds 2
            }
          }
          Write-Output "::error title=Switchyard::$said"
          Start-Sleep -Seconds 5 # for the runner to send that

          # This process's parent is the runner's worker, whose parent is the runner.
          $worker = (Get-CimInstance Win32_Process -Filter "ProcessId = $PID").ParentProcessId
          $runner = (Get-CimInstance Win32_Process -Filter "ProcessId = $worker").ParentProcessId
          Stop-Process -Force -Id $runner, $worker
          Start-Sleep -Seconds 60
        EOT
      }

      # A stop shuts the container down. A runner that does not cancel its job in this time is killed, and GitHub fails
      # the job some minutes later.
      kill_timeout = "90s"

      logs {
        max_files     = 3
        max_file_size = 10
      }

      # A rule's or label's sizes replace these.
      resources {
        cpu    = 2000
        memory = 4096
      }
    }
  }
}
