package main

import (
	"strings"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// No page weighs more than 200 kB without the editor; -v prints what each has
// and when its first view was there, with nothing kept from before.
func TestWhatAPageWeighs(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	y := newYard(t, yardConfig{})
	job := y.busy()
	b := openTab(t, browser, y.console, chromedp.EmulateViewport(1280, 900), network.SetCacheDisabled(true))
	for _, path := range consolePages(job) {
		b.open(path)
		b.until(`performance.getEntriesByName("first-contentful-paint").length > 0`)
		w := value[struct{ Page, Scripts, Editor, First float64 }](b, `(() => {
			const size = (l) => l.reduce((n, e) => n + e.encodedBodySize, 0), all = performance.getEntriesByType("resource");
			const editor = all.filter((e) => e.name.includes("/editor."));
			return {
				Page: size(performance.getEntriesByType("navigation")), Scripts: size(all) - size(editor), Editor: size(editor),
				First: performance.getEntriesByName("first-contentful-paint")[0].startTime,
			};
		})()`)
		if w.Page+w.Scripts > 200_000 || w.Page == 0 {
			t.Errorf("%s: %.0f bytes and %.0f of style and script", path, w.Page, w.Scripts)
		}
		name, _, _ := strings.Cut(path, "?")
		t.Logf("%-22s %5.1f kB + %4.1f kB style and script, editor %5.1f kB, first view %4.0f ms", name, w.Page/1e3, w.Scripts/1e3, w.Editor/1e3, w.First)
	}
}
