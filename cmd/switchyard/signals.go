package main

import (
	"os"
	"os/signal"
	"syscall"
)

// hangups delivers SIGHUP until stop. Windows has the name, but never sends it.
func hangups() (hup <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}
