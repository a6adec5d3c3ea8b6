package webhook

import "net/http"

// Held returns how many bytes of a Handler's budget are taken.
func Held(h http.Handler) int64 {
	in := h.(*handler).intake
	in.mu.Lock()
	defer in.mu.Unlock()
	return h.(*handler).cfg.Budget - int64(in.free)*blockSize
}
