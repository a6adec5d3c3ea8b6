[[ if gt (var "replicas" . | int) 1 -]]
Switchyard starts as [[ var "replicas" . ]] replicas, once the Nomad variable nomad/jobs/switchyard-ha has its secrets, rules and access file:

  (echo tokens:; switchyard token ada --role editor) > access.yaml
  nomad var put nomad/jobs/switchyard-ha access=@access.yaml db_password=@db.password \
    webhook_secret=@webhook.secret github_app_id=123456 github_app_key=@app.pem rules=@my.yaml

Let a load balancer pass [[ var "public_url" . ]] to the service switchyard-ha.
[[- else -]]
Switchyard starts once the Nomad variable nomad/jobs/switchyard has its secrets, rules and access file:

  (echo tokens:; switchyard token ada --role editor) > access.yaml
  nomad var put nomad/jobs/switchyard access=@access.yaml \
    webhook_secret=@webhook.secret github_app_id=123456 github_app_key=@app.pem rules=@my.yaml

Let a proxy with a certificate pass GitHub's webhooks to port [[ var "port" . ]], path /webhooks/github.
[[- end ]]
[[- if var "postgres" . ]]

PostgreSQL, for trying only, starts once it has a password: nomad var put nomad/jobs/postgres-sample password=…
[[- end ]]
[[- if or (var "registry_mirror" .) (var "actions_cache" .) ]]

For runners to use the caches, the rules say:

  defaults:
    task:
      env:
[[- if var "registry_mirror" . ]]
        SWITCHYARD_REGISTRY_MIRROR: http://ADDRESS:[[ var "registry_port" . ]] # of nomad service info registry-mirror
[[- end ]]
[[- if var "actions_cache" . ]]
        ACTIONS_RESULTS_URL: [[ var "actions_cache_url" . ]]/
[[- end ]]
[[- end ]]
