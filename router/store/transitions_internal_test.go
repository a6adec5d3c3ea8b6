package store

import (
	"context"
	"database/sql"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"switchyard/router"
)

// A transition is a row, or a part of one, of the tables in the package documentation.
type transition struct{ table, from, to, statement string }

// documented returns the transitions of the package documentation, and who makes each.
func documented(t *testing.T) map[transition]string {
	file, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments)
	must(t, err)
	list, table := map[transition]string{}, ""
	for line := range strings.Lines(file.Doc.Text()) {
		if heading, ok := strings.CutPrefix(line, "# "); ok {
			table = map[string]string{"Transitions of jobs": "jobs", "Transitions of runners": "runners"}[strings.TrimSpace(heading)]
			continue
		}
		columns := regexp.MustCompile(` {2,}`).Split(strings.TrimSpace(line), -1)
		if table == "" || !strings.HasPrefix(line, "\t") || columns[0] == "from" {
			continue
		}
		if len(columns) != 4 {
			t.Fatalf("a row of the transitions of %s has not four columns: %q", table, columns)
		}
		for _, from := range strings.Split(columns[0], ", ") {
			for _, to := range strings.Split(columns[1], ", ") {
				list[transition{table, from, to, columns[3]}] = columns[2]
			}
		}
	}
	return list
}

// statements returns the constants of this package that hold SQL, by name.
func statements(t *testing.T) map[string]string {
	names, err := filepath.Glob("*.go")
	must(t, err)
	exprs := map[string]ast.Expr{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		must(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok && len(spec.Values) == len(spec.Names) {
				for i, name := range spec.Names {
					exprs[name.Name] = spec.Values[i]
				}
			}
			return true
		})
	}
	var text func(ast.Expr) string
	text = func(e ast.Expr) string {
		switch e := e.(type) {
		case *ast.BinaryExpr:
			return text(e.X) + text(e.Y)
		case *ast.BasicLit:
			if e.Kind == token.STRING {
				return constant.StringVal(constant.MakeFromLiteral(e.Value, e.Kind, 0))
			}
		case *ast.Ident:
			return text(exprs[e.Name])
		}
		return ""
	}
	all := map[string]string{}
	for name, e := range exprs {
		if strings.HasSuffix(name, "SQL") {
			all[name] = text(e)
		}
	}
	return all
}

var (
	writes  = regexp.MustCompile(`^\s*(?:WITH (?s:.*?)\s)?(?:UPDATE|INSERT INTO) (?:jobs|runners)\b`)
	moves   = regexp.MustCompile(`(?:\bSET|,)\s+state = |^\s*INSERT INTO`)
	reasons = regexp.MustCompile(`\breason = `)
)

// All statements that may change a state are in the tables, and no others.
func TestEveryTransitionIsDocumented(t *testing.T) {
	listed, all := map[string]bool{}, statements(t)
	for tr := range documented(t) {
		listed[tr.statement] = true
		if tr.from != "new" && !strings.Contains(all[tr.statement], "'"+tr.from+"'") {
			t.Errorf("%s does not name the state that it leaves: %s", tr.statement, tr.from)
		}
	}
	for name, sql := range all {
		w := writes.FindStringIndex(sql)
		if w == nil || name == "insertJobSQL" { // which others begin with
			continue
		}
		set, _, _ := strings.Cut(sql[w[1]:], "WHERE")
		set = sql[w[0]:w[1]] + set
		if changes := moves.MatchString(set); changes != listed[name] {
			t.Errorf("%s changes states: %t, and is documented: %t", name, changes, listed[name])
		}
		if reasons.MatchString(set) && !strings.Contains(set, "cause = ") && !strings.Contains(set, "reason = reason ||") {
			t.Errorf("%s writes a reason without its cause", name)
		}
	}
	for name := range listed {
		if all[name] == "" {
			t.Errorf("%s is documented, and there is no such statement", name)
		}
	}
}

// A Recorder notes which statements change which states, of all stores that it watches.
type Recorder struct {
	mu   sync.Mutex
	seen map[transition]bool // statement is the SQL
}

// Watch has a store's changes noted from now on.
func (rec *Recorder) Watch(t testing.TB, s *Store) {
	err := s.writer.change(t.Context(), router.SourceRouter, func(tx *tx) error {
		ctx, conn := context.Background(), tx.w.conn
		for _, statement := range []string{
			`CREATE TEMP TABLE changed (name TEXT, was TEXT, becomes TEXT)`,
			`CREATE TEMP TRIGGER job_begins AFTER INSERT ON jobs BEGIN INSERT INTO changed VALUES ('jobs', 'new', NEW.state); END`,
			`CREATE TEMP TRIGGER job_moves AFTER UPDATE OF state ON jobs WHEN OLD.state <> NEW.state BEGIN INSERT INTO changed VALUES ('jobs', OLD.state, NEW.state); END`,
			`CREATE TEMP TRIGGER runner_begins AFTER INSERT ON runners BEGIN INSERT INTO changed VALUES ('runners', 'new', NEW.state); END`,
			`CREATE TEMP TRIGGER runner_moves AFTER UPDATE OF state ON runners WHEN OLD.state <> NEW.state BEGIN INSERT INTO changed VALUES ('runners', OLD.state, NEW.state); END`,
		} {
			if _, err := conn.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		tx.w.ran = func(query string) {
			if !writes.MatchString(query) {
				return
			}
			rows, err := conn.QueryContext(ctx, `DELETE FROM temp.changed RETURNING name, was, becomes`)
			if err == nil {
				rec.mu.Lock()
				defer rec.mu.Unlock()
				err = each(rows, func(rows *sql.Rows) error {
					tr := transition{statement: query}
					err := rows.Scan(&tr.table, &tr.from, &tr.to)
					rec.seen[tr] = true
					return err
				})
			}
			if err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	must(t, err)
}

// Check fails for transitions that were seen and are not documented, and for
// documented statements that were not seen to change a state.
func (rec *Recorder) Check(t *testing.T) {
	names, unseen, known := map[string]string{}, map[string]bool{}, documented(t)
	for name, sql := range statements(t) {
		names[sql] = name
	}
	for tr := range known {
		unseen[tr.statement] = true
	}
	for tr := range rec.seen {
		tr.statement = names[tr.statement]
		delete(unseen, tr.statement)
		if _, ok := known[tr]; !ok {
			t.Errorf("%s changes a row of %s from %s to %s, which is not documented", tr.statement, tr.table, tr.from, tr.to)
		}
	}
	for name := range unseen {
		t.Errorf("%s was not seen to change a state", name)
	}
}

// NewRecorder returns one that has seen nothing.
func NewRecorder() *Recorder { return &Recorder{seen: map[transition]bool{}} }
