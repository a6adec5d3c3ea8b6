package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"switchyard/router"
	"switchyard/router/gh"
	"switchyard/router/server"
	"switchyard/router/web/auth"
)

// accessSource returns the function that reads who may use the console and the
// API; nil: everybody who can connect. token is the environment's, or "".
func (f *serveFlags) accessSource(token router.Secret, log *slog.Logger) (func() (*auth.Access, error), error) {
	nobody := f.access == "" && f.adminTokenFile == "" && token == ""
	if f.allowEdit && nobody {
		return nil, errors.New("--allow-edit needs --access FILE: without it everybody on this machine could change the rules; switchyard token prints an entry for it")
	}
	var read func() (router.Secret, error)
	switch {
	case f.adminTokenFile != "" && token != "":
		return nil, errors.New("--admin-token-file and SWITCHYARD_ADMIN_TOKEN exclude each other: leave one out")
	case f.access != "" && (f.adminTokenFile != "" || token != ""):
		return nil, errors.New("--access and an admin token exclude each other: put the token into the --access file; switchyard token prints an entry for it")
	case f.access != "":
		return auth.FollowAccess(f.access, log)
	case token != "":
		read = gh.StaticToken(token)
	case f.adminTokenFile != "":
		read = gh.TokenFile(f.adminTokenFile)
	case strings.HasPrefix(f.adminListen, server.SocketPrefix):
		return nil, nil // only this user and root can connect
	case !loopback(f.adminListen):
		return nil, fmt.Errorf("--admin-listen %s can be reached from other machines, and its API can stop runners: also give --access FILE or --admin-token-file FILE, or listen on 127.0.0.1 or unix:PATH", f.adminListen)
	default:
		log.Warn("EVERYBODY ON THIS MACHINE IS AN EDITOR: without --access, all its users and all raw_exec or host-network workflows on it may stop runners and cancel jobs",
			"admin_listen", f.adminListen, "fix", "give --access FILE, or --admin-listen unix:PATH for this user alone")
		return nil, nil
	}
	access := func() (*auth.Access, error) {
		token, err := read()
		if err != nil {
			return nil, fmt.Errorf("operators' token: %w", err)
		}
		if err := auth.CheckToken(string(token)); err != nil {
			return nil, fmt.Errorf("operators' token: %w", err)
		}
		return &auth.Access{Tokens: []auth.Token{{Name: auth.AdminToken, SHA256: sha256.Sum256([]byte(token)), Role: auth.Editor}}}, nil
	}
	_, err := access()
	return access, err
}

func newToken() string { return "syt_" + rand.Text() + rand.Text() }

// tokenEntry returns the beginning of a token's entry for --access.
func tokenEntry(name, token string, role auth.Role) string {
	sum := sha256.Sum256([]byte(token))
	return fmt.Sprintf("  - { name: %q, sha256: %s, role: %s", name, hex.EncodeToString(sum[:]), role)
}

func tokenCommand() *cobra.Command {
	role := auth.Viewer
	var repos []string
	cmd := &cobra.Command{
		Use:   "token NAME [--role ROLE] [--repos OWNER/*,…]",
		Short: "Create a token for the console and the API",
		Long: `Token prints a new token on standard error, once, and its entry for the
server's --access file, which has only the token's hash, on standard output.
Entries go below a line "tokens:", with which a new file begins. A running
server reads the changed file by itself.`,
		Example: "  echo tokens: > access.yaml\n  switchyard token grafana --role viewer --repos 'acme/*' >> access.yaml",
		Args:    exactlyOne("name for the token", "switchyard token grafana --role viewer"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("repos") && len(repos) == 0 {
				return errors.New("--repos is empty: leave it out for a token that sees all repositories")
			}
			if len(repos) == 0 && role != auth.Editor {
				repos = []string{"all"}
			}
			token := newToken()
			entry := tokenEntry(args[0], token, role)
			switch {
			case len(repos) == 1 && repos[0] == "all":
				entry += ", repos: all"
			case len(repos) > 0:
				quoted := make([]string, len(repos))
				for i, r := range repos {
					quoted[i] = fmt.Sprintf("%q", r)
				}
				entry += ", repos: [" + strings.Join(quoted, ", ") + "]"
			}
			entry += " }\n"
			if _, err := auth.ParseAccess("access.yaml", []byte("tokens:\n"+entry)); err != nil {
				return err
			}
			if _, err := fmt.Fprint(cmd.OutOrStdout(), entry); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.ErrOrStderr(), "The token of %s, which is never shown again:\n%s\n", args[0], token)
			return err
		},
	}
	cmd.Flags().TextVar(&role, "role", auth.Viewer, "`role`: viewer, operator or editor")
	cmd.Flags().StringSliceVar(&repos, "repos", nil, "`repositories` that the token sees: owner/name, owner/* or host/owner/name (all)")
	return cmd
}
