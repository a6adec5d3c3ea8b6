# One ephemeral GitHub Actions runner in a Podman container on Linux, amd64 or arm64.
#
# Switchyard registers a copy of this job for each GitHub job. It adds constraints, sizes and meta, and always makes it
# a batch job with one task group, count 1, and no restart or reschedule.
#
# Nodes need: Nomad's Podman driver (nomad-driver-podman, a plugin of its own), Podman's socket, and access to ghcr.io or
# a copy of the image. Recommended client settings:
#
#   client { max_kill_timeout = "120s" } # caps kill_timeout below; Nomad's default is 30s
#   plugin "nomad-driver-podman" {
#     config {
#       # A user's own socket makes containers rootless: whoever breaks out of one is that user. That user needs 65536
#       # IDs in /etc/subuid and /etc/subgid, cgroups v2, and a session that lasts (loginctl enable-linger ci).
#       socket_path = "unix:///run/user/1001/podman/podman.sock"
#     }
#   }
#
# Podman keeps images until podman image prune. Nomad fetches the claim before it pulls the image, and GitHub drops a
# runner that does not connect within some minutes. So put the image on the nodes before the first job.
#
# There is no docker or podman for workflows in it: "container:" jobs need docker-linux-dind.
job "podman-linux" {
  type        = "batch"
  datacenters = ["*"]

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
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

      driver = "podman"
      user   = "runner" # uid 1001 of the image; the runner refuses to run as root

      config {
        image              = "ghcr.io/actions/actions-runner:2.336.0" # GitHub gives no jobs to a runner that is a month behind
        entrypoint         = ["/bin/bash", "/local/start.sh"]
        working_dir        = "/home/runner" # where run.sh is
        image_pull_timeout = "15m"
        pids_limit         = 8192

        # Workflows call sudo, which the image allows without a password; "no-new-privileges" forbids that.
        # If yours need no sudo, turn this on:
        # security_opt = ["no-new-privileges"]
      }

      env {
        RUNNER_MANUALLY_TRAP_SIG                           = "1" # run.sh passes a stop on to the runner
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

      # Nomad replaces "$" with a brace and double braces, so the script uses neither.
      template {
        destination = "local/start.sh"
        change_mode = "noop"
        data        = <<-EOT
          warm=$NOMAD_META_SWITCHYARD_WARM
          set -u
          claim_file=$NOMAD_SECRETS_DIR/runner.jit
          token=$NOMAD_META_SWITCHYARD_CLAIM_TOKEN
          unset NOMAD_META_SWITCHYARD_CLAIM_TOKEN # none of the workflow's business

          # Nomad starts a task anew after its node restarts: the file is gone then, and the claim used up.
          claim=$(cat "$claim_file") || exit 1
          rm "$claim_file" || exit 1
          if [ -z "$claim" ] && [ "$warm" != true ]; then
            echo "no runner is needed any more"
            exit 0
          fi

          # The runner overwrites this variable in each step. It then overwrites another one.
          if printenv ACTIONS_RESULTS_URL >/dev/null; then
            rename='s/\(R.E.S.U.L.T.S._.\)U\(.R.L\)/\1O\2/g' # in UTF-16
            LC_ALL=C sed -i "$rename" bin/Runner.Worker.dll || exit 1
          fi

          # A warm runner waits here for a job. 202 is no job yet; what ends the wait is 200, a stop, or a refusal.
          await_job() {
            (umask 077; printf 'header = "Authorization: Bearer %s"\nurl = "%s?wait"\n' "$token" "$NOMAD_META_SWITCHYARD_CLAIM_URL" > "$claim_file.curl")
            failures=0
            percent=% # apart from the brace, as HCL replaces the two
            while [ "$failures" -lt 120 ]; do
              curl -sS -K "$claim_file.curl" --max-time 120 -o "$claim_file" -w "$percent{http_code}" > "$claim_file.code" &
              asking=$!
              wait "$asking"
              code=$(cat "$claim_file.code")
              case $code in
              200) break ;;
              202) failures=0 ;;
              401 | 403 | 404 | 410)
                echo "Switchyard refuses this runner: $code"
                exit 1
                ;;
              *)
                if [ "$code" = 429 ]; then failures=0; else failures=$((failures + 1)); fi
                sleep 5 &
                asking=$!
                wait "$asking"
                ;;
              esac
            done
            rm -f "$claim_file.curl" "$claim_file.code"
            if [ "$code" != 200 ]; then
              echo "Switchyard cannot be reached at $NOMAD_META_SWITCHYARD_CLAIM_URL, by curl in this task"
              exit 1
            fi
            claim=$(cat "$claim_file") || exit 1
            rm "$claim_file" || exit 1
            if [ -z "$claim" ]; then
              echo "no runner is needed any more"
              exit 0
            fi
          }

          if [ -z "$claim" ]; then
            asking=
            trap 'if [ -n "$asking" ]; then kill "$asking"; fi; exit 0' INT TERM HUP
            await_job
            trap - INT TERM HUP
          fi
          unset token

          # Not as arguments: those show in ps. The runner takes these out of its own environment.
          if [ "$NOMAD_META_SWITCHYARD_REGISTRATION" = token ]; then
            trap 'exit 130' INT TERM # the first process of a container has no other way to end
            ACTIONS_RUNNER_INPUT_TOKEN=$(printf '%s\n' "$claim" | sed -n 1p) \
              ACTIONS_RUNNER_INPUT_RUNNERGROUP=$(printf '%s\n' "$claim" | sed -n 2p) \
              ACTIONS_RUNNER_INPUT_URL=$NOMAD_META_RUNNER_URL \
              ACTIONS_RUNNER_INPUT_NAME=$NOMAD_META_RUNNER_NAME \
              ACTIONS_RUNNER_INPUT_LABELS=$NOMAD_META_RUNNER_LABELS \
              ./config.sh --unattended --ephemeral --disableupdate --no-default-labels --replace || exit 1
          else
            export ACTIONS_RUNNER_INPUT_JITCONFIG="$claim"
          fi
          if printenv NOMAD_META_SWITCHYARD_VERIFY_TOKEN >/dev/null; then
            SWITCHYARD_JOB_STARTED=$(printenv ACTIONS_RUNNER_HOOK_JOB_STARTED) # a hook of yours comes after it
            export SWITCHYARD_JOB_STARTED ACTIONS_RUNNER_HOOK_JOB_STARTED="$NOMAD_TASK_DIR/verify.sh"
          fi
          if ! printenv NOMAD_META_SWITCHYARD_KEEP >/dev/null; then exec ./run.sh; fi

          # With "debug: { keep }" it stays for so long. Switchyard stops it at once unless its job failed.
          set -m # else bash starts run.sh with SIGINT ignored
          pid=
          stopped=
          trap 'stopped=1; kill -INT "$pid" 2>/dev/null' INT TERM
          ./run.sh &
          pid=$!
          unset ACTIONS_RUNNER_INPUT_JITCONFIG claim
          if [ -n "$stopped" ]; then kill -INT "$pid"; fi
          wait "$pid" # a signal ends it early
          code=$?
          while kill -0 "$pid" 2>/dev/null; do
            wait "$pid"
            code=$?
          done
          if [ "$code$stopped" = 0 ]; then
            echo "the runner has ended, and is kept for $NOMAD_META_SWITCHYARD_KEEP seconds"
            end=$(($(date +%s) + NOMAD_META_SWITCHYARD_KEEP))
            while [ -z "$stopped" ] && [ "$(date +%s)" -lt "$end" ]; do sleep 1; done
          fi
          exit "$code"
        EOT
      }

      # With "verify" the runner runs this before the first step of its job. That it fails would not do: steps with
      # "if: always()" run then. A runner that is stopped runs none, and tells GitHub why.
      template {
        destination = "local/verify.sh"
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

      # A stop cancels the job on GitHub, for which the runner takes up to 30 s.
      kill_signal  = "SIGINT"
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
