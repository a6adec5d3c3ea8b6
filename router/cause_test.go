package router_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What a job waits for is told by its cause, so that reasons may be reworded: no
// code looks at the text of one, in Go or in SQL.
func TestNoReasonIsRecognizedByItsText(t *testing.T) {
	inSQL := regexp.MustCompile(`(?i)reason\s+(not\s+)?(like|glob|regexp)\b|\b(substr|instr|like|glob)\s*\(\s*(\w+\.)?(reason|end_words)\b`)
	looks := []string{"HasPrefix", "HasSuffix", "Contains", "Cut", "CutPrefix", "CutSuffix", "Index", "MatchString", "EqualFold", "Split", "SplitN", "Fields"}
	files, calls := 0, 0
	read := func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "storetest"):
			return err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			return err
		}
		files++
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if text, err := strconv.Unquote(n.Value); n.Kind == token.STRING && err == nil && inSQL.MatchString(text) {
					t.Errorf("%s: %s", fset.Position(n.Pos()), text)
				}
			case *ast.CallExpr:
				f, ok := n.Fun.(*ast.SelectorExpr)
				if !ok || !slices.Contains(looks, f.Sel.Name) {
					return true
				}
				calls++
				for _, arg := range n.Args {
					if field, ok := arg.(*ast.SelectorExpr); ok && (field.Sel.Name == "Reason" || field.Sel.Name == "EndWords" || field.Sel.Name == "Refused") {
						t.Errorf("%s: %s looks at the text of a reason", fset.Position(n.Pos()), f.Sel.Name)
					}
				}
			}
			return true
		})
		return nil
	}
	if err := errors.Join(filepath.WalkDir(".", read), filepath.WalkDir("../cmd", read)); err != nil || files < 100 || calls < 50 {
		t.Errorf("%d files and %d calls were read: %v", files, calls, err)
	}
}
