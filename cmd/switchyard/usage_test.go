package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"switchyard/router"
	"switchyard/router/store/storetest"
	"switchyard/router/usage"
	"switchyard/rules"
)

func TestUsageIsPrintedForPeopleProgramsAndSpreadsheets(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x.db")
	storetest.Create(t, path)
	end := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	storetest.History(t, path, 2000, 10*24*time.Hour, end)
	ask := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		args = append([]string{"usage", "--db", path, "--since", "2026-11-24", "--until", "2026-11-30T12:30:00Z"}, args...)
		if code := run(t.Context(), args, nil, &out, &errs); code != exitYes {
			t.Fatalf("%v = %d: %s", args, code, errs.String())
		}
		return out.String()
	}
	if strings.Contains(ask("--by", "owner"), "COST") {
		t.Error("costs without prices")
	}
	st := storetest.Open(t, path)
	_, err := st.KeepRules(t.Context(), router.KeptRules{Hash: "1", Origin: "start", Files: []rules.File{{
		Name: "rules.yaml", Source: []byte("version: 1\nprices: { currency: EUR, cpu_hour: 0.04, gib_hour: 0.005 }\nrules: [{ name: r, jobspec: docker-linux }]\n"),
	}}})
	must(t, err)
	must(t, st.Close())
	var r usage.Report
	must(t, json.Unmarshal([]byte(ask("--by", "rule", "--format", "json")), &r))
	if len(r.Rows) != storetest.HistoryRules || r.Currency != "EUR" || r.Total.Jobs == 0 || max(r.Total.Cost, r.Total.CPUHours/25+r.Total.GiBHours/200)-min(r.Total.Cost, r.Total.CPUHours/25+r.Total.GiBHours/200) > 1 || r.Total.Wasted.Runners == 0 || r.Total.Before != nil {
		t.Errorf("%+v of %d rows", r.Total, len(r.Rows))
	}
	text := ask("--by", "rule")
	for _, want := range []string{"2026-11-24 00:00 to 2026-11-30 12:30 UTC, by rule\n", "WASTED EUR", "\nTOTAL ", " " + r.Total.Cost.Cents() + " ", "h11 "} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	rows, err := csv.NewReader(strings.NewReader(ask("--by", "owner", "--format", "csv"))).ReadAll()
	must(t, err)
	jobs := 0
	for _, row := range rows[1:] {
		n := 0
		_, err := fmt.Sscan(row[1], &n)
		must(t, err)
		jobs += n
	}
	if rows[0][0] != "owner" || jobs != r.Total.Jobs {
		t.Errorf("%d jobs in the table, want %d: %v", jobs, r.Total.Jobs, rows[0])
	}
	if text := ask("--since", "2026-11-29", "--by", "rule"); !strings.Contains(text, "%\n") {
		t.Errorf("no trend:\n%s", text)
	}
	if got := cell("=HYPERLINK(1)"); got != "'=HYPERLINK(1)" {
		t.Errorf("a formula is %s", got)
	}
	for _, wrong := range [][]string{{"--by", "team"}, {"--since", "1m2"}, {"--format", "xml"}, {"--since", "2026-11-02", "--until", "2026-11-01"}, {"--since", "2020-01-01"}} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), append([]string{"usage", "--db", path}, wrong...), nil, &out, &errs); code != exitUnknown || errs.Len() == 0 || out.Len() != 0 {
			t.Errorf("%v = %d: %s%s", wrong, code, out.String(), errs.String())
		}
	}
}
