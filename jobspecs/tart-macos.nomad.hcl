# One ephemeral GitHub Actions runner in a fresh macOS virtual machine, on a Mac with Apple silicon.
#
# Switchyard registers a copy of this job for each GitHub job. It adds constraints, sizes and meta, and always makes it
# a batch job with one task group, count 1, and no restart or reschedule.
#
# Nodes need: Tart, the Tart driver (nomad-driver-tart 1.1, a plugin of its own), and a virtual machine to clone, named
# switchyard-macos. macOS lets a Mac run two at a time. Recommended client settings:
#
#   client { max_kill_timeout = "120s" } # caps kill_timeout below; Nomad's default is 30s
#   plugin "nomad-driver-tart" {
#     config { enabled = true }
#   }
#
# Run the Nomad client as a user who is logged in: Apple's virtualization needs the keychain of a session.
#
# The driver clones the machine, shares the task's secrets directory with it, read-only, and starts it. It runs nothing
# in it. So the machine has an agent of its own that waits for the start script there, and starts it. To make it:
#
#   tart clone ghcr.io/cirruslabs/macos-runner:sequoia switchyard-macos && tart run switchyard-macos
#
# Such images have the unpacked runner in ~/actions-runner, a user who is logged in and may sudo, and ssh. In the
# machine, save this as ~/Library/LaunchAgents/switchyard.plist, and shut it down:
#
#   <?xml version="1.0" encoding="UTF-8"?>
#   <!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
#   <plist version="1.0"><dict>
#     <key>Label</key><string>switchyard</string>
#     <key>RunAtLoad</key><true/>
#     <key>ProgramArguments</key><array><string>/bin/bash</string><string>-c</string><string>
#       until [ -e "/Volumes/My Shared Files/secrets/start.sh" ]; do sleep 1; done
#       exec /bin/bash "/Volumes/My Shared Files/secrets/start.sh"
#     </string></array>
#   </dict></plist>
#
# A workflow may do anything in the machine, which is deleted afterwards. It can read the claim there, which is spent, but
# a registration token is not: registration: token is refused. The task's log is the machine's system log.
job "tart-macos" {
  type        = "batch"
  datacenters = ["*"]

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "darwin"
  }
  constraint {
    attribute = "${attr.cpu.arch}"
    value     = "arm64"
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

    # MB for logs and scripts. The virtual machine is in Tart's own directory, which Nomad does not count.
    ephemeral_disk {
      size = 150
    }

    task "runner" {
      meta {
        switchyard = "runner" # the task that gets the sizes, devices, env and config
      }

      driver = "tart"

      config {
        url = "switchyard-macos" # of this node, or ghcr.io/… to have the driver pull it: tens of gigabytes, after the claim

        # For the log. Tart's machines are reachable from their Mac alone.
        ssh_user     = "admin"
        ssh_password = "admin"
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

      # What the machine gets: env above would reach only Tart.
      template {
        destination = "secrets/registration"
        change_mode = "noop"
        data        = <<-EOT
          {{- env "NOMAD_META_SWITCHYARD_REGISTRATION" -}}
        EOT
      }
      template {
        destination = "secrets/warm"
        change_mode = "noop"
        data        = <<-EOT
          {{- env "NOMAD_META_SWITCHYARD_WARM" -}}
        EOT
      }
      template {
        destination = "secrets/claim.curl"
        change_mode = "noop"
        data        = <<-EOT
          header = "Authorization: Bearer {{ env "NOMAD_META_SWITCHYARD_CLAIM_TOKEN" }}"
          url = "{{ env "NOMAD_META_SWITCHYARD_CLAIM_URL" }}?wait"
        EOT
      }
      template {
        destination = "secrets/verify.url"
        change_mode = "noop"
        data        = <<-EOT
          {{- env "NOMAD_META_SWITCHYARD_VERIFY_URL" -}}
        EOT
      }
      template {
        destination = "secrets/verify.token"
        change_mode = "noop"
        data        = <<-EOT
          {{- env "NOMAD_META_SWITCHYARD_VERIFY_TOKEN" -}}
        EOT
      }
      template {
        destination = "secrets/keep"
        change_mode = "noop"
        data        = <<-EOT
          {{- env "NOMAD_META_SWITCHYARD_KEEP" -}}
        EOT
      }

      # For bash 3.2, which macOS has. Nomad replaces "$" with a brace and double braces, so the script uses neither.
      template {
        destination = "secrets/start.sh"
        change_mode = "noop"
        data        = <<-EOT
          set -u
          shared=$(dirname "$0")
          trap 'sudo -n shutdown -h now' EXIT # which ends the task

          # The claim cannot be removed here. Nomad starts a task anew after its node restarts: the claim is used up then.
          # GitHub drops a runner that does not connect within some minutes, so an old claim is worth nothing anyway.
          if [ -n "$(find "$shared/runner.jit" -mmin +15)" ]; then
            echo "the claim is older than 15 minutes" >&2
            exit 1
          fi
          claim=$(cat "$shared/runner.jit") || exit 1
          # A warm runner waits here for a job. 202 is no job yet; what ends the wait is 200, a stop, or a refusal.
          if [ -z "$claim" ] && [ "$(cat "$shared/warm")" = true ]; then
            answer=$(mktemp) || exit 1
            percent=% # apart from the brace, as HCL replaces the two
            failures=0
            code=
            while [ "$code" != 200 ]; do
              code=$(curl -sS -K "$shared/claim.curl" --max-time 120 -o "$answer" -w "$percent{http_code}")
              case $code in
              200) ;;
              202) failures=0 ;;
              401 | 403 | 404 | 410)
                echo "Switchyard refuses this runner: $code" >&2
                exit 1
                ;;
              *)
                if [ "$code" = 429 ]; then failures=0; else failures=$((failures + 1)); fi
                if [ "$failures" -ge 120 ]; then
                  echo "Switchyard cannot be reached from this machine" >&2
                  exit 1
                fi
                sleep 5
                ;;
              esac
            done
            claim=$(cat "$answer") || exit 1
            rm "$answer" || exit 1
          fi
          if [ -z "$claim" ]; then
            echo "no runner is needed any more"
            exit 0
          fi
          if [ "$(cat "$shared/registration")" = token ]; then
            echo "registration: token is not for tart-macos: a workflow could read the token" >&2
            exit 1
          fi

          if [ -s "$shared/verify.token" ]; then
            cp "$shared/verify.sh" "$HOME/verify.sh" || exit 1
            export SWITCHYARD_JOB_STARTED= ACTIONS_RUNNER_HOOK_JOB_STARTED="$HOME/verify.sh"
            export NOMAD_META_SWITCHYARD_VERIFY_URL="$(cat "$shared/verify.url")" NOMAD_META_SWITCHYARD_VERIFY_TOKEN="$(cat "$shared/verify.token")"
          fi
          cd "$HOME/actions-runner" || exit 1
          # Not as an argument: those show in ps. The runner takes this out of its own environment.
          ACTIONS_RUNNER_INPUT_JITCONFIG="$claim" ACTIONS_RUNNER_PRINT_LOG_TO_STDOUT=1 ./run.sh
          code=$?
          # With "debug: { keep }" it stays for so long. Switchyard stops it at once unless its job failed.
          if [ "$code" = 0 ] && [ -s "$shared/keep" ]; then sleep "$(cat "$shared/keep")"; fi
          exit "$code"
        EOT
      }

      # With "verify" the runner runs this before the first step of its job. That it fails would not do: steps with
      # "if: always()" run then. A runner that is stopped runs none, and tells GitHub why.
      template {
        destination = "secrets/verify.sh"
        change_mode = "noop"
        data        = <<-EOT
          end=$(($(date +%s) + 120))
          while :; do
            # The token is no argument: those show in ps.
            said=$(printf 'header = "Authorization: Bearer %s"\n' "$NOMAD_META_SWITCHYARD_VERIFY_TOKEN" | curl --config - --silent --show-error --include --max-time 20 \
              --data-urlencode "repository=$GITHUB_REPOSITORY" --data-urlencode "run_id=$GITHUB_RUN_ID" --data-urlencode "run_attempt=$GITHUB_RUN_ATTEMPT" \
              "$NOMAD_META_SWITCHYARD_VERIFY_URL" 2>&1) || true
            case $(printf '%s\n' "$said" | sed -n '1s/^HTTP[^ ]* \([0-9]*\).*/\1/p') in
            200)
              if [ -n "$SWITCHYARD_JOB_STARTED" ]; then exec bash -e "$SWITCHYARD_JOB_STARTED"; fi
              exit 0
              ;;
            401 | 403 | 410) break ;;
            esac
            if [ "$(date +%s)" -ge "$end" ]; then break; fi
            sleep 2
          done
          echo "::error title=Switchyard::$(printf '%s\n' "$said" | sed -n '$p')"

          # This script's parent is the runner's worker, whose parent takes the stop.
          if [ -r "/proc/$PPID/status" ]; then
            runner=$(sed -n 's/^PPid:[^0-9]*//p' "/proc/$PPID/status")
          else
            runner=$(ps -o ppid= -p "$PPID")
          fi
          kill -INT $runner
          sleep 45
          kill -KILL "$PPID" # it has not stopped
          sleep 45
        EOT
      }

      # A stop ends the machine at once. GitHub fails its job some minutes later.
      kill_timeout = "90s"

      logs {
        max_files     = 3
        max_file_size = 10
      }

      # A rule's or label's sizes replace these. The driver gives the machine its cores, and 1 if there is only cpu.
      resources {
        cores  = 4
        memory = 8192
      }
    }
  }
}
