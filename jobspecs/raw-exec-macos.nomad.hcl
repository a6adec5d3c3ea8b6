# One ephemeral GitHub Actions runner directly on a Mac, Intel or Apple silicon.
#
# Switchyard registers a copy of this job for each GitHub job. It adds constraints, sizes and meta, and always makes it
# a batch job with one task group, count 1, and no restart or reschedule.
#
# Nodes need: the raw_exec driver, and the unpacked runner (actions-runner-osx-*.tar.gz, never configured) in a
# directory that the node meta names:
#
#   client {
#     meta { switchyard_runner_dir = "/Users/ci/actions-runner" }
#     max_kill_timeout = "120s" # caps kill_timeout below; Nomad's default is 30s
#   }
#   plugin "raw_exec" {
#     config {
#       enabled        = true
#       denied_envvars = ["NOMAD_TOKEN"] # jobs get the agent's environment otherwise
#     }
#   }
#
# Put that directory on the volume of Nomad's data_dir: a copy by APFS clone is then instant and takes no space.
#
# Run the Nomad client as a LaunchAgent of a user who is logged in automatically. Under a LaunchDaemon, jobs have no user
# session: codesign, keychains and simulators fail, and the runner refuses to run as root (then set user below).
#
# A job can do whatever that user can, and leave things behind: use it only for repositories you trust.
job "raw-exec-macos" {
  type        = "batch"
  datacenters = ["*"]

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "darwin"
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

    # MB for the runner's copy and the job's workspace.
    ephemeral_disk {
      size = 10240
    }

    task "runner" {
      meta {
        switchyard = "runner" # the task that gets the sizes, devices, env and config
      }

      driver = "raw_exec"
      # user = "ci" # needed where the Nomad client runs as root

      config {
        command = "/bin/bash"
        args    = ["${NOMAD_TASK_DIR}/start.sh"]
      }

      env {
        SWITCHYARD_RUNNER_DIR                              = "${meta.switchyard_runner_dir}"
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

      # For bash 3.2, which macOS has. Nomad replaces "$" with a brace and double braces, so the script uses neither.
      template {
        destination = "local/start.sh"
        change_mode = "noop"
        data        = <<-EOT
          warm=$NOMAD_META_SWITCHYARD_WARM
          set -u
          set -m # else bash starts run.sh with SIGINT ignored, and no stop would reach it
          claim_file=$NOMAD_SECRETS_DIR/runner.jit
          copy=$NOMAD_TASK_DIR/runner
          token=$NOMAD_META_SWITCHYARD_CLAIM_TOKEN
          unset NOMAD_META_SWITCHYARD_CLAIM_TOKEN # none of the workflow's business

          # Nomad starts a task anew after its node restarts: the file is gone then, and the claim used up.
          claim=$(cat "$claim_file") || exit 1
          rm "$claim_file" || exit 1
          if [ -z "$claim" ] && [ "$warm" != true ]; then
            echo "no runner is needed any more"
            exit 0
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

          pid=
          asking=
          watchdog=
          stopped=
          stop() {
            stopped=1
            if [ -n "$asking" ]; then
              kill "$asking" 2>/dev/null
              exit 0
            fi
            if [ -z "$pid" ]; then return; fi
            kill -INT "$pid" 2>/dev/null
            # Nomad's own kill reaches this script's process group, not the runner's.
            (sleep 60; pkill -KILL -f "$copy/") &
            watchdog=$!
          }
          clean() {
            pkill -KILL -f "$copy/" 2>/dev/null
            if [ -n "$watchdog" ]; then kill -KILL "-$watchdog" 2>/dev/null; fi
            rm -rf "$copy"
          }
          trap clean EXIT
          trap stop INT TERM HUP

          # -c clones on APFS. Elsewhere, or from another volume, it is a plain copy.
          mkdir "$copy" || exit 1
          if ! cp -cR "$SWITCHYARD_RUNNER_DIR/." "$copy" 2>/dev/null; then
            cp -R "$SWITCHYARD_RUNNER_DIR/." "$copy" || exit 1
          fi
          cd "$copy" || exit 1
          if [ -z "$claim" ]; then
            await_job
            asking=
          fi
          unset token
          # Not as arguments: those show in ps. The runner takes these out of its own environment.
          if [ "$NOMAD_META_SWITCHYARD_REGISTRATION" = token ]; then
            ACTIONS_RUNNER_INPUT_TOKEN=$(printf '%s\n' "$claim" | sed -n 1p) \
              ACTIONS_RUNNER_INPUT_RUNNERGROUP=$(printf '%s\n' "$claim" | sed -n 2p) \
              ACTIONS_RUNNER_INPUT_URL=$NOMAD_META_RUNNER_URL \
              ACTIONS_RUNNER_INPUT_NAME=$NOMAD_META_RUNNER_NAME \
              ACTIONS_RUNNER_INPUT_LABELS=$NOMAD_META_RUNNER_LABELS \
              "$copy/config.sh" --unattended --ephemeral --disableupdate --no-default-labels --replace || exit 1
          else
            export ACTIONS_RUNNER_INPUT_JITCONFIG="$claim"
          fi
          if printenv NOMAD_META_SWITCHYARD_VERIFY_TOKEN >/dev/null; then
            SWITCHYARD_JOB_STARTED=$(printenv ACTIONS_RUNNER_HOOK_JOB_STARTED) # a hook of yours comes after it
            export SWITCHYARD_JOB_STARTED ACTIONS_RUNNER_HOOK_JOB_STARTED="$NOMAD_TASK_DIR/verify.sh"
          fi
          if [ -n "$stopped" ]; then exit 130; fi
          "$copy/run.sh" &
          pid=$!
          unset ACTIONS_RUNNER_INPUT_JITCONFIG claim
          if [ -n "$stopped" ]; then stop; fi

          # A signal ends wait early.
          wait "$pid"
          code=$?
          while kill -0 "$pid" 2>/dev/null; do
            wait "$pid"
            code=$?
          done
          # With "debug: { keep }" it stays for so long. Switchyard stops it at once unless its job failed.
          keep=$(printenv NOMAD_META_SWITCHYARD_KEEP)
          if [ -n "$keep" ] && [ "$code$stopped" = 0 ]; then
            echo "the runner has ended, and is kept for $keep seconds"
            end=$(($(date +%s) + keep))
            while [ -z "$stopped" ] && [ "$(date +%s)" -lt "$end" ]; do sleep 1; done
          fi
          cd /
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

      # A rule's or label's sizes replace these. raw_exec does not enforce them: they keep a Mac from being filled.
      resources {
        cpu    = 2000
        memory = 4096
      }
    }
  }
}
